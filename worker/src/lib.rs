//! The engine worker: requests in, token frames out.
//!
//! A request's way: `intake` → `core`/`requests` (with `admission`) → the engine → `stream` →
//! `outbox`. Decisions are in `admission`, `parts`, `free`, `drain`, `timers`, `recent`, `pace`,
//! `seen`, `watch`; the one loop is in `worker`; NATS is touched in `intake`, `outbox`, `post`, `status`, `service`.

mod accepted_request;
mod admission;
mod claim;
mod control;
mod core;
mod drain;
pub mod engine;
mod free;
mod gateways;
mod intake;
pub mod limits;
mod load;
mod malformed;
mod metrics;
mod options;
mod outbox;
mod outboxes;
mod pace;
mod parts;
mod post;
mod recent;
mod requests;
mod seen;
mod service;
mod status;
mod stream;
mod sync;
mod tenure;
mod timers;
mod watch;
mod worker;

pub use metrics::Metrics;
pub use options::Options;
pub use worker::{Handle, Worker, WorkerError, run};
