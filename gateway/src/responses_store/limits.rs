//! Every bound and time-out of the stored responses, with its unit and its reason.

use std::time::Duration;

/// Default time for which a response is stored: a conversation may go on the next morning.
pub(crate) const TTL: Duration = Duration::from_secs(24 * 60 * 60);

/// Default bytes of all stored responses. The oldest go first.
pub(crate) const BYTES: u64 = 1024 * 1024 * 1024;

/// Bytes of one response with its conversation: the largest request, and an answer to it. Larger ones are answered but
/// not stored.
pub(crate) const ONE: usize = 64 * 1024 * 1024;

/// Bytes of one part, which is one message to JetStream: half of NATS's default limit.
pub(crate) const PART: usize = 512 * 1024;

/// How long JetStream may take to open the bucket. Requests wait for it, once per connection.
pub(crate) const OPEN: Duration = Duration::from_secs(1);

/// How long JetStream may take for one operation.
pub(crate) const OPERATION: Duration = Duration::from_secs(2);

/// How long JetStream may take to store one response with all its parts.
pub(crate) const KEEP: Duration = Duration::from_secs(10);

/// Time after which the bucket is tried again on the same connection, if there is no JetStream or no room.
pub(crate) const RETRY: Duration = Duration::from_secs(15);

/// Time after which a silent bucket is tried again. A cluster that lost a server elects new leaders within seconds.
pub(crate) const RETRY_SOON: Duration = Duration::from_secs(2);

/// How often a request checks that the bucket exists and has its replicas. The check is one short answer.
pub(crate) const CHECK: Duration = Duration::from_secs(60);

/// Default age at which the key that seals carried reasoning gets a successor.
pub(crate) const SEAL_KEY_AGE: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Keys that a cluster keeps, to open what they have sealed: those of more than a year by default.
pub(crate) const SEAL_KEYS: usize = 16;

/// How often a gateway tries to write the keys while others write them too. Each try finds what they have written.
pub(crate) const SEAL_TRIES: usize = 8;
