//! tokenbus's own placement: the same code that gateways and workers run, fed with what they would hear.

use rustc_hash::FxHashMap;
use tokenbus_placement::{
    Applied, Candidate, DIRECTORY_BYTES, Directory, Facts, Holdings, PRIOR_PREFILL, PRIOR_SERVICE_MS, PRIOR_TOKEN_MS,
    Pending, Pick, Prompt, Reason, Recent, Trust, WorkerNumber, crowding, expected,
};

use super::decide::{Ask, Choice, Policy};
use super::loads::Loads;
use crate::cuts;
use crate::engine::Number;
use crate::random::mix;
use crate::reporter::{Report, Room};
use crate::setting::Cluster;
use crate::time::{MILLISECOND, Nanos};

/// What is known of one worker.
#[derive(Debug)]
struct Known {
    number: WorkerNumber,
    slots: u32,
    pending: Pending,
    busy: f32,
    trust: Trust,
    prefill: Option<f32>,
    base_ms: f32,
    service_ms: f32,
    token_ms: f32,
}

/// A request that was sent: the tokens that it seemed to hold there, and those to be read.
#[derive(Debug, Clone, Copy)]
struct Sent {
    claimed: u32,
    uncached: u32,
    first_token: bool,
}

/// The policy.
pub(super) struct Ours {
    loads: Loads,
    workers: Vec<Known>,
    directory: Directory,
    recent: Recent,
    holdings: Holdings,
    pick: Pick,
    sent: FxHashMap<Number, Sent>,
    /// The prompt of the present decision, and the tokens that its worker seems to hold.
    decided: Option<(Number, Prompt, u32)>,
    reasons: [u64; Reason::ALL.len()],
    waits: u64,
    /// For which worker each waiting request waits, and with how many tokens to read there.
    waiting: FxHashMap<Number, (usize, f32)>,
    /// Requests of this gateway that wait for each worker, and their tokens.
    waiting_for: Vec<u32>,
    line_tokens: Vec<f32>,
    rng: fastrand::Rng,
}

impl Ours {
    /// Over these workers.
    pub(super) fn new(cluster: &Cluster, seed: u64) -> Self {
        let engines = &cluster.engines;
        let mut directory = Directory::new(DIRECTORY_BYTES);
        let workers = engines.iter().map(|engine| Known {
            number: directory.join().unwrap_or(WorkerNumber(0)),
            slots: engine.slots,
            pending: Pending::default(),
            busy: 0.0,
            trust: Trust::default(),
            prefill: None,
            base_ms: 0.0,
            service_ms: PRIOR_SERVICE_MS,
            token_ms: PRIOR_TOKEN_MS,
        });
        Self {
            workers: workers.collect(),
            loads: Loads::new(engines.len()),
            directory,
            recent: Recent::default(),
            holdings: Holdings::default(),
            pick: Pick::default(),
            sent: FxHashMap::default(),
            decided: None,
            reasons: [0; Reason::ALL.len()],
            waits: 0,
            waiting: FxHashMap::default(),
            waiting_for: vec![0; engines.len()],
            line_tokens: vec![0.0; engines.len()],
            rng: fastrand::Rng::with_seed(seed),
        }
    }

    fn facts(&self, worker: usize, prior: f32, now_ms: u64) -> Facts {
        let known = &self.workers[worker];
        let prefill = known.prefill.unwrap_or(prior);
        Facts {
            slots: known.slots,
            free: known.slots.saturating_sub(self.loads.all(worker)),
            queued: self.waiting_for[worker],
            pending: known.pending.tokens(prefill, now_ms) + self.line_tokens[worker],
            prefill,
            base_ms: known.base_ms,
            service_ms: known.service_ms,
            token_ms: known.token_ms,
        }
    }

    fn wait_for(&mut self, number: Number, best: Option<(usize, f32)>) -> Choice {
        if let Some((worker, uncached)) = best {
            self.waiting.insert(number, (worker, uncached));
            self.waiting_for[worker] += 1;
            self.line_tokens[worker] += uncached;
        }
        Choice::Wait(best.map(|(worker, _)| worker))
    }

    fn stop_waiting(&mut self, number: Number) {
        if let Some((worker, uncached)) = self.waiting.remove(&number) {
            self.waiting_for[worker] -= 1;
            self.line_tokens[worker] -= uncached;
        }
    }

    /// How crowded the workers are, by the part of their time in which they read prompts.
    fn crowding(&self) -> f32 {
        let (sum, count) = self.loads.living().fold((0.0, 0.0), |(sum, count), worker| {
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
        self.stop_waiting(ask.number);
        let (prior, crowding) = (self.prior(), self.crowding());
        let mut best: Option<(usize, f32, f32)> = None;
        for worker in self.loads.living() {
            let known = &self.workers[worker];
            let cached = known.trust.counted(self.holdings.of(known.number));
            #[expect(clippy::cast_precision_loss, reason = "prompts are far below 2^24 tokens")]
            let uncached = prompt.tokens().saturating_sub(cached) as f32;
            let facts = self.facts(worker, prior, now_ms);
            let expected_ms = expected(uncached, &facts).cost(crowding);
            if best.is_none_or(|(_, lowest, _)| expected_ms < lowest) {
                best = Some((worker, expected_ms, uncached));
            }
            self.pick.offer(Candidate {
                #[expect(clippy::cast_possible_truncation, reason = "workers are few")]
                id: worker as u32,
                name: mix(worker as u64),
                expected_ms,
                cached,
                open: facts.free > 0 && ask.refused_by & (1 << worker) == 0,
            });
        }
        let beginning = prompt.cuts().first().map(|cut| cut.hash);
        let decision = self.pick.decide(None, beginning, &mut self.rng);
        // A worker that is full, and would be sooner all the same, is waited for.
        let Some(decision) = decision.filter(|decision| decision.better_to_wait_for.is_none()) else {
            self.waits += 1;
            return self.wait_for(ask.number, best.map(|(worker, _, uncached)| (worker, uncached)));
        };
        let reason = Reason::ALL.into_iter().position(|reason| reason == decision.reason);
        self.reasons[reason.unwrap_or(0)] += 1;
        self.decided = Some((ask.number, prompt, decision.cached));
        Choice::Worker(decision.id as usize)
    }

    fn sent(&mut self, ask: &Ask<'_>, worker: usize) {
        let Some((_, prompt, claimed)) = self.decided.take().filter(|(number, ..)| *number == ask.number) else {
            return;
        };
        let known = &mut self.workers[worker];
        let uncached = prompt.tokens().saturating_sub(claimed);
        known.pending.placed(uncached);
        self.recent.placed(&prompt, known.number, ask.now / MILLISECOND);
        self.loads.sent(ask.number, worker, ask.now);
        let sent = Sent {
            claimed,
            uncached,
            first_token: false,
        };
        self.sent.insert(ask.number, sent);
    }

    fn refused(&mut self, number: Number, worker: usize, now: Nanos) {
        self.ended(number, worker, now);
    }

    fn first_token(&mut self, number: Number, worker: usize, cached: u32, _now: Nanos) {
        if let Some(sent) = self.sent.get_mut(&number) {
            sent.first_token = true;
            self.workers[worker].pending.over(sent.uncached);
            self.workers[worker].trust.observe(sent.claimed, cached);
        }
    }

    fn ended(&mut self, number: Number, worker: usize, _now: Nanos) {
        self.loads.ended(number, worker);
        if let Some(sent) = self.sent.remove(&number)
            && !sent.first_token
        {
            self.workers[worker].pending.over(sent.uncached);
        }
    }

    fn room(&mut self, worker: usize, room: Room, now: Nanos) {
        self.loads.said(worker, room.active, now);
        if let Some(pending) = room.pending {
            self.workers[worker].pending.reported(pending, now / MILLISECOND);
        }
    }

    fn status(&mut self, worker: usize, report: &Report, now: Nanos) {
        self.loads.said(worker, report.active, report.at);
        let Some(told) = &report.told else { return };
        let known = &mut self.workers[worker];
        known.pending.reported(told.pending, now / MILLISECOND);
        known.prefill = told.prefill;
        known.busy = told.busy;
        known.base_ms = told.base_ms.unwrap_or(0.0);
        known.service_ms = told.service_ms.unwrap_or(PRIOR_SERVICE_MS);
        known.token_ms = told.token_ms.unwrap_or(PRIOR_TOKEN_MS);
        for news in &told.news {
            if self.directory.apply(&mut known.number, news) == Applied::Known {
                break;
            }
        }
        self.directory.sweep();
    }

    fn lost(&mut self, worker: usize) {
        self.loads.lost(worker);
        self.directory.leave(self.workers[worker].number);
    }

    fn reasons(&self) -> Vec<(&'static str, u64)> {
        let reasons = Reason::ALL.into_iter().zip(self.reasons);
        let mut all: Vec<_> = reasons.map(|(reason, count)| (reason.name(), count)).collect();
        all.push(("waited", self.waits));
        all
    }
}
