//! Settings of the stored responses.

use std::time::Duration;

use super::limits;

/// Settings of the stored responses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResponsesOptions {
    /// How long a response is stored; zero stores none.
    pub ttl: Duration,
    /// Bytes of all stored responses.
    pub bytes: u64,
}

impl Default for ResponsesOptions {
    fn default() -> Self {
        Self {
            ttl: limits::TTL,
            bytes: limits::BYTES,
        }
    }
}
