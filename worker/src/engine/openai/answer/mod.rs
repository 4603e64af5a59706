//! The server's answers: streams of chunks, and answers in one piece.

pub(crate) mod exchange;
pub(crate) mod streamed;
pub(crate) mod unary;
