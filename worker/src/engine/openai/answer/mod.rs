//! The server's answers: streams of chunks, and answers in one piece.

pub(crate) mod exchange;
pub(crate) mod streamed;
pub(crate) mod unary;
pub(crate) mod usage;
pub(crate) mod vectors;
pub(crate) mod whole;
