//! The server's answers: streams of chunks, and answers in one piece.

mod begun;
pub(crate) mod call_check;
mod content_parts;
pub(crate) mod exchange;
mod finish_reason;
mod given_up;
mod halves;
pub(crate) mod streamed;
pub(crate) mod unary;
pub(crate) mod usage;
pub(crate) mod vectors;
pub(crate) mod whole;
