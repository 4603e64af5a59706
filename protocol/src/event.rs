//! Events that the coordinator publishes.

use serde::{Deserialize, Serialize};

use crate::name::Name;
use crate::wire::wire_enum;

wire_enum! {
    /// Kinds of events.
    EventKind, other = Other, {
        /// A worker's first status.
        WorkerJoined = "worker_joined",
        /// A worker announced that it stops.
        WorkerLeft = "worker_left",
        /// A worker missed its statuses, or a new instance took its id.
        WorkerLost = "worker_lost",
        /// A worker began to drain.
        WorkerDraining = "worker_draining",
        /// A model has its first ready worker.
        ModelAppeared = "model_appeared",
        /// A model has lost its last ready worker.
        ModelVanished = "model_vanished",
        /// Another coordinator leads now.
        LeaderChanged = "leader_changed",
        /// A kind that only a newer version knows.
        Other = "other",
    }
}

/// One event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// The kind.
    pub kind: EventKind,
    /// Unix time in milliseconds by the coordinator's clock.
    pub at_ms: u64,
    /// The worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<Name>,
    /// Its instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<u64>,
    /// The model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The new leader.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coordinator: Option<Name>,
}

/// A coordinator's heartbeat to its peers, for the election without JetStream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoordinatorBeat {
    /// The coordinator.
    pub coordinator: Name,
    /// Whether it leads.
    pub leading: bool,
}
