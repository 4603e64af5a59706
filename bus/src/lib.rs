//! Connecting to NATS: options, jittered reconnect, connection state, confirmed subscriptions,
//! and the one way to spawn a task.
//!
//! Roles get a [`Bus`]: a cloneable handle over one connection. What they share beyond it is the
//! wire (`tokenbus-protocol`), never each other.

pub mod backoff;
mod connection;
mod jetstream;
mod known_streams;
mod limits;
mod metrics;
mod options;
mod replicas;
pub mod task;

pub use connection::{Bus, BusError, Link};
pub use jetstream::{FoundStream, StreamError, Streams, WantedStream};
pub use metrics::BusMetrics;
pub use options::{BusOptions, OptionsError};
pub use replicas::{Replicas, ReplicasError};
