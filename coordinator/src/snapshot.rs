//! Folds the registry into one snapshot.
//!
//! A model's slots, free slots, load and tokens per second are those of its **ready** workers. All models of a
//! worker share its slots, so each of them lists all of them; running and waiting requests and tokens count for
//! their own model only. The total counts each worker once. Starting, draining and unavailable workers appear only
//! in the list of workers.

use std::collections::BTreeMap;
use std::time::Instant;

use tokenbus_protocol::{
    Capabilities, Capacity, LostWorker, ModelCapacity, ModelInfo, ModelLoad, Name, Status, Total, WorkerCapacity,
    WorkerReport, WorkerState,
};

use crate::demand::{self, ModelRoom};
use crate::limits::MODELS_OF_LOST;
use crate::registry::{Model, Registry, Worker};
use crate::scaling::{Load, Scaling};
use crate::waiting::WaitingAtGateways;

/// Who made a snapshot, and when.
#[derive(Debug, Clone)]
pub(crate) struct Stamp {
    /// The coordinator that makes it.
    pub(crate) coordinator: Name,
    /// Grows by one with each of its snapshots.
    pub(crate) seq: u64,
    /// Unix time in milliseconds.
    pub(crate) at_ms: u64,
}

/// The capacity of the cluster at `now`. Notes the load of each model. A model that has a rule for its workers is always
/// listed.
pub(crate) fn fold(
    registry: &Registry,
    told: &WaitingAtGateways,
    scaling: &mut Scaling,
    stamp: Stamp,
    now: Instant,
) -> Capacity {
    let mut total = Total::default();
    let mut waiting = told.by_model(now);
    let mut sums: BTreeMap<&str, Sum> = BTreeMap::new();
    for worker in registry
        .workers()
        .filter(|worker| worker.status.report.state == WorkerState::Ready)
    {
        add(&mut total, &worker.status);
        for (info, load) in worker.status.report.models.iter().zip(loads(&worker.status)) {
            sums.entry(&info.name).or_default().add(&worker.status, info, &load);
        }
    }
    let unseen = Model::default();
    let unlisted: Vec<String> = scaling.ruled().map(str::to_owned).collect();
    let mut named: BTreeMap<&str, &Model> = unlisted.iter().map(|name| (name.as_str(), &unseen)).collect();
    named.extend(registry.models().iter());
    let models = named
        .into_iter()
        .map(|(name, model)| {
            let mut sum = sums.remove(name).unwrap_or_default();
            sum.waiting = waiting.remove(name).unwrap_or_default();
            total.waiting = total.waiting.saturating_add(sum.waiting);
            sum.capacity(name, model, scaling, now)
        })
        .collect();
    scaling.retain(|model| registry.models().is_listed(model));
    Capacity {
        coordinator: stamp.coordinator,
        seq: stamp.seq,
        at_ms: stamp.at_ms,
        workers: registry.workers().map(|known| worker(known, now)).collect(),
        models,
        total,
        lost: registry
            .lost()
            .map(|(report, seen)| lost(report, *seen, told, now))
            .collect(),
    }
}

fn lost(report: &WorkerReport, seen: Instant, told: &WaitingAtGateways, now: Instant) -> LostWorker {
    let (moved, failed) = told.left(&report.worker, now);
    let models = report.models.iter().take(MODELS_OF_LOST);
    LostWorker {
        worker: report.worker.clone(),
        instance: report.instance,
        host: report.host.clone(),
        models: models.map(|info| info.name.clone()).collect(),
        age_ms: age_ms(seen, now),
        active: report.active,
        moved,
        failed,
    }
}

fn age_ms(seen: Instant, now: Instant) -> u64 {
    u64::try_from(now.saturating_duration_since(seen).as_millis()).unwrap_or(u64::MAX)
}

fn add(total: &mut Total, status: &Status) {
    total.workers += 1;
    total.slots = total.slots.saturating_add(status.report.slots);
    total.free = total.free.saturating_add(status.report.free());
    total.active = total.active.saturating_add(status.report.active);
    total.queued = total.queued.saturating_add(status.report.queued);
    total.tokens_per_second += status.report.tokens_per_second;
}

/// The share of each model in a worker's load, in the order of its models. A worker of an older version does not
/// report shares; its models then get equal ones, so that the sum is right.
fn loads(status: &Status) -> Vec<ModelLoad> {
    let count = u32::try_from(status.report.models.len()).unwrap_or(u32::MAX).max(1);
    let parts = (0..count).zip(&status.report.models).map(|(place, info)| {
        let part = |whole: u32| whole / count + u32::from(place < whole % count);
        let told = status.loads.iter().find(|load| load.model == info.name);
        match told {
            Some(load) => load.clone(),
            None if status.loads.is_empty() => ModelLoad {
                model: info.name.clone(),
                active: part(status.report.active),
                queued: part(status.report.queued),
                tokens_per_second: status.report.tokens_per_second / f64::from(count),
            },
            None => ModelLoad {
                model: info.name.clone(),
                active: 0,
                queued: 0,
                tokens_per_second: 0.0,
            },
        }
    });
    parts.collect()
}

fn worker(worker: &Worker, now: Instant) -> WorkerCapacity {
    WorkerCapacity {
        report: worker.status.report.clone(),
        age_ms: age_ms(worker.seen, now),
    }
}

/// Sums over the ready workers of one model.
#[derive(Debug, Default)]
struct Sum {
    workers: u32,
    slots: u32,
    free: u32,
    active: u32,
    queued: u32,
    /// Requests for any model that wait on these workers: they are ahead of a new one.
    ahead: u32,
    waiting: u32,
    tokens_per_second: f64,
    /// The mean time that a request holds a slot, and that to its first token.
    service: Mean,
    ttft: Mean,
    /// Requests that have ended since the workers' start.
    ended: u64,
    context_length: Option<u64>,
    capabilities: Capabilities,
}

impl Sum {
    fn add(&mut self, status: &Status, info: &ModelInfo, load: &ModelLoad) {
        self.workers += 1;
        self.slots = self.slots.saturating_add(status.report.slots);
        self.free = self.free.saturating_add(status.report.free());
        self.active = self.active.saturating_add(load.active);
        self.queued = self.queued.saturating_add(load.queued);
        self.ahead = self.ahead.saturating_add(status.report.queued);
        self.tokens_per_second += load.tokens_per_second;
        if let Some(service) = demand::service_ms(status) {
            self.service.add(service, status.report.slots);
        }
        if status.report.ttft.p50.is_finite() && status.report.ttft.p50 > 0.0 {
            self.ttft.add(status.report.ttft.p50, status.report.slots);
        }
        self.ended = self.ended.saturating_add(demand::ended(status));
        self.context_length = self.context_length.max(info.context_length);
        self.capabilities = self.capabilities.or(info.capabilities);
    }

    fn capacity(self, name: &str, model: &Model, scaling: &mut Scaling, now: Instant) -> ModelCapacity {
        let room = ModelRoom {
            workers: self.workers,
            slots: self.slots,
            free: self.free,
            queued: self.ahead.saturating_add(self.waiting),
            service_ms: self.service.value(),
        };
        let ready = self.workers > 0;
        let slots_per_worker = if ready {
            f64::from(self.slots) / f64::from(self.workers)
        } else {
            f64::from(model.slots_per_worker)
        };
        let load = Load {
            workers: self.workers,
            slots_per_worker,
            on_workers: u64::from(self.active) + u64::from(self.queued),
            waiting: self.waiting,
            ended: self.ended,
            tokens_per_second: self.tokens_per_second,
            service_ms: self.service.value(),
            ttft_ms: self.ttft.value(),
        };
        let wanted = scaling.want(name, &load, now);
        ModelCapacity {
            model: name.to_owned(),
            workers: self.workers,
            slots: self.slots,
            free: self.free,
            active: self.active,
            queued: self.queued,
            waiting: self.waiting,
            tokens_per_second: self.tokens_per_second,
            estimated_wait_ms: demand::estimated_wait_ms(&room).or(wanted.start_ms),
            desired_workers: wanted.workers,
            on_demand: wanted.on_demand,
            context_length: if ready {
                self.context_length
            } else {
                model.context_length
            },
            capabilities: if ready { self.capabilities } else { model.capabilities },
        }
    }
}

/// A mean over workers, weighted by their slots.
#[derive(Debug, Clone, Copy, Default)]
struct Mean {
    sum: f64,
    weight: f64,
}

impl Mean {
    fn add(&mut self, value: f64, slots: u32) {
        let weight = f64::from(slots.max(1));
        self.sum += value * weight;
        self.weight += weight;
    }

    fn value(self) -> Option<f64> {
        (self.weight > 0.0).then(|| self.sum / self.weight)
    }
}

#[cfg(test)]
#[path = "snapshot_tests.rs"]
mod tests;
