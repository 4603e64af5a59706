//! Tiers of workers: those of a higher tier get requests only when the lower ones would make them wait too long. A model
//! can have an order of its own, its policy.

use std::collections::HashMap;
use std::sync::Arc;

use tokenbus_placement::PRIOR_SERVICE_MS;
use tokenbus_protocol::{Features, Labels, Name};
use tokio::time::{Duration, Instant};

use super::super::policy::{Policy, Standing};
use super::View;
use super::worker::Worker;

/// The orders of models that have one of their own.
pub(crate) type Policies = HashMap<String, Policy>;

/// What kind of worker one is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WorkerKind {
    /// Its labels.
    pub labels: Arc<Labels>,
    /// Its tier among the workers of the model.
    pub tier: u32,
}

impl View {
    /// Sets which wait is too long.
    pub fn set_tier_wait(&mut self, wait: Duration) {
        self.tier_wait = wait;
    }

    /// Sets the orders of models; the others have none of their own.
    pub fn set_policies(&mut self, policies: Arc<Policies>) {
        self.policies = policies;
        for worker in self.workers.values_mut() {
            worker.rank(&self.policies);
        }
    }

    /// A worker stands where its labels, its tier and the policies of its models say.
    pub(super) fn rank(&mut self, name: &Name) {
        if let Some(worker) = self.workers.get_mut(name) {
            worker.rank(&self.policies);
        }
    }

    /// Whether it matters to a request for `model` of which tier or label a worker is.
    pub(super) fn is_ordered(&self, model: &str) -> bool {
        self.tiered || self.policies.contains_key(model)
    }

    /// Of which kind this worker is among those of `model`.
    pub fn kind_of(&self, name: &Name, model: &str) -> WorkerKind {
        let kind = self.workers.get(name).map(|worker| WorkerKind {
            labels: Arc::clone(&worker.labels),
            tier: worker.standing(model).configured_tier(),
        });
        kind.unwrap_or_default()
    }

    fn longest_wait(&self, model: &str) -> Duration {
        let own = self.policies.get(model).and_then(|policy| policy.tier_wait);
        own.unwrap_or(self.tier_wait)
    }

    /// Whether a request for `model` that waits since then has waited too long.
    pub fn is_overdue(&self, model: &str, since: Instant, now: Instant) -> bool {
        now.saturating_duration_since(since) > self.longest_wait(model)
    }

    /// The highest tier that a request may use. `waiting` requests want a slot, it among them; `taken` of the free slots
    /// are for others.
    pub(super) fn open_tier(&self, model: &str, needs: Features, waiting: usize, taken: usize) -> u32 {
        if !self.is_ordered(model) {
            return u32::MAX;
        }
        let able = || self.workers.values().filter(|worker| worker.does(model, needs));
        let mut tiers: Vec<u32> = able().map(|worker| worker.standing(model).tier).collect();
        tiers.sort_unstable();
        tiers.dedup();
        let Some((last, lower)) = tiers.split_last() else {
            return u32::MAX;
        };
        let longest = self.longest_wait(model);
        let suffices = |tier: u32| {
            let within = || able().filter(move |worker| worker.standing(model).tier <= tier);
            free(within()) > taken || expected_wait(model, within(), waiting) <= longest
        };
        lower.iter().copied().find(|tier| suffices(*tier)).unwrap_or(*last)
    }

    /// How many of `waiting` requests have a free slot, with the tiers that so many may use.
    pub fn slots_for(&self, model: &str, needs: Features, waiting: usize) -> usize {
        let called = self.models.get(model).map_or(0, |model| model.called as usize);
        let able = || self.workers.values().filter(|worker| worker.does(model, needs));
        if !self.is_ordered(model) {
            return waiting.min(free(able()).saturating_sub(called));
        }
        let has_slot = |given: &usize| {
            let taken = called.saturating_add(*given);
            let tier = self.open_tier(model, needs, waiting.saturating_sub(*given), taken);
            free(able().filter(|worker| worker.standing(model).tier <= tier)) > taken
        };
        (0..waiting).take_while(has_slot).count()
    }
}

impl Worker {
    fn rank(&mut self, policies: &Policies) {
        self.standings.clear();
        if policies.is_empty() {
            return;
        }
        for (model, _) in &self.models {
            if let Some(policy) = policies.get(&**model) {
                let standing = policy.standing(&self.labels, self.tier);
                self.standings.push((Arc::clone(model), standing));
            }
        }
    }

    /// Where it stands among the workers of `model`.
    pub(super) fn standing(&self, model: &str) -> Standing {
        let own = || Standing {
            tier: self.tier,
            handicap_ms: 0.0,
        };
        let ranked = self.standings.iter().find(|(name, _)| **name == *model);
        ranked.map_or_else(own, |(_, standing)| *standing)
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
