//! Settings of the kept responses.

use std::time::Duration;

use super::limits;

/// Settings of the kept responses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResponsesOptions {
    /// Time for which a response is kept; with none, no response is.
    pub ttl: Duration,
    /// Bytes of all of them together.
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
