//! Every bound and time-out of idempotent requests, with its unit and its reason.

use std::time::Duration;

/// Default time that an answer is kept after its end: clients and the queues behind them have given
/// up or repeated by then.
pub const WINDOW: Duration = Duration::from_secs(600);

/// Default time for which a keyed call goes on without anybody who waits for it. A client that lost
/// its connection is back within seconds; longer would keep an engine busy for nobody.
pub const LINGER: Duration = Duration::from_secs(10);

/// Default number of keys that are known at a time.
pub const ENTRIES: usize = 10_000;

/// Default bound on the bytes of all recorded answers together.
pub const BYTES: usize = 128 * 1024 * 1024;

/// Bytes of one answer that is kept, as it lies in memory: some 25,000 tokens, each of which costs
/// about 150 bytes.
pub const ANSWER: usize = 4 * 1024 * 1024;

/// Bytes of a growing answer after which the store is told: once in some 25 tokens, rather than
/// taking the lock of all keyed requests at each.
pub const STEP: usize = 4 * 1024;

/// Longest key in bytes. Clients send UUIDs; other services' bound is the same.
pub const MAX_KEY: usize = 255;
