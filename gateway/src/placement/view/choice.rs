//! Which worker gets a request.

use std::fmt;

use tokenbus_placement::{Candidate, Prompt, Reason, expected};
use tokenbus_protocol::{Features, Name};
use tokio::time::Instant;

use super::super::able::{self, Able};
use super::super::prefixes::Prefixes;
use super::View;
use super::worker::Worker;
use crate::limits::WORTH_A_HOLDER;

/// Where a request should go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// To this worker's own subject.
    Worker(Target),
    /// To the model's queue subject, where NATS chooses.
    Queue,
    /// To the waiting room: no worker has a free slot.
    Wait,
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
        let Tried { excluded, untaken } = tried;
        let fresh = self.is_fresh(now);
        let able = self.able(model, needs);
        if let (true, Able::None(missing)) = (fresh, able) {
            let lately = self.was_able(model, needs, now);
            return if lately { Choice::Gone } else { Choice::Cannot(missing) };
        }
        if untaken >= 4 {
            return Choice::Wait;
        }
        let mixed = able == Able::Some;
        let any = matches!(able, Able::All | Able::Some);
        if !any || !mixed && untaken >= 2 {
            return Choice::Queue;
        }
        if !fresh && !mixed {
            // Without a coordinator NATS knows better who is free, but not who holds the prompt.
            let target = self.best(ask, excluded, prefixes, now, random);
            let holds = |target: &Target| untaken == 0 && target.why.cached >= WORTH_A_HOLDER;
            return target.filter(holds).map_or(Choice::Queue, Choice::Worker);
        }
        match self.best(ask, excluded, prefixes, now, random) {
            Some(target) => Choice::Worker(target),
            None if !fresh || untaken > 0 && !mixed => Choice::Queue,
            None => Choice::Wait,
        }
    }

    /// The best of the workers that can take the request now, as far as is known.
    fn best(
        &self,
        ask: &Ask<'_>,
        excluded: &[Name],
        prefixes: &mut Prefixes,
        now: Instant,
        random: &mut fastrand::Rng,
    ) -> Option<Target> {
        let fresh = self.is_fresh(now);
        prefixes.look(ask.prompt, now);
        let now_ms = prefixes.ms(now);
        let prior = self.models.get(ask.model).and_then(|model| model.prefill);
        let tokens = ask.prompt.tokens();
        for (id, (name, worker)) in (0_u32..).zip(&self.workers) {
            if !worker.does(ask.model, ask.needs) || excluded.contains(name) {
                continue;
            }
            let held = worker.number.map_or(0, |number| prefixes.holdings.of(number));
            let cached = worker.trust.counted(held);
            #[allow(clippy::cast_precision_loss, reason = "an estimate needs no more digits")]
            let uncached = tokens.saturating_sub(cached) as f32;
            let expected = expected(uncached, &worker.facts(ask.model, prior, now_ms));
            prefixes.pick.offer(Candidate {
                id,
                name: worker.name,
                expected_ms: expected.total(),
                cached,
                // Without a fresh snapshot, free slots are unknown, so any able worker is asked.
                open: (!fresh || worker.free() > 0) && !worker.refusals.pause(now),
            });
        }
        let beginning = ask.prompt.cuts().first().map(|cut| cut.hash);
        let decision = prefixes.pick.decide(ask.session, beginning, random)?;
        let (name, worker) = self.workers.get_index(decision.id as usize)?;
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "expected times are bounded"
        )]
        let expected_ms = decision.expected_ms as u32;
        Some(Target {
            worker: name.clone(),
            why: Why {
                reason: decision.reason,
                expected_ms,
                cached: decision.cached,
                claimed: worker.number.map_or(0, |number| prefixes.holdings.of(number)),
                tokens,
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
