//! Which worker gets a request.

use std::fmt;

use tokenbus_placement::{Candidate, Decision, Hold, Prompt, Reason, Room, Verdict, crowding, expected};
use tokenbus_protocol::{Features, Name};
use tokio::time::{Duration, Instant};

use super::super::able::{self, Able};
use super::super::prefixes::Prefixes;
use super::View;
use super::worker::Worker;
use crate::limits::{LONGEST_HOLD, WORTH_A_HOLDER};

/// Where a request should go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// To this worker's own subject.
    Worker(Target),
    /// To the model's queue subject, where NATS chooses.
    Queue,
    /// To the waiting room: no worker has a free slot.
    Wait,
    /// To the waiting room, for this worker's slots: it is full, and sooner than those with a free slot.
    Hold(Held),
    /// Nowhere: all workers of the model lack these features.
    Cannot(Features),
    /// Nowhere now: no worker has the features, but one had them lately.
    Gone,
}

/// A request that is to be placed.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// The model.
    pub model: &'a str,
    /// What the engine must be able to do.
    pub needs: Features,
    /// Its prompt; without cuts if no prefix helps.
    pub prompt: &'a Prompt,
    /// A hash of the client's session, if it named one.
    pub session: Option<u64>,
}

/// A worker that is waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The worker.
    pub worker: Name,
    /// Tokens of the prompt that it has to read.
    pub tokens: u32,
    /// After this time it would have been better to go elsewhere.
    pub bound: Duration,
}

/// A worker, and why it was chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The worker.
    pub worker: Name,
    /// The reason.
    pub why: Why,
}

/// Why a worker was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Why {
    /// The reason.
    pub reason: Reason,
    /// Expected time to the first token in milliseconds.
    pub expected_ms: u32,
    /// Estimated tokens of the prompt that the worker holds, as far as its claim is trusted.
    pub cached: u32,
    /// What the worker claims to hold.
    pub claimed: u32,
    /// Estimated tokens of the prompt.
    pub tokens: u32,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            reason,
            expected_ms,
            cached,
            tokens,
            ..
        } = self;
        write!(f, "{reason}; expected_ms={expected_ms}; cached={cached}/{tokens}")
    }
}

/// What a request has tried since it last waited.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tried<'a> {
    /// Workers not to try again now.
    pub excluded: &'a [Name],
    /// Publishes that no worker took.
    pub untaken: usize,
    /// Requests that want a slot, this one among them. The longer they wait, the more tiers are open.
    pub waiting: usize,
    /// It has waited as long as a request should for a lower tier.
    pub overdue: bool,
    /// It may wait for one worker although others have a free slot.
    pub may_hold: bool,
    /// It waited for this worker, and was called to a slot of it.
    pub turn_at: Option<&'a Name>,
}

impl View {
    /// What is known of the workers that serve `model`, for a request with these needs.
    pub fn able(&self, model: &str, needs: Features) -> Able {
        able::judge(self.serving(model), needs)
    }

    /// Whether a worker of `model` with these features was there a short time ago.
    pub fn was_able(&self, model: &str, needs: Features, now: Instant) -> bool {
        self.models.get(model).is_some_and(|model| model.able.had(needs, now))
    }

    /// Whether a known worker serves `model` and may have these features.
    pub fn could(&self, model: &str, needs: Features) -> bool {
        matches!(self.able(model, needs), Able::All | Able::Some)
    }

    /// The part of `needs` that some workers of `model` lack.
    pub fn distinguishing(&self, model: &str, needs: Features) -> Features {
        able::distinguishing(self.serving(model), needs)
    }

    fn serving(&self, model: &str) -> impl Iterator<Item = Features> {
        self.workers.values().filter_map(move |worker| worker.serves(model))
    }

    /// Where a request should go. After two failed publishes since it last waited, NATS chooses; after four, the request
    /// waits. If some of the workers lack a feature that it needs, NATS does not choose.
    pub fn choose(
        &self,
        ask: &Ask<'_>,
        tried: Tried<'_>,
        prefixes: &mut Prefixes,
        now: Instant,
        random: &mut fastrand::Rng,
    ) -> Choice {
        let Ask { model, needs, .. } = *ask;
        let untaken = tried.untaken;
        let fresh = self.is_fresh(now);
        let able = self.able(model, needs);
        // It goes only to workers of which the labels are known, so NATS never chooses.
        let bound = !needs.marks().is_empty();
        if let (true, Able::None(missing)) = (fresh || bound, able) {
            let missing = missing.unmarked();
            let lately = missing.is_empty() || self.was_able(model, needs, now);
            return if lately { Choice::Gone } else { Choice::Cannot(missing) };
        }
        if untaken >= 4 {
            return Choice::Wait;
        }
        // Nor where tiers and preferences count, which NATS does not know.
        let ordered = self.is_ordered(model);
        let mixed = able == Able::Some || bound || ordered;
        match able {
            Able::Nobody | Able::None(_) if bound => return Choice::Gone,
            Able::Nobody | Able::None(_) => return Choice::Queue,
            Able::All | Able::Some if !mixed && untaken >= 2 => return Choice::Queue,
            Able::All | Able::Some => {}
        }
        if !fresh && !mixed {
            // Without a coordinator NATS knows better who is free, but not who holds the prompt.
            return match self.best(ask, tried, prefixes, now, random) {
                Choice::Worker(target) if untaken == 0 && target.why.cached >= WORTH_A_HOLDER => Choice::Worker(target),
                _ => Choice::Queue,
            };
        }
        match self.best(ask, tried, prefixes, now, random) {
            Choice::Wait if !bound && !ordered && (!fresh || untaken > 0 && !mixed) => Choice::Queue,
            choice => choice,
        }
    }

    /// The best of the workers that can take the request now, as far as is known, or the one to wait for.
    fn best(
        &self,
        ask: &Ask<'_>,
        tried: Tried<'_>,
        prefixes: &mut Prefixes,
        now: Instant,
        random: &mut fastrand::Rng,
    ) -> Choice {
        let tier = if tried.overdue {
            u32::MAX
        } else {
            self.open_tier(ask.model, ask.needs, tried.waiting, 0)
        };
        prefixes.look(ask.prompt, now);
        let model = self.models.get(ask.model);
        let facts = Known {
            fresh: self.is_fresh(now),
            may_hold: tried.may_hold,
            now_ms: self.ms(now),
            prior: model.and_then(|model| model.prefill),
            crowding: crowding(model.map_or(0.0, |model| model.busy)),
            now,
        };
        for (id, (name, worker)) in (0_u32..).zip(&self.workers) {
            if !worker.does(ask.model, ask.needs) || tried.excluded.contains(name) {
                continue;
            }
            let standing = worker.standing(ask.model);
            if standing.tier > tier {
                continue;
            }
            let held = worker.number.map_or(0, |number| prefixes.holdings.of(number));
            let turn = tried.turn_at == Some(name);
            let candidate = candidate((id, worker), ask, (held, turn), &facts);
            prefixes.pick.offer(Candidate {
                cost: candidate.cost + standing.handicap_ms,
                ..candidate
            });
        }
        let beginning = ask.prompt.cuts().first().map(|cut| cut.hash);
        match prefixes.pick.decide(ask.session, beginning, random) {
            Verdict::Nobody => Choice::Wait,
            Verdict::Wait(hold) => self.held(hold, ask, prefixes),
            Verdict::Send(decision) => self.target(decision, ask, prefixes),
        }
    }

    fn held(&self, hold: Hold, ask: &Ask<'_>, prefixes: &Prefixes) -> Choice {
        let Some((name, worker)) = self.workers.get_index(hold.id as usize) else {
            return Choice::Wait;
        };
        let held = worker.number.map_or(0, |number| prefixes.holdings.of(number));
        let bound = Duration::try_from_secs_f32(hold.bound_ms / 1e3).unwrap_or(LONGEST_HOLD);
        Choice::Hold(Held {
            worker: name.clone(),
            tokens: ask.prompt.tokens().saturating_sub(worker.trust.counted(held)),
            bound: bound.min(LONGEST_HOLD),
        })
    }

    fn target(&self, decision: Decision, ask: &Ask<'_>, prefixes: &Prefixes) -> Choice {
        let Some((name, worker)) = self.workers.get_index(decision.id as usize) else {
            return Choice::Wait;
        };
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "expected times are bounded"
        )]
        let expected_ms = decision.expected_ms as u32;
        Choice::Worker(Target {
            worker: name.clone(),
            why: Why {
                reason: decision.reason,
                expected_ms,
                cached: decision.cached,
                claimed: worker.number.map_or(0, |number| prefixes.holdings.of(number)),
                tokens: ask.prompt.tokens(),
            },
        })
    }

    /// Free slots of all workers that serve `model` with these features, less those to which requests were called.
    pub fn free(&self, model: &str, needs: Features) -> u32 {
        let able = self.workers.values().filter(|worker| worker.does(model, needs));
        let free: u32 = able.map(Worker::free).sum();
        free.saturating_sub(self.models.get(model).map_or(0, |model| model.called))
    }

    /// So many requests for `model` were called to free slots.
    pub fn call(&mut self, model: &str, requests: usize) {
        if let Some(model) = self.models.get_mut(model) {
            let requests = u32::try_from(requests).unwrap_or(u32::MAX);
            model.called = model.called.saturating_add(requests);
        }
    }

    /// One of these was sent to a worker, or takes no slot.
    pub fn came(&mut self, model: &str) {
        if let Some(model) = self.models.get_mut(model) {
            model.called = model.called.saturating_sub(1);
        }
    }
}

/// What one decision knows of all workers.
struct Known {
    fresh: bool,
    may_hold: bool,
    now: Instant,
    now_ms: u64,
    prior: Option<f32>,
    crowding: f32,
}

/// A worker as a candidate, that holds so many tokens of the prompt; `turn`, if the request was called to its slot.
#[allow(clippy::cast_precision_loss, reason = "an estimate needs no more digits")]
fn candidate((id, worker): (u32, &Worker), ask: &Ask<'_>, (held, turn): (u32, bool), known: &Known) -> Candidate {
    let cached = worker.trust.counted(held);
    let uncached = ask.prompt.tokens().saturating_sub(cached) as f32;
    let pace = worker.pace(ask.model);
    let facts = worker.facts(pace, known.prior, turn, known.now_ms);
    let expected = expected(uncached, &facts);
    let room = if worker.refusals.pause(known.now) {
        Room::None
    } else if !known.fresh || facts.free > 0 {
        // Without a fresh snapshot, free slots are unknown, so any able worker is asked.
        Room::Free
    } else if known.may_hold && worker.slots > 0 && pace.is_some_and(|pace| pace.service_ms.is_some()) {
        Room::In(expected.wait)
    } else {
        Room::None
    };
    Candidate {
        id,
        name: worker.name,
        expected_ms: expected.total(),
        cost: expected.cost(known.crowding),
        cached,
        busy: 1.0 - facts.free.min(facts.slots) as f32 / facts.slots.max(1) as f32,
        room,
    }
}
