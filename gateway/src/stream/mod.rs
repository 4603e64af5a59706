//! One client stream: its inbox, its pure state machine and its driver; and the demultiplexer that feeds all inboxes.
//!
//! Nothing here knows HTTP: the client's side reads a [`driver::Driver`] as a `CallStream`.

pub mod delivered;
pub mod demux;
pub mod driver;
pub mod event;
pub mod inbox;
mod losses;
pub mod message;
mod phase;
pub mod seek;
pub mod state;
