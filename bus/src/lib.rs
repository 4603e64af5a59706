//! Connecting to NATS: options, jittered reconnect, connection state, confirmed subscriptions,
//! and the one way to spawn a task.
//!
//! Roles get a [`Bus`]: a cloneable handle over one connection. What they share beyond it is the
//! wire (`tokenbus-protocol`), never each other.

pub mod backoff;
mod connection;
pub mod jetstream;
pub mod limits;
mod metrics;
mod options;
pub mod task;

pub use connection::{Bus, BusError, Link};
pub use metrics::BusMetrics;
pub use options::{BusOptions, OptionsError};
