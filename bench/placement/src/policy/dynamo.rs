//! The cost of Dynamo's router, after its description, in its best case.
//!
//! The cost of a worker is its blocks still to prefill with this prompt's, less the cached ones, plus its blocks in
//! decoding, to which it adds the blocks that no running request has yet. Here its knowledge is perfect: what engines hold is known at once, as if events took no time, and so is
//! the load that all other gateways put there. What was sent lately counts as held for 5 s, as its side index does.

use super::decide::{Ask, Choice, Policy, cheapest};
use crate::prompt::BLOCK;
use crate::time::{Nanos, SECOND};

/// How long a sent prompt counts as held.
const SIDE_INDEX: Nanos = 5 * SECOND;

/// The policy.
#[derive(Debug)]
pub(super) struct Dynamo {
    living: Vec<usize>,
    cached: Vec<u32>,
    sent_at: Vec<Option<Nanos>>,
    rng: fastrand::Rng,
}

impl Dynamo {
    /// Over these workers.
    pub(super) fn new(workers: usize, seed: u64) -> Self {
        Self {
            living: (0..workers).collect(),
            cached: Vec::new(),
            sent_at: vec![None; workers],
            rng: fastrand::Rng::with_seed(seed),
        }
    }
}

impl Policy for Dynamo {
    fn place(&mut self, ask: &Ask<'_>) -> Choice {
        let prompt = &ask.request.prompt;
        let tokens = f64::from(ask.request.prompt_tokens());
        ask.truth.cached(prompt, &mut self.cached);
        for (worker, sent_at) in self.sent_at.iter().enumerate() {
            if sent_at.is_some_and(|sent| sent + SIDE_INDEX >= ask.now) {
                self.cached[worker] = self.cached[worker].max(ask.truth.engine(worker).will_match(prompt));
            }
        }
        let Self {
            living, cached, rng, ..
        } = self;
        let cost = |worker: usize| {
            let engine = ask.truth.engine(worker);
            let prefill = (engine.pending_tokens(ask.now) + tokens - f64::from(cached[worker])).max(0.0);
            let new = tokens - f64::from(engine.cache.in_use(prompt));
            (prefill + new) / f64::from(BLOCK) + engine.held_blocks()
        };
        cheapest(living.iter().copied(), rng, cost).map_or(Choice::Wait, Choice::Worker)
    }

    fn sent(&mut self, ask: &Ask<'_>, worker: usize) {
        self.sent_at[worker] = Some(ask.now);
    }

    fn lost(&mut self, worker: usize) {
        self.living.retain(|living| *living != worker);
    }
}
