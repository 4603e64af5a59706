//! The options of a coordinator, and why it ends.

use std::path::PathBuf;
use std::time::Duration;

use tokenbus_bus::{BusError, BusOptions};
use tokenbus_protocol::Name;

use crate::limits::LOST_AFTER;
use crate::page_access::PageAccess;
use crate::scaling::rules::ScaleRules;

/// The options of a coordinator.
#[derive(Debug, Clone)]
pub struct Options {
    /// How to reach NATS.
    pub bus: BusOptions,
    /// The cluster's namespace.
    pub namespace: Name,
    /// Its id, unique in the cluster; `None` for a random one.
    pub id: Option<Name>,
    /// Silence after which a worker is lost; longer than one status period (1 s).
    pub lost_after: Duration,
    /// Who may read its status page.
    pub page: PageAccess,
    /// How models are scaled.
    pub rules: ScaleRules,
    /// The program that starts and stops workers; only for models that have rules.
    pub scaler: Option<PathBuf>,
}

impl Options {
    /// A coordinator of `namespace` on `bus`, with a random id and the default patience.
    pub fn new(bus: BusOptions, namespace: Name) -> Self {
        Self {
            bus,
            namespace,
            id: None,
            lost_after: LOST_AFTER,
            page: PageAccess::default(),
            rules: ScaleRules::default(),
            scaler: None,
        }
    }
}

/// Why a coordinator could not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum CoordinatorError {
    /// The bus is unusable because its options are wrong. A server that is away is awaited.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// The listener's address is unknown.
    #[error("cannot tell the listener's address: {0}")]
    Address(#[from] std::io::Error),
    /// `lost_after` is too short.
    #[error("lost-after is {0:?}, but workers report once a second: it must be longer than that")]
    LostAfter(Duration),
    /// One of the loops ended or panicked before it was told to end.
    #[error("the coordinator's {0} ended unexpectedly")]
    Ended(&'static str),
}
