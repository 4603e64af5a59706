//! The engine worker: requests in, token frames out.
//!
//! A request's way: `core` (taken in by `intake`, admitted, started) → the engine → `outbox` (its `stream`,
//! then one outbox per gateway). `report` has what the worker tells of itself, and counts. The one loop is in
//! `worker`. The rooms stand on floors, `core` on `outbox` on `report`, and the test `house` holds them to that.
//!
//! Decisions are in `core` (`admission`, `parts`, `drain`, `timers`, `seen`, `tenure`, `gateway_watch`) and
//! `report` (`free`, `recent`, `pace`); NATS is touched in `core::intake`, `core::claim`, `outbox`,
//! `report::status` and `service`.

mod core;
pub mod engine;
mod fast_path;
pub mod limits;
mod options;
mod outbox;
mod report;
mod service;
mod sync;
#[cfg(feature = "testing")]
pub mod testing;
mod worker;

pub use options::Options;
pub use report::metrics::Metrics;
pub use worker::{Handle, Worker, WorkerError, run};
