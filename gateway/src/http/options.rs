//! Settings of the HTTP edge.

use std::time::Duration;

use tokenbus_api::EngineRules;
use tokenbus_http_parts::AllowedHost;

use crate::http::limits;
use crate::http::origin::Origin;

/// How many connections may be open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MostConnections {
    /// In all.
    pub all: usize,
    /// From one public address. Of an IPv6 address, the network of 64 bits counts.
    pub per_address: usize,
}

/// Settings of the HTTP edge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpOptions {
    /// How many connections may be open at once.
    pub max_connections: MostConnections,
    /// Bytes of all request bodies that are in memory.
    pub body_memory: usize,
    /// Largest request body, in bytes.
    pub body_limit: usize,
    /// Time limit of an answer in one piece, of the wait for a stream's first output, and of each silence of a stream
    /// after that. A client may ask for another with `x-request-timeout`.
    pub request_timeout: Duration,
    /// Longest time limit that a client may ask for.
    pub max_request_timeout: Duration,
    /// Highest priority that a client without a key may ask for.
    pub max_priority: i32,
    /// Wait for the first output before a stream's status is sent without it.
    pub commit_after: Duration,
    /// Silence on an event stream after which a comment is sent.
    pub keep_alive: Duration,
    /// Whether the task that reads the bus sends tokens itself, rather than each client's task. Cheapest, and only for
    /// one thread.
    pub direct: bool,
    /// Origins whose pages may read answers.
    pub cors: Vec<Origin>,
    /// Names under which the gateway may be asked where it asks for no keys, beside its addresses and `localhost`.
    pub allowed_hosts: Vec<AllowedHost>,
    /// What requests may make engines do.
    pub engine: EngineRules,
    /// Whether engines that can keep the cached prompts of tenants apart.
    pub cache_salt: bool,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            max_connections: MostConnections {
                all: usize::MAX,
                per_address: usize::MAX,
            },
            body_memory: limits::BODY_MEMORY,
            body_limit: limits::BODY_LIMIT,
            request_timeout: limits::REQUEST_TIMEOUT,
            max_request_timeout: limits::MAX_REQUEST_TIMEOUT,
            max_priority: 0,
            commit_after: limits::COMMIT_AFTER,
            keep_alive: limits::KEEP_ALIVE,
            direct: true,
            cors: Vec::new(),
            allowed_hosts: Vec::new(),
            engine: EngineRules::default(),
            cache_salt: false,
        }
    }
}
