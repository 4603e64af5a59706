//! The fast path of plain text: from a worker's message to the client's socket.

pub(crate) mod handover;
pub mod lane;
pub(crate) mod wire;
