//! What a coordinator is told, and why it ends.

use std::time::Duration;

use tokenbus_bus::{BusError, BusOptions};
use tokenbus_protocol::Name;

use crate::limits::LOST_AFTER;

/// What a coordinator is told.
#[derive(Debug, Clone)]
pub struct Options {
    /// How to reach NATS.
    pub bus: BusOptions,
    /// The cluster's namespace.
    pub namespace: Name,
    /// Its id, unlike any other coordinator's in the cluster; `None`: one is drawn.
    pub id: Option<Name>,
    /// Silence after which a worker is lost; at least one status period (1 s) makes sense.
    pub lost_after: Duration,
}

impl Options {
    /// A coordinator of `namespace` on `bus`, with an id of its own and the usual patience.
    pub fn new(bus: BusOptions, namespace: Name) -> Self {
        Self {
            bus,
            namespace,
            id: None,
            lost_after: LOST_AFTER,
        }
    }
}

/// Why a coordinator could not start, or did not go on.
#[derive(Debug, thiserror::Error)]
pub enum CoordinatorError {
    /// The bus cannot be used at all (its options are wrong). A server that is away is awaited.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// The listener does not tell its address.
    #[error("cannot tell the listener's address: {0}")]
    Address(#[from] std::io::Error),
    /// An option that makes no sense.
    #[error("lost-after is {0:?}, but workers report once a second: it must be longer than that")]
    LostAfter(Duration),
    /// One of the loops ended or panicked, which none does before it is told to.
    #[error("the coordinator's {0} ended unexpectedly")]
    Ended(&'static str),
}
