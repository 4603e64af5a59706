//! How the server is and what it serves: probes, what their answers say, and what follows from them.

mod breaker;
pub(crate) mod catalog;
mod discover;
mod hang;
mod health;
pub(crate) mod monitor;
mod probe;
pub(crate) mod pulse;
pub(crate) mod question;
pub(crate) mod shared;
pub(crate) mod slots;
mod traits;
