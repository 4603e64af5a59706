//! Bytes to and from the server: the HTTP client, credentials, events and completion chunks.

pub(crate) mod client;
pub(crate) mod completion_chunk;
pub(crate) mod credentials;
