//! Bytes to and from the server: the HTTP client, the tap on its streams, events, chunks and their shape.

pub(crate) mod chunk;
pub(crate) mod client;
pub(crate) mod credentials;
mod tap;
