//! The view of the workers, for display.

use serde::Serialize;
use tokenbus_protocol::{Capacity, LostWorker, Name, Quantiles, SlotsFrom, WorkerState};
use tokio::time::Instant;

use super::View;

/// The cluster as one gateway knows it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Overview {
    /// The gateway.
    pub gateway: Name,
    /// The coordinator that published the snapshot; `None` if no snapshot is recent and the gateway shows its own
    /// knowledge.
    pub coordinator: Option<Name>,
    /// Milliseconds since the last snapshot, however old; `None` if there was none.
    pub snapshot_age_ms: Option<u64>,
    /// The workers, by id.
    pub workers: Vec<SeenWorker>,
    /// The models, by name.
    pub models: Vec<SeenModel>,
    /// Workers lost lately that are not back, the last one first, if a coordinator reports them.
    pub lost: Vec<LostWorker>,
}

/// One worker.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SeenWorker {
    /// Id.
    pub worker: Name,
    /// Host name, if known.
    pub host: Option<String>,
    /// Engine, if known.
    pub engine: Option<String>,
    /// tokenbus version, if known.
    pub version: Option<String>,
    /// State.
    pub state: WorkerState,
    /// Names of its models.
    pub models: Vec<String>,
    /// Requests that it runs at once.
    pub slots: u32,
    /// Where that number comes from, if known.
    pub slots_from: Option<SlotsFrom>,
    /// Running requests.
    pub active: u32,
    /// Requests in the worker's queue.
    pub queued: u32,
    /// Completion tokens per second, if known.
    pub tokens_per_second: Option<f64>,
    /// Time to first token in milliseconds, if measured lately.
    pub ttft_ms: Option<Quantiles>,
    /// Used part of the KV cache, 0 to 1, if the engine reports it.
    pub kv_used: Option<f64>,
}

/// One model.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SeenModel {
    /// Name.
    pub model: String,
    /// Ready workers that serve it.
    pub workers: u32,
    /// Slots of those workers, shared with their other models.
    pub slots: u32,
    /// Free slots of those workers.
    pub free: u32,
    /// Requests for it in the queues of those workers.
    pub queued: u32,
    /// Requests for it that wait at gateways, if a coordinator reports it.
    pub waiting: Option<u32>,
    /// Estimated milliseconds that a new request will wait for a slot, if known.
    pub estimated_wait_ms: Option<u64>,
}

impl Overview {
    /// Keeps only the models for which `may` holds, for a client that may see no others.
    pub fn retain(&mut self, may: impl Fn(&str) -> bool) {
        self.models.retain(|model| may(&model.model));
        self.workers.retain_mut(|worker| {
            let nameless = worker.models.is_empty();
            worker.models.retain(|model| may(model));
            nameless || !worker.models.is_empty()
        });
        self.lost.retain_mut(|worker| {
            worker.models.retain(|model| may(model));
            !worker.models.is_empty()
        });
    }
}

impl View {
    /// The whole view, as `gateway` sees it.
    pub fn overview(&self, gateway: &Name, now: Instant) -> Overview {
        let age = self.snapshot_at.map(|at| now.duration_since(at));
        let told = self.told.as_ref().filter(|_| self.is_fresh(now));
        let (workers, models) = match told {
            Some(told) => (told.workers.iter().map(Into::into).collect(), models(told)),
            None => self.own(),
        };
        Overview {
            gateway: gateway.clone(),
            coordinator: told.map(|told| told.coordinator.clone()),
            snapshot_age_ms: age.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
            workers,
            models,
            lost: told.map_or_else(Vec::new, |told| told.lost.clone()),
        }
    }

    /// What the gateway knows without a snapshot.
    fn own(&self) -> (Vec<SeenWorker>, Vec<SeenModel>) {
        let seen = self.workers.iter().map(|(name, worker)| SeenWorker {
            worker: name.clone(),
            host: None,
            engine: None,
            version: None,
            state: if worker.ready {
                WorkerState::Ready
            } else {
                WorkerState::Unavailable
            },
            models: worker.models.iter().map(|(model, _)| model.to_string()).collect(),
            slots: worker.slots,
            slots_from: None,
            active: worker.slots.saturating_sub(worker.room.free),
            queued: worker.room.queued,
            tokens_per_second: None,
            ttft_ms: None,
            kv_used: None,
        });
        let mut seen: Vec<SeenWorker> = seen.collect();
        seen.sort_unstable_by(|a, b| a.worker.as_str().cmp(b.worker.as_str()));
        let models = self.models.keys().map(|name| {
            let serving = self.workers.values().filter(|worker| worker.serves(name).is_some());
            let mut model = SeenModel::none(name);
            for worker in serving {
                model.workers += 1;
                model.slots = model.slots.saturating_add(worker.slots);
                model.free = model.free.saturating_add(worker.free());
                model.queued = model.queued.saturating_add(worker.room.queued);
            }
            model
        });
        (seen, models.collect())
    }
}

impl SeenModel {
    fn none(name: &str) -> Self {
        Self {
            model: name.to_owned(),
            workers: 0,
            slots: 0,
            free: 0,
            queued: 0,
            waiting: None,
            estimated_wait_ms: None,
        }
    }
}

impl From<&tokenbus_protocol::WorkerCapacity> for SeenWorker {
    fn from(told: &tokenbus_protocol::WorkerCapacity) -> Self {
        Self {
            worker: told.report.worker.clone(),
            host: Some(told.report.host.clone()),
            engine: Some(told.report.engine.clone()),
            version: Some(told.report.version.clone()),
            state: told.report.state,
            models: told.report.models.iter().map(|model| model.name.clone()).collect(),
            slots: told.report.slots,
            slots_from: told.report.slots_from,
            active: told.report.active,
            queued: told.report.queued,
            tokens_per_second: Some(told.report.tokens_per_second),
            ttft_ms: Some(told.report.ttft).filter(|ttft| *ttft != Quantiles::default()),
            kv_used: told.report.kv_used,
        }
    }
}

fn models(told: &Capacity) -> Vec<SeenModel> {
    let models = told.models.iter().map(|model| SeenModel {
        model: model.model.clone(),
        workers: model.workers,
        slots: model.slots,
        free: model.free,
        queued: model.queued,
        waiting: Some(model.waiting),
        estimated_wait_ms: model.estimated_wait_ms,
    });
    models.collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
#[path = "overview_tests.rs"]
mod tests;
