//! The coordinator: worker status in, capacity out.
//!
//! It is never in the data path. [`run`] watches `{ns}.v1.status.*`, keeps the newest status of every worker, and
//! folds them into one snapshot ([`tokenbus_protocol::Capacity`]). Gateways place requests by it, `/metrics`
//! exports it and the command line shows it. Several coordinators may run: one leads and publishes, the others know
//! the same and take over within 3 s.
//!
//! Decisions (pure; time is an argument): `registry`, `snapshot`, `demand`, `pacer`, `election`, `waiting`,
//! `scaling`. Loops: `watcher`, `leader`, `outbound`, `lease`, `scaling/command.rs`. Edges: `http`, `page_server`, `metrics`.

mod allowance;
mod demand;
mod election;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod election_sim;
mod glance;
mod http;
mod leader;
mod lease;
mod limits;
mod metrics;
mod options;
mod outbound;
mod pacer;
mod page_access;
mod page_server;
mod registry;
mod scaling;
mod service;
mod snapshot;
mod waiting;
mod watcher;

pub use glance::Glance;
pub use options::{CoordinatorError, Options};
pub use page_access::{PageAccess, PageToken};
pub use scaling::rules::{ScaleRules, ScaleRulesError};
pub use service::run;
pub use tokenbus_http_parts::AllowedHost;
