//! Every bound and time-out of the bus connection, with its unit and its reason.

use std::time::Duration;

/// Silence after which the client pings the server. A link counts as dead at the third silent tick, so a frozen
/// server or a cut cable is found in under 5 s.
pub(crate) const PING_INTERVAL: Duration = Duration::from_millis(1500);

/// Time limit for one attempt to connect. TLS takes about four round trips, which is more than 2 s on a link with
/// 300 ms of delay each way.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// A role that has no connection this long after its start, and knows no reason yet, says so.
pub(crate) const SAY_SILENCE: Duration = Duration::from_millis(1500);

/// Time that a server on a `tls://` address has for its first byte before it counts as one that wants TLS at once.
pub(crate) const FIRST_BYTE: Duration = Duration::from_millis(1500);

/// Time that a connection must last before it counts, if the server complained of the last one and closed it. Servers
/// take a login that has expired, and refuse it at once.
pub(crate) const PROBATION: Duration = Duration::from_millis(500);

/// A connection that ends sooner makes the pause before the next one longer.
pub(crate) const SHORT_LIFE: Duration = Duration::from_secs(1);

/// A server that stays away is named in the log again after this long.
pub(crate) const SAY_AGAIN: Duration = Duration::from_secs(30);

/// Refused subjects that are remembered of each kind. A role has few; those of gateways come and go.
pub(crate) const REFUSALS: usize = 64;

/// A refused subscription is tried again after this long: permissions may change while a connection lasts.
pub(crate) const RECHECK_EVERY: Duration = Duration::from_secs(15);

/// A refused publish is forgotten when it was not tried for this long.
pub(crate) const REFUSED_PUBLISH: Duration = Duration::from_secs(60);

/// Servers that the reason of a lost connection names.
pub(crate) const SHOWN_SERVERS: usize = 4;

/// First pause before a reconnect; doubled with each further attempt.
pub(crate) const RECONNECT_FIRST: Duration = Duration::from_millis(50);

/// Longest pause before a reconnect. Short, because requests wait for it. Jitter keeps a thousand clients from
/// returning in the same millisecond.
pub(crate) const RECONNECT_MAX: Duration = Duration::from_secs(2);

/// Commands that the client queues for its socket task (async-nats's default). While the server is away, this many
/// publishes wait; then `publish` blocks, hence [`PUBLISH_TIMEOUT`].
pub(crate) const CLIENT_CAPACITY: usize = 2048;

/// Longest time that a publish may block before it fails.
pub(crate) const PUBLISH_TIMEOUT: Duration = Duration::from_secs(2);

/// Messages that one subscription buffers for a slow reader. Beyond it the client drops messages and reports a slow
/// consumer; sequence numbers show the hole.
pub(crate) const SUBSCRIPTION_CAPACITY: usize = 65_536;

/// Bytes of messages that wait for the reader of one subscription: eight of the largest messages, or as much as a fast
/// network brings in half a second. Beyond it the newest are dropped.
pub(crate) const SUBSCRIPTION_BYTES: usize = 64 * 1024 * 1024;

/// Time limit for a round trip through the server, which confirms a subscription.
pub(crate) const ROUND_TRIP_TIMEOUT: Duration = Duration::from_secs(5);

/// Replicas of a stream if there are enough servers: one server of three may be lost.
pub(crate) const SAFE_REPLICAS: usize = 3;

/// Most replicas that nats-server supports.
pub(crate) const MAX_REPLICAS: usize = 5;

/// Answers of JetStream in one call of `Streams::ensure`, each with its own time limit: the lookup, and a refusal
/// or two before the stream is made. Servers refuse within milliseconds.
pub(crate) const STREAM_ANSWERS: u32 = 3;

/// Smallest size in bytes of a stream that is made smaller than wanted for lack of room.
pub(crate) const SMALLEST_STREAM: i64 = 1024 * 1024;

/// Smallest acceptable fraction of the wanted size, as its divisor.
pub(crate) const SMALLEST_PART: i64 = 64;
