//! The shortest time to the first token, from perfect knowledge of every engine's cache, queue and slots at once.
//!
//! No real gateway can know this. It is the mark that others are measured by.

use super::decide::{Ask, Choice, Policy, cheapest};

/// Seconds that each request at a worker adds to its cost: it only decides between workers that are equally soon.
const TIE: f64 = 1e-4;

/// The policy.
#[derive(Debug)]
pub(super) struct AllKnowing {
    rng: fastrand::Rng,
}

impl AllKnowing {
    /// Of a cluster.
    pub(super) fn new(seed: u64) -> Self {
        Self {
            rng: fastrand::Rng::with_seed(seed),
        }
    }
}

impl Policy for AllKnowing {
    fn place(&mut self, ask: &Ask<'_>) -> Choice {
        let tokens = ask.request.prompt_tokens();
        let cost = |worker: usize| {
            let engine = ask.truth.engine(worker);
            let uncached = tokens.saturating_sub(engine.will_match(&ask.request.prompt)).max(1);
            let rate = engine.spec().prefill_rate;
            let queue = (engine.pending_tokens(ask.now) / rate).max(engine.slot_wait(ask.now));
            #[expect(clippy::cast_precision_loss, reason = "requests at a worker are few")]
            let active = engine.active() as f64;
            queue + f64::from(uncached) / rate + TIE * active
        };
        cheapest(ask.truth.living(), &mut self.rng, cost).map_or(Choice::Wait, Choice::Worker)
    }

    fn lost(&mut self, _worker: usize) {}
}
