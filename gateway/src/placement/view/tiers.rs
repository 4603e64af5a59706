//! Tiers of workers: those of a higher tier get requests only when the lower ones would make them wait too long.

use tokenbus_placement::PRIOR_SERVICE_MS;
use tokenbus_protocol::Features;
use tokio::time::{Duration, Instant};

use super::View;
use super::worker::Worker;

impl View {
    /// Sets which wait is too long.
    pub fn set_tier_wait(&mut self, wait: Duration) {
        self.tier_wait = wait;
    }

    /// Whether a request that waits since then has waited too long.
    pub fn is_overdue(&self, since: Instant, now: Instant) -> bool {
        now.saturating_duration_since(since) > self.tier_wait
    }

    /// The highest tier that a request may use. `waiting` requests want a slot, it among them; `taken` of the free slots
    /// are for others.
    pub(super) fn open_tier(&self, model: &str, needs: Features, waiting: usize, taken: usize) -> u32 {
        if !self.tiered {
            return u32::MAX;
        }
        let able = || self.workers.values().filter(|worker| worker.does(model, needs));
        let mut tiers: Vec<u32> = able().map(|worker| worker.tier).collect();
        tiers.sort_unstable();
        tiers.dedup();
        let Some((last, lower)) = tiers.split_last() else {
            return u32::MAX;
        };
        let suffices = |tier: u32| {
            let within = || able().filter(move |worker| worker.tier <= tier);
            free(within()) > taken || expected_wait(model, within(), waiting) <= self.tier_wait
        };
        lower.iter().copied().find(|tier| suffices(*tier)).unwrap_or(*last)
    }

    /// How many of `waiting` requests have a free slot, with the tiers that so many may use.
    pub fn slots_for(&self, model: &str, needs: Features, waiting: usize) -> usize {
        let called = self.models.get(model).map_or(0, |model| model.called as usize);
        let able = || self.workers.values().filter(|worker| worker.does(model, needs));
        if !self.tiered {
            return waiting.min(free(able()).saturating_sub(called));
        }
        let has_slot = |given: &usize| {
            let taken = called.saturating_add(*given);
            let tier = self.open_tier(model, needs, waiting.saturating_sub(*given), taken);
            free(able().filter(|worker| worker.tier <= tier)) > taken
        };
        (0..waiting).take_while(has_slot).count()
    }
}

fn free<'w>(workers: impl Iterator<Item = &'w Worker>) -> usize {
    workers.map(|worker| worker.free() as usize).sum()
}

/// How long the last of `waiting` requests waits for a slot of these workers, which are all taken.
#[allow(clippy::cast_precision_loss, reason = "an estimate needs no more digits")]
fn expected_wait<'w>(model: &str, workers: impl Iterator<Item = &'w Worker>, waiting: usize) -> Duration {
    // Slots that end a second, by what each worker measured.
    let rate: f64 = workers
        .map(|worker| {
            let pace = worker.paces.iter().find(|pace| pace.model == model);
            let service = pace.and_then(|pace| pace.service_ms).unwrap_or(PRIOR_SERVICE_MS);
            f64::from(worker.slots) * 1000.0 / f64::from(service).max(1.0)
        })
        .sum();
    Duration::try_from_secs_f64(waiting as f64 / rate).unwrap_or(Duration::MAX)
}
