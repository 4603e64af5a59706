//! Any living worker.

use super::decide::{Ask, Choice, Policy};

/// The policy.
#[derive(Debug)]
pub(super) struct Random {
    living: Vec<usize>,
    rng: fastrand::Rng,
}

impl Random {
    /// Over these workers.
    pub(super) fn new(workers: usize, seed: u64) -> Self {
        Self {
            living: (0..workers).collect(),
            rng: fastrand::Rng::with_seed(seed),
        }
    }
}

impl Policy for Random {
    fn place(&mut self, _ask: &Ask<'_>) -> Choice {
        self.rng
            .choice(self.living.iter())
            .map_or(Choice::Wait, |worker| Choice::Worker(*worker))
    }

    fn lost(&mut self, worker: usize) {
        self.living.retain(|living| *living != worker);
    }
}
