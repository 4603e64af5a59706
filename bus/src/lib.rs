//! The connection to NATS: options, reconnect with jitter, connection state, confirmed subscriptions, streams and
//! buckets of JetStream, and the one way to spawn a task.
//!
//! A role gets a [`Bus`]: a cloneable handle to one connection. Beyond it, roles share only the wire
//! (`tokenbus-protocol`).

mod address;
pub mod backoff;
pub mod clock;
mod connection;
mod credentials;
mod dialer;
mod events;
mod handshake;
mod jetstream;
mod known_streams;
mod limits;
mod link;
mod metrics;
mod options;
mod refusals;
mod replicas;
mod rhythm;
mod server_version;
mod subscription;
pub mod task;

pub use address::OptionsError;
pub use connection::{Bus, BusError};
pub use credentials::inbox_prefix;
pub use jetstream::{FoundStream, StreamError, Streams, WantedStream};
pub use link::Link;
pub use metrics::BusMetrics;
pub use options::BusOptions;
pub use refusals::Refusals;
pub use replicas::{Replicas, ReplicasError};
pub use rhythm::Rhythm;
pub use subscription::{Subscription, take_in_during};
