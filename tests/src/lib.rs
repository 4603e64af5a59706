//! The harness of the tests: a real nats-server, real `tokenbus` processes, links that can be cut, a scriptable
//! upstream, and a client that records the time of each event.
//!
//! Every wait has a deadline and names what it waits for. A failed test prints the logs of its processes. Nothing
//! that is started here outlives its test.
// A harness reports failures by panicking; the lints are for the product.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr
)]
// The tasks of a test end with its runtime, and their panics fail the test.
#![allow(clippy::disallowed_methods)]

pub mod ask;
pub mod binary;
pub mod browser;
pub mod chaos;
pub mod child;
pub mod clients;
pub mod closed_bus;
pub mod cluster;
pub mod collector;
pub mod fake_worker;
pub mod house;
pub mod http;
pub mod keys;
pub mod limits;
pub mod lines;
pub mod link;
pub mod load;
pub mod logs;
pub mod metrics;
pub mod nats;
pub mod port;
pub mod process;
pub mod promises;
pub mod sse_client;
pub mod tidy;
pub mod upstream;
pub mod wait;

pub use child::Child;
pub use closed_bus::ClosedBus;
pub use cluster::Cluster;
pub use http::Client;
pub use link::Link;
pub use nats::{NatsOptions, NatsServer};
pub use process::{Process, Role};
pub use upstream::{Gate, Outcome, Script, Upstream};
pub use wait::{eventually, within};
