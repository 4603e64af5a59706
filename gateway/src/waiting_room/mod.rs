//! Requests that wait for room: bounded, by priority, fair between tenants, first come first
//! served within a tenant. Pure data.
//!
//! Requests of one model stand in one line, unless they need what only some of its workers can do:
//! those have a line of their own, so that room they cannot use does not wake them. What has begun
//! goes before all that has not, and no bound keeps it out: its client has a part of its answer.

mod door;
mod lines;
mod occupancy;
mod service_rate;

pub use door::{Displaced, Door};
pub use lines::{Ticket, WaitingRoom};
pub use occupancy::{Bounds, Full};
pub use service_rate::DrainRate;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod sim_tests;
