//! Every bound and time-out of the gateway's core, with its unit and its reason.

use std::time::Duration;

/// Bytes of undelivered output that one stream may hold before it alone is cancelled: a client
/// that stops reading must not cost the others anything.
pub const STREAM_BUFFER: usize = 1024 * 1024;

/// Bytes of text that were sent past a stream's reader before the reader is woken to take note of
/// them: enough for thousands of tokens, little beside what a stream holds anyway.
pub const TEXT_KEPT: usize = 16 * 1024;

/// Messages that are looked at in a row, when they are there already, before anything is sent: a few
/// hundred microseconds' work.
pub const MESSAGES_IN_A_ROW: usize = 16;

/// Streams whose text leaves in a row before others have a turn, such as new requests: well under a
/// millisecond's work.
pub const SENDS_IN_A_ROW: usize = 64;

/// How often coordinators are told what waits here, while anything does: as often as they publish.
pub const TELL_WAITING: Duration = Duration::from_secs(1);

/// Time that a worker has to answer `Accepted` before the request is published again; grows with
/// what is measured (see `placement::AcceptClock`) up to [`ACCEPT_MAX`].
pub const ACCEPT_MIN: Duration = Duration::from_millis(250);

/// Longest time that is waited for an `Accepted`.
pub const ACCEPT_MAX: Duration = Duration::from_secs(2);

/// Silence after which a worker counts as lost. Workers send `Alive` every second, so this is
/// several missed signs of life and not a slow prefill.
pub const STALL: Duration = Duration::from_secs(5);

/// Time after a reconnect of this gateway within which a stream's worker must be heard of: workers
/// come back within 2 s (the longest reconnect pause) and say `Alive` for each silent stream.
pub const AFTER_RECONNECT: Duration = Duration::from_millis(2500);

/// Silence of a worker with streams of ours after which it is pinged. A dead process is answered
/// for by NATS ("no responders") at once, so the ping finds it within this time and a round trip.
pub const PING_AFTER: Duration = Duration::from_millis(300);

/// Runs of one request that may be lost or fail before the client is told: one poisonous request
/// must not take every engine down in turn.
pub const MAX_RUNS: u32 = 3;

/// Time for which a gateway remembers that some worker of a model could do something: as long as an
/// engine takes to be started again. Meanwhile such a request is one without a worker, not a wrong one.
pub const ABLE_MEMORY: Duration = Duration::from_mins(1);

/// Different sets of features remembered per model; a cluster has a handful.
pub const ABLE_SETS: usize = 16;

/// Streams of one model that may move at once after a loss: several large workers' worth.
pub const REDISPATCH_BURST: f64 = 2048.0;

/// Streams of one model that may move per second when that burst is used up.
pub const REDISPATCH_RATE: f64 = 256.0;

/// Pause of a stream that may not move yet.
pub const REDISPATCH_PAUSE: Duration = Duration::from_millis(250);

/// Unanswered publishes of one request in a row before it is the bus that is to blame and the
/// request waits longer between tries.
pub const MAX_OPEN: usize = 8;

/// Age after which a capacity snapshot is not used any more: three missed ones.
pub const SNAPSHOT_FRESH: Duration = Duration::from_secs(3);

/// Requests that wait for room, all models together, before the next is answered 429.
pub const WAITING: usize = 4096;

/// A waiting request looks again after this time even when no hint of room came, because hints
/// are messages and can be lost.
pub const WAIT_RETRY: Duration = Duration::from_millis(1000);

/// Time that a request whose worker was lost waits for any worker of its model to come back.
pub const NO_WORKER_GRACE: Duration = Duration::from_secs(10);

/// `Retry-After` when no worker serves a model: workers re-register within seconds.
pub const NO_WORKER_RETRY: Duration = Duration::from_secs(5);

/// Bounds of `Retry-After` when the queue is full.
pub const RETRY_AFTER: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(60);

/// Streams that ended before a worker was known and whose late `Accepted` must still be answered
/// by a cancel.
pub const TOMBSTONES: usize = 16_384;

/// Cancels that wait for the bus. Beyond it they are counted and dropped: the worker's own
/// deadline then ends the work.
pub const COURIER: usize = 16_384;

/// Models remembered for "unknown model" answers and for listing.
pub const KNOWN_MODELS: usize = 10_000;

/// Time after which a model without workers is forgotten.
pub const MODEL_MEMORY: Duration = Duration::from_secs(600);

/// Time that the last usage records have to be published when the gateway stops.
pub const LAST_RECORDS: Duration = Duration::from_secs(3);
