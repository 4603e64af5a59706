//! What the coordinator saw happen.

use serde::{Deserialize, Serialize};

use crate::name::Name;
use crate::wire_enum::wire_enum;

wire_enum! {
    /// Kinds of events.
    EventKind, other = Other, {
        /// A worker's first status.
        WorkerJoined = "worker_joined",
        /// A worker said that it stops.
        WorkerLeft = "worker_left",
        /// A worker missed its statuses, or a new instance took its id.
        WorkerLost = "worker_lost",
        /// A worker began to drain.
        WorkerDraining = "worker_draining",
        /// A model has its first ready worker.
        ModelAppeared = "model_appeared",
        /// A model has no ready worker any more.
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
    /// What.
    pub kind: EventKind,
    /// Unix time in milliseconds by the coordinator's clock.
    pub at_ms: u64,
    /// Which worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<Name>,
    /// Which life of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<u64>,
    /// Which model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Which coordinator leads now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coordinator: Option<Name>,
}

/// A coordinator's heartbeat to its peers, for the election without JetStream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoordinatorBeat {
    /// Who.
    pub coordinator: Name,
    /// Whether it leads.
    pub leading: bool,
}
