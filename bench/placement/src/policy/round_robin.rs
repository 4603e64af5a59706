//! One living worker after the other.

use super::decide::{Ask, Choice, Policy};

/// The policy.
#[derive(Debug)]
pub(super) struct RoundRobin {
    living: Vec<usize>,
    next: usize,
}

impl RoundRobin {
    /// Over these workers, from a random one on.
    pub(super) fn new(workers: usize, seed: u64) -> Self {
        Self {
            living: (0..workers).collect(),
            next: fastrand::Rng::with_seed(seed).usize(..workers.max(1)),
        }
    }
}

impl Policy for RoundRobin {
    fn place(&mut self, _ask: &Ask<'_>) -> Choice {
        let Some(worker) = self.living.get(self.next % self.living.len().max(1)) else {
            return Choice::Wait;
        };
        self.next += 1;
        Choice::Worker(*worker)
    }

    fn lost(&mut self, worker: usize) {
        self.living.retain(|living| *living != worker);
    }
}
