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
    /// The age at which the key that seals carried reasoning gets a successor; zero is never.
    pub seal_key_age: Duration,
}

impl Default for ResponsesOptions {
    fn default() -> Self {
        Self {
            ttl: limits::TTL,
            bytes: limits::BYTES,
            seal_key_age: limits::SEAL_KEY_AGE,
        }
    }
}
