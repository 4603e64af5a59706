//! The coordinator's snapshot of every worker and every model, published once a second.

use serde::{Deserialize, Serialize};

use crate::capabilities::Capabilities;
use crate::name::Name;
use crate::status::{FlatReport, WorkerReport};

/// The capacity of the cluster at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Capacity {
    /// The leading coordinator, which published this.
    pub coordinator: Name,
    /// Grows by one with each snapshot of this coordinator.
    pub seq: u64,
    /// Unix time in milliseconds by the coordinator's clock. For display only: receivers measure the age
    /// themselves.
    pub at_ms: u64,
    /// Workers, sorted by id.
    pub workers: Vec<WorkerCapacity>,
    /// Models, sorted by name. A model without a worker stays listed for a while, with no slots.
    pub models: Vec<ModelCapacity>,
    /// The sums over all ready workers, each counted once. Absent in snapshots of older coordinators.
    #[serde(default)]
    pub total: Total,
    /// Workers that were lost a short time ago and are not back, the last one first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lost: Vec<LostWorker>,
}

/// A worker that fell silent without a farewell, and what became of its streams.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostWorker {
    /// The worker's id.
    pub worker: Name,
    /// Its instance.
    #[serde(default)]
    pub instance: u64,
    /// Host name.
    #[serde(default)]
    pub host: String,
    /// The names of its first models.
    #[serde(default)]
    pub models: Vec<String>,
    /// Milliseconds between its last status and this snapshot.
    #[serde(default)]
    pub age_ms: u64,
    /// Requests that ran there by its last status.
    #[serde(default)]
    pub active: u32,
    /// Streams that another worker took over, as the gateways tell.
    #[serde(default)]
    pub moved: u32,
    /// Streams that ended with an error, as the gateways tell.
    #[serde(default)]
    pub failed: u32,
}

/// Sums over the ready workers of a cluster, and the requests that wait at its gateways.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Total {
    /// Ready workers.
    pub workers: u32,
    /// Their slots.
    pub slots: u32,
    /// Their free slots.
    pub free: u32,
    /// Requests running on them.
    pub active: u32,
    /// Requests waiting on them.
    pub queued: u32,
    /// Requests that wait at gateways for a free slot.
    pub waiting: u32,
    /// Their completion tokens per second.
    pub tokens_per_second: f64,
}

/// One worker in the snapshot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(from = "FlatReport")]
pub struct WorkerCapacity {
    /// What its last status reported.
    #[serde(flatten)]
    pub report: WorkerReport,
    /// Milliseconds between that status and this snapshot.
    #[serde(default)]
    pub age_ms: u64,
}

impl From<FlatReport> for WorkerCapacity {
    fn from(flat: FlatReport) -> Self {
        Self {
            age_ms: flat.age_ms,
            report: flat.into(),
        }
    }
}

/// One model in the snapshot. All models of a worker share its slots, so `slots` and `free` do not add up over
/// models; the other counts do. See [`Total`] for the sums.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelCapacity {
    /// Name.
    pub model: String,
    /// Ready workers that serve it.
    pub workers: u32,
    /// Slots of those workers, shared with their other models.
    pub slots: u32,
    /// Free slots of those workers.
    pub free: u32,
    /// Requests for it that run on those workers.
    pub active: u32,
    /// Requests for it that wait on those workers.
    pub queued: u32,
    /// Requests for it that wait at gateways for a free slot.
    #[serde(default)]
    pub waiting: u32,
    /// Its completion tokens per second.
    #[serde(default)]
    pub tokens_per_second: f64,
    /// Estimated wait of a new request for a slot, in milliseconds. Absent when no worker is ready or no worker has
    /// measured anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimated_wait_ms: Option<u64>,
    /// Workers that there should be: the autoscaling signal.
    #[serde(default)]
    pub desired_workers: u32,
    /// Workers are started when requests wait for it. While there is none, `estimated_wait_ms` is the time until one is
    /// expected.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub on_demand: bool,
    /// The longest context that a worker offers, in tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context_length: Option<u64>,
    /// What at least one of its workers can do.
    #[serde(default)]
    pub capabilities: Capabilities,
}
