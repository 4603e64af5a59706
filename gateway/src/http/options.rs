//! Settings of the HTTP edge.

use std::time::Duration;

use crate::http::limits;
use crate::http::origin::Origin;

/// Settings of the HTTP edge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpOptions {
    /// Largest request body in bytes.
    pub body_limit: usize,
    /// Time for a whole request; a client may ask for less with `x-request-timeout`.
    pub request_timeout: Duration,
    /// Time that is waited for the first output before a stream's status is sent without it.
    pub commit_after: Duration,
    /// Silence on an event stream after which a comment is sent.
    pub keep_alive: Duration,
    /// Whether tokens are sent where they are demultiplexed, by the one task that reads the bus,
    /// rather than by each client's own: cheapest on one thread, and bound to one.
    pub direct: bool,
    /// Origins whose pages may read answers.
    pub cors: Vec<Origin>,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            body_limit: limits::BODY_LIMIT,
            request_timeout: limits::REQUEST_TIMEOUT,
            commit_after: limits::COMMIT_AFTER,
            keep_alive: limits::KEEP_ALIVE,
            direct: true,
            cors: Vec::new(),
        }
    }
}
