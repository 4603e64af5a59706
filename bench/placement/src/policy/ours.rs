//! tokenbus's own placement: the same code that gateways and workers run, fed with what they would hear.

use rustc_hash::FxHashMap;
use tokenbus_placement::{
    Applied, Candidate, DIRECTORY_BYTES, Directory, Facts, Holdings, PRIOR_PREFILL, PRIOR_SERVICE_MS, PRIOR_TOKEN_MS,
    Pending, Pick, Prompt, Reason, Recent, Room as Slots, Trust, Verdict, WorkerNumber, crowding, expected,
};

use super::decide::{Ask, Choice, Policy};
use crate::cuts;
use crate::engine::Number;
use crate::random::mix;
use crate::reporter::{Report, Room};
use crate::setting::Cluster;
use crate::time::{MILLISECOND, Nanos, from_seconds};

/// What is known of one worker.
#[derive(Debug)]
struct Known {
    number: WorkerNumber,
    lives: bool,
    slots: u32,
    /// Its free slots, as it said at this time.
    free: u32,
    said_at: Nanos,
    /// Requests sent there and not answered yet.
    sent: u32,
    /// Requests of this gateway that wait for it, and their tokens.
    line: u32,
    line_tokens: f32,
    pending: Pending,
    busy: f32,
    trust: Trust,
    prefill: Option<f32>,
    base_ms: f32,
    service_ms: Option<f32>,
    token_ms: f32,
}

/// A request that was sent: the tokens that it seemed to hold there, and those to be read.
#[derive(Debug, Clone, Copy)]
struct Sent {
    claimed: u32,
    uncached: u32,
    stage: Stage,
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Sent,
    Taken,
    Read,
}

/// The policy.
pub(super) struct Ours {
    workers: Vec<Known>,
    directory: Directory,
    recent: Recent,
    holdings: Holdings,
    pick: Pick,
    sent: FxHashMap<Number, Sent>,
    /// The prompt of the present decision, and the tokens that its worker seems to hold.
    decided: Option<(Number, Prompt, u32)>,
    /// The tokens that each waiting request has to read at the worker for which it waits.
    waiting: FxHashMap<Number, f32>,
    reasons: [u64; Reason::ALL.len()],
    waits: u64,
    rng: fastrand::Rng,
}

impl Ours {
    /// Over these workers.
    pub(super) fn new(cluster: &Cluster, seed: u64) -> Self {
        let mut directory = Directory::new(DIRECTORY_BYTES);
        let workers = cluster.engines.iter().map(|engine| Known {
            number: directory.join().unwrap_or(WorkerNumber(0)),
            lives: true,
            slots: engine.slots,
            free: engine.slots,
            said_at: 0,
            sent: 0,
            line: 0,
            line_tokens: 0.0,
            pending: Pending::default(),
            busy: 0.0,
            trust: Trust::default(),
            prefill: None,
            base_ms: 0.0,
            service_ms: None,
            token_ms: PRIOR_TOKEN_MS,
        });
        Self {
            workers: workers.collect(),
            directory,
            recent: Recent::default(),
            holdings: Holdings::default(),
            pick: Pick::default(),
            sent: FxHashMap::default(),
            decided: None,
            waiting: FxHashMap::default(),
            reasons: [0; Reason::ALL.len()],
            waits: 0,
            rng: fastrand::Rng::with_seed(seed),
        }
    }

    fn facts(&self, worker: usize, prior: f32, now_ms: u64) -> Facts {
        let known = &self.workers[worker];
        let prefill = known.prefill.unwrap_or(prior);
        Facts {
            slots: known.slots,
            free: known.free.saturating_sub(known.sent + known.line),
            queued: known.line,
            pending: known.pending.tokens(prefill, now_ms) + known.line_tokens,
            prefill,
            base_ms: known.base_ms,
            service_ms: known.service_ms.unwrap_or(PRIOR_SERVICE_MS),
            token_ms: known.token_ms,
        }
    }

    fn living(&self) -> impl Iterator<Item = usize> {
        (0..self.workers.len()).filter(|worker| self.workers[*worker].lives)
    }

    /// How crowded the workers are, by the part of their time in which they read prompts.
    fn crowding(&self) -> f32 {
        let (sum, count) = self.living().fold((0.0, 0.0), |(sum, count), worker| {
            (sum + self.workers[worker].busy, count + 1.0)
        });
        crowding(if count > 0.0 { sum / count } else { 0.0 })
    }

    /// The prefill rate of workers that have not measured theirs: the mean of those that have.
    fn prior(&self) -> f32 {
        let known = self.workers.iter().filter_map(|worker| worker.prefill);
        let (sum, count) = known.fold((0.0, 0.0), |(sum, count), rate| (sum + rate, count + 1.0));
        if count > 0.0 { sum / count } else { PRIOR_PREFILL }
    }
}

impl Policy for Ours {
    fn place(&mut self, ask: &Ask<'_>) -> Choice {
        let now_ms = ask.now / MILLISECOND;
        let prompt = cuts::of(&ask.request.prompt);
        self.holdings.clear();
        self.directory.look(&prompt, &mut self.holdings);
        self.recent.add_to(&prompt, now_ms, &mut self.holdings);
        self.pick.clear();
        let (prior, crowding) = (self.prior(), self.crowding());
        for worker in 0..self.workers.len() {
            let known = &self.workers[worker];
            if !known.lives || ask.refused_by & (1 << worker) != 0 {
                continue;
            }
            let cached = known.trust.counted(self.holdings.of(known.number));
            #[expect(clippy::cast_precision_loss, reason = "prompts are far below 2^24 tokens")]
            let uncached = prompt.tokens().saturating_sub(cached) as f32;
            let facts = self.facts(worker, prior, now_ms);
            let expected = expected(uncached, &facts);
            let turn = ask.turn_at == Some(worker) && known.free > known.sent;
            let room = if turn || facts.free > 0 {
                Slots::Free
            } else if ask.may_hold && known.service_ms.is_some() {
                Slots::In(expected.wait)
            } else {
                Slots::None
            };
            self.pick.offer(Candidate {
                #[expect(clippy::cast_possible_truncation, reason = "workers are few")]
                id: worker as u32,
                name: mix(worker as u64),
                expected_ms: expected.total(),
                cost: expected.cost(crowding),
                cached,
                #[allow(clippy::cast_precision_loss)]
                busy: 1.0 - facts.free as f32 / facts.slots as f32,
                room,
            });
        }
        let beginning = prompt.cuts().first().map(|cut| cut.hash);
        match self.pick.decide(None, beginning, &mut self.rng) {
            Verdict::Nobody => Choice::Wait,
            Verdict::Wait(hold) => {
                self.waits += 1;
                let known = &self.workers[hold.id as usize];
                let cached = known.trust.counted(self.holdings.of(known.number));
                #[expect(clippy::cast_precision_loss, reason = "prompts are far below 2^24 tokens")]
                self.waiting
                    .insert(ask.number, prompt.tokens().saturating_sub(cached) as f32);
                Choice::Hold(hold.id as usize, from_seconds(f64::from(hold.bound_ms) / 1e3))
            }
            Verdict::Send(decision) => {
                let reason = Reason::ALL.into_iter().position(|reason| reason == decision.reason);
                self.reasons[reason.unwrap_or(0)] += 1;
                self.decided = Some((ask.number, prompt, decision.cached));
                Choice::Worker(decision.id as usize)
            }
        }
    }

    fn held(&mut self, number: Number, worker: usize, more: bool) {
        let known = &mut self.workers[worker];
        if more {
            known.line += 1;
            known.line_tokens += self.waiting.get(&number).copied().unwrap_or(0.0);
        } else {
            known.line -= 1;
            known.line_tokens = (known.line_tokens - self.waiting.remove(&number).unwrap_or(0.0)).max(0.0);
        }
    }

    fn is_open(&self, worker: usize) -> bool {
        let known = &self.workers[worker];
        known.lives && known.free > known.sent
    }

    fn sent(&mut self, ask: &Ask<'_>, worker: usize) {
        let Some((_, prompt, claimed)) = self.decided.take().filter(|(number, ..)| *number == ask.number) else {
            return;
        };
        let known = &mut self.workers[worker];
        let uncached = prompt.tokens().saturating_sub(claimed);
        known.pending.sent(uncached);
        known.sent += 1;
        self.recent.placed(&prompt, known.number, ask.now / MILLISECOND);
        let sent = Sent {
            claimed,
            uncached,
            stage: Stage::Sent,
        };
        self.sent.insert(ask.number, sent);
    }

    fn taken(&mut self, number: Number, worker: usize) {
        if let Some(sent) = self.sent.get_mut(&number) {
            sent.stage = Stage::Taken;
            self.workers[worker].sent -= 1;
            self.workers[worker].pending.taken(sent.uncached);
        }
    }

    fn refused(&mut self, number: Number, worker: usize, now: Nanos) {
        self.ended(number, worker, now);
        self.workers[worker].free = 0;
    }

    fn first_token(&mut self, number: Number, worker: usize, cached: u32, _now: Nanos) {
        if let Some(sent) = self.sent.get_mut(&number) {
            sent.stage = Stage::Read;
            self.workers[worker].pending.read(sent.uncached);
            self.workers[worker].trust.observe(sent.claimed, cached);
        }
    }

    fn ended(&mut self, number: Number, worker: usize, _now: Nanos) {
        let known = &mut self.workers[worker];
        match self.sent.remove(&number) {
            Some(sent) if sent.stage == Stage::Sent => {
                known.sent -= 1;
                known.pending.unsent(sent.uncached);
            }
            Some(sent) if sent.stage == Stage::Taken => known.pending.read(sent.uncached),
            _ => {}
        }
    }

    fn room(&mut self, worker: usize, room: Room, now: Nanos) {
        let known = &mut self.workers[worker];
        if now < known.said_at {
            return;
        }
        (known.free, known.said_at) = (room.free, now);
        if let Some(pending) = room.pending {
            known.pending.reported(pending, true, now / MILLISECOND);
        }
    }

    fn status(&mut self, worker: usize, report: &Report, now: Nanos) {
        let known = &mut self.workers[worker];
        if report.at >= known.said_at {
            (known.free, known.said_at) = (report.free, report.at);
        }
        let Some(told) = &report.told else { return };
        known.pending.reported(told.pending, false, now / MILLISECOND);
        known.prefill = told.prefill;
        known.busy = told.busy;
        known.base_ms = told.base_ms.unwrap_or(0.0);
        known.service_ms = told.service_ms;
        known.token_ms = told.token_ms.unwrap_or(PRIOR_TOKEN_MS);
        for news in &told.news {
            if self.directory.apply(&mut known.number, news) == Applied::Known {
                break;
            }
        }
        self.directory.sweep();
    }

    fn lost(&mut self, worker: usize) {
        self.workers[worker].lives = false;
        self.directory.leave(self.workers[worker].number);
    }

    fn reasons(&self) -> Vec<(&'static str, u64)> {
        let reasons = Reason::ALL.into_iter().zip(self.reasons);
        let mut all: Vec<_> = reasons.map(|(reason, count)| (reason.name(), count)).collect();
        all.push(("waited", self.waits));
        all
    }
}
