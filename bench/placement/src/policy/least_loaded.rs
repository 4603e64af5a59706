//! The worker with the smallest share of taken slots, in its best case: it knows at once what all gateways placed.

use super::decide::{Ask, Choice, Policy, cheapest};

/// The policy.
#[derive(Debug)]
pub(super) struct LeastLoaded {
    living: Vec<usize>,
    rng: fastrand::Rng,
}

impl LeastLoaded {
    /// Over these workers.
    pub(super) fn new(workers: usize, seed: u64) -> Self {
        Self {
            living: (0..workers).collect(),
            rng: fastrand::Rng::with_seed(seed),
        }
    }
}

impl Policy for LeastLoaded {
    fn place(&mut self, ask: &Ask<'_>) -> Choice {
        #[expect(clippy::cast_precision_loss, reason = "requests at a worker are few")]
        let share = |worker: usize| {
            let engine = ask.truth.engine(worker);
            engine.active() as f64 / f64::from(engine.spec().slots)
        };
        cheapest(self.living.iter().copied(), &mut self.rng, share).map_or(Choice::Wait, Choice::Worker)
    }

    fn lost(&mut self, worker: usize) {
        self.living.retain(|living| *living != worker);
    }
}
