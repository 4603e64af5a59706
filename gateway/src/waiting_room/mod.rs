//! Requests that wait for a free slot: bounded, by priority, fair between tenants by tokens, first come first served
//! within a tenant. Pure data.
//!
//! The requests of one model stand in one line. Requests that only some of its workers can serve have a line of their
//! own, so that a slot that they cannot use does not wake them, and so have those that wait for one worker, because it is
//! sooner than a free one. A request that has begun goes before all others and is
//! always admitted, because its client has a part of its answer.

mod crowd;
mod door;
mod line;
mod lines;
mod occupancy;
mod service_rate;
mod ticket;
mod turns;

pub(crate) use door::{Door, NotAdmitted};
pub(crate) use lines::WaitingRoom;
pub use occupancy::Bounds;
pub(crate) use ticket::{LineKey, Ticket};

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod sim_tests;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod crowd_sim_tests;
