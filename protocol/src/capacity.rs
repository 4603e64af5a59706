//! The coordinator's snapshot: every worker and every model, once a second.

use serde::{Deserialize, Serialize};

use crate::name::Name;
use crate::status::{Capabilities, ModelInfo, Quantiles, WorkerState};

/// What the cluster can take at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Capacity {
    /// The coordinator that leads and published this.
    pub coordinator: Name,
    /// One more in each snapshot of this coordinator.
    pub seq: u64,
    /// Unix time in milliseconds by the coordinator's clock; for display, never for deciding age.
    pub at_ms: u64,
    /// Workers, by id.
    pub workers: Vec<WorkerCapacity>,
    /// Models, by name; those without a worker stay listed for a while, with no slots.
    pub models: Vec<ModelCapacity>,
    /// All ready workers together, each counted once. Absent in snapshots of older coordinators.
    #[serde(default)]
    pub total: Total,
}

/// What the ready workers of a cluster add up to, and what waits at its gateways.
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
    /// Requests waiting at gateways for a worker with room.
    pub waiting: u32,
    /// Their completion tokens per second.
    pub tokens_per_second: f64,
}

/// One worker in the snapshot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkerCapacity {
    /// Id.
    pub worker: Name,
    /// Which life of it.
    pub instance: u64,
    /// The sequence number of the status that this was made from.
    pub seq: u64,
    /// tokenbus version.
    pub version: String,
    /// Host name.
    pub host: String,
    /// Engine.
    pub engine: String,
    /// State.
    pub state: WorkerState,
    /// Unix time of its start in milliseconds by its own clock.
    pub started_at_ms: u64,
    /// Models.
    pub models: Vec<ModelInfo>,
    /// Slots.
    pub slots: u32,
    /// Running requests.
    pub active: u32,
    /// Waiting requests.
    pub queued: u32,
    /// Completion tokens per second.
    #[serde(default)]
    pub tokens_per_second: f64,
    /// Time to first token in milliseconds.
    #[serde(default)]
    pub ttft: Quantiles,
    /// Inter-token latency in milliseconds.
    #[serde(default)]
    pub itl: Quantiles,
    /// Part of the KV cache in use, 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kv_used: Option<f64>,
    /// Milliseconds between the last status and this snapshot.
    #[serde(default)]
    pub age_ms: u64,
}

/// One model in the snapshot. The slots of a worker with several models are open to each of them, so slots
/// and free slots of models do not add up; all else does. See [`Total`] for the sums.
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
    /// Requests for it that wait at gateways for a worker with room.
    #[serde(default)]
    pub waiting: u32,
    /// Its completion tokens per second.
    #[serde(default)]
    pub tokens_per_second: f64,
    /// Milliseconds that a new request will wait for a slot, estimated; absent when no worker is
    /// ready or nothing is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimated_wait_ms: Option<u64>,
    /// Workers that the present load asks for: the autoscaling signal.
    #[serde(default)]
    pub desired_workers: u32,
    /// Longest context that a worker offers, tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context_length: Option<u64>,
    /// What at least one worker can do.
    #[serde(default)]
    pub capabilities: Capabilities,
}
