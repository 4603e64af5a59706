//! The worker with the smallest share of taken slots.

use super::decide::{Ask, Choice, Policy, cheapest};
use super::loads::Loads;
use crate::engine::Number;
use crate::reporter::Report;
use crate::time::Nanos;

/// The policy.
#[derive(Debug)]
pub(super) struct LeastLoaded {
    loads: Loads,
    slots: u32,
    rng: fastrand::Rng,
}

impl LeastLoaded {
    /// Over these workers with `slots` each.
    pub(super) fn new(workers: usize, slots: u32, seed: u64) -> Self {
        Self {
            loads: Loads::new(workers),
            slots,
            rng: fastrand::Rng::with_seed(seed),
        }
    }
}

impl Policy for LeastLoaded {
    fn place(&mut self, _ask: &Ask<'_>) -> Choice {
        let Self { loads, slots, rng } = self;
        let share = |worker| f64::from(loads.all(worker)) / f64::from(*slots);
        cheapest(loads.living(), rng, share).map_or(Choice::Wait, Choice::Worker)
    }

    fn sent(&mut self, ask: &Ask<'_>, worker: usize) {
        self.loads.sent(ask.number, worker, ask.now);
    }

    fn ended(&mut self, number: Number, worker: usize, _now: Nanos) {
        self.loads.ended(number, worker);
    }

    fn room(&mut self, worker: usize, active: u32, now: Nanos) {
        self.loads.said(worker, active, now);
    }

    fn status(&mut self, worker: usize, report: &Report, _now: Nanos) {
        self.loads.status(worker, report);
    }

    fn lost(&mut self, worker: usize) {
        self.loads.lost(worker);
    }
}
