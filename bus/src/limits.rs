//! Every bound and time-out of the bus connection, with its unit and its reason.

use std::time::Duration;

/// Silence after which the client pings the server. A link counts as dead at the third silent
/// tick, so a frozen server or cut cable is found in under 5 s.
pub const PING_INTERVAL: Duration = Duration::from_millis(1500);

/// Longest time for one attempt to connect: with TLS these are some four round trips, and on a link that is late by 300
/// ms each way more than 2 s.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// First pause before a reconnect; doubled at each further attempt.
pub const RECONNECT_FIRST: Duration = Duration::from_millis(50);

/// Longest pause before a reconnect. Short, because a request waits for it; jitter keeps a
/// thousand clients from coming back in the same millisecond.
pub const RECONNECT_MAX: Duration = Duration::from_secs(2);

/// Commands that the client queues towards its socket task (async-nats's default). While the
/// server is away, this many publishes wait, then `publish` blocks: hence [`PUBLISH_TIMEOUT`].
pub const CLIENT_CAPACITY: usize = 2048;

/// Longest time that a publish may block before the caller is told that the bus is away.
pub const PUBLISH_TIMEOUT: Duration = Duration::from_secs(2);

/// Messages that one subscription holds for a reader that is behind; beyond it the client drops
/// and reports a slow consumer, and sequence numbers show the hole.
pub const SUBSCRIPTION_CAPACITY: usize = 65_536;

/// Longest time for a round trip through the server (confirming a subscription).
pub const ROUND_TRIP_TIMEOUT: Duration = Duration::from_secs(5);

/// Replicas of a stream where there are servers enough: one server of three may be lost.
pub const SAFE_REPLICAS: usize = 3;

/// Most replicas of a stream that nats-server makes.
pub const MAX_REPLICAS: usize = 5;

/// Answers of JetStream that making sure of one stream may take in a row, each within its own time:
/// looking for it, and a refusal or two before it is made. Servers refuse within milliseconds.
pub const STREAM_ANSWERS: u32 = 3;

/// Smallest size in bytes of a stream that is made smaller than wanted because there is no room.
pub const SMALLEST_STREAM: i64 = 1024 * 1024;

/// Smallest part of the wanted size, as its divisor: less is not what was asked for.
pub const SMALLEST_PART: i64 = 64;
