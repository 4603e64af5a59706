//! Consistent hashing with bounded loads (Mirrokni, Thorup, Zadimoghaddam), as `KubeAI` and others route by prefix.
//!
//! The prompt's beginning has a place on a ring of workers. The first worker from there on takes the request that
//! holds less than 1.25 times the mean. Each gateway counts its own requests.

use super::decide::{Ask, Choice, Policy};
use super::loads::Loads;
use crate::engine::Number;
use crate::random::mix;
use crate::time::Nanos;

/// Places of each worker on the ring.
const REPLICAS: u64 = 256;

/// Most that a worker may hold, in means.
const FACTOR: f64 = 1.25;

/// The policy.
#[derive(Debug)]
pub(super) struct BoundedHash {
    loads: Loads,
    ring: Vec<(u64, usize)>,
    total: u32,
}

impl BoundedHash {
    /// Over these workers.
    pub(super) fn new(workers: usize) -> Self {
        let places =
            |worker: usize| (0..REPLICAS).map(move |replica| (mix(worker as u64 * REPLICAS + replica), worker));
        let mut ring: Vec<(u64, usize)> = (0..workers).flat_map(places).collect();
        ring.sort_unstable();
        Self {
            loads: Loads::new(workers),
            ring,
            total: 0,
        }
    }
}

impl Policy for BoundedHash {
    fn place(&mut self, ask: &Ask<'_>) -> Choice {
        let living = self.loads.living().count();
        let key = mix(ask.request.prompt.first().map_or(0, |segment| segment.id));
        #[expect(clippy::cast_precision_loss, reason = "workers are few")]
        let bound = (f64::from(self.total + 1) / living.max(1) as f64 * FACTOR).ceil();
        let start = self.ring.partition_point(|(place, _)| *place < key);
        let from_there = self.ring[start..].iter().chain(&self.ring[..start]);
        from_there
            .map(|(_, worker)| *worker)
            .find(|worker| f64::from(self.loads.own(*worker) + 1) <= bound)
            .map_or(Choice::Wait, Choice::Worker)
    }

    fn sent(&mut self, _ask: &Ask<'_>, worker: usize) {
        self.loads.sent(worker);
        self.total += 1;
    }

    fn ended(&mut self, _number: Number, worker: usize, _now: Nanos) {
        self.loads.ended(worker);
        self.total = self.total.saturating_sub(1);
    }

    fn lost(&mut self, worker: usize) {
        self.loads.lost(worker);
        self.ring.retain(|(_, owner)| *owner != worker);
    }
}
