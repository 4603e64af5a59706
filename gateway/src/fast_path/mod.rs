//! The fast path of plain text: from a worker's message to the client's socket.

pub(crate) mod chunk_outlet;
pub(crate) mod handover;
pub mod lane;
pub mod splice;
pub(crate) mod wire;
