//! One client stream: its inbox, its pure state machine and its driver; and the demultiplexer that feeds all inboxes.
//!
//! Nothing here knows HTTP: the client's side reads a [`driver::Driver`] as a `CallStream`.

pub(crate) mod delivered;
pub(crate) mod demux;
pub(crate) mod driver;
pub(crate) mod event;
pub(crate) mod inbox;
mod losses;
pub(crate) mod message;
mod phase;
pub(crate) mod seek;
mod senders;
pub(crate) mod state;
