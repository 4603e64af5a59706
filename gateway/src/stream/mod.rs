//! One client stream: its pure state machine, its inbox, its driver, and the demultiplexer that
//! feeds all of them.

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
