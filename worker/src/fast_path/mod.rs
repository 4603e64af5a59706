//! The fast path of streamed text, from the engine's socket to the open batch of a gateway.

pub(crate) mod pattern;
pub(crate) mod tap;
