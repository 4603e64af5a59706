//! The placement of requests on workers, simulated in virtual time beside other policies.
//!
//! Nothing here opens a socket, reads a clock or awaits: a run is a function of its settings and its seed.
// A simulator that meets an impossible state must stop: a wrong figure is worse than none.
#![allow(clippy::indexing_slicing)]

pub mod cache;
pub mod capacity;
pub mod cluster;
pub mod cuts;
pub mod engine;
pub mod fleet;
pub mod holders;
mod lines;
mod offers;
pub mod page;
pub mod policy;
pub mod prompt;
pub mod queue;
pub mod random;
pub mod report;
pub mod reporter;
pub mod scenario;
pub mod setting;
pub mod stats;
pub mod targets;
pub mod time;
pub mod worker_side;
pub mod workload;

#[cfg(test)]
mod laws_tests;
