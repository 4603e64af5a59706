//! Every bound and time-out of the kept responses, with its unit and its reason.

use std::time::Duration;

/// Default time for which a response is kept: a conversation that is gone on with the next morning.
pub const TTL: Duration = Duration::from_secs(24 * 60 * 60);

/// Default bytes of all kept responses together. The oldest go first.
pub const BYTES: u64 = 1024 * 1024 * 1024;

/// Bytes of one response with its conversation: what a request may bring, and an answer to it. What
/// is larger is answered, and not kept.
pub const ONE: usize = 64 * 1024 * 1024;

/// Bytes of one message to JetStream; a response is kept in so many. Half of what NATS's default
/// allows.
pub const PART: usize = 512 * 1024;

/// Time that JetStream has to open the bucket. A request waits for it, once for each connection.
pub const OPEN: Duration = Duration::from_secs(1);

/// Time that JetStream has for one operation.
pub const OPERATION: Duration = Duration::from_secs(2);

/// Time that JetStream has to keep one response, all of its parts.
pub const KEEP: Duration = Duration::from_secs(10);

/// Time after which a bucket is tried again, on the same connection, where there is no JetStream or
/// no room for it.
pub const RETRY: Duration = Duration::from_secs(15);

/// Time after which one is tried again that did not answer: a cluster of servers that lost one of
/// them chooses new leaders within seconds.
pub const RETRY_SOON: Duration = Duration::from_secs(2);

/// How often it is made sure that the bucket is there and has its replicas, by a request that needs
/// it. It is one short answer.
pub const CHECK: Duration = Duration::from_secs(60);
