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

/// Time that a worker has to answer `Accepted` beyond what was measured of it (see
/// `placement::AcceptClock`) before the request is published again, up to [`ACCEPT_MAX`].
pub const ACCEPT_MIN: Duration = Duration::from_millis(250);

/// The least of it for a worker of which little is measured yet: TCP's for a host it knows nothing of (RFC 6298).
/// A dead worker is told by "no responders" long before.
pub const ACCEPT_FIRST: Duration = Duration::from_secs(1);

/// Longest time that is waited for an `Accepted`: links half way round the world that lose packets,
/// and eight times [`ACCEPT_MIN`], the longest between copies of one request, fit.
pub const ACCEPT_MAX: Duration = Duration::from_secs(4);

/// Answers of a worker after which its link counts as known: one may have been lucky on a link that
/// is late now and then.
pub const MEASUREMENTS: u32 = 4;

/// Workers that are pinged to be measured at one time: a snapshot that brings ten thousand must not
/// make as many messages at once.
pub const MEASURE_AT_ONCE: usize = 64;

/// Silence after which a worker counts as lost. Workers send `Alive` every second, so this is
/// several missed signs of life and not a slow prefill.
pub const STALL: Duration = Duration::from_secs(5);

/// Time after a reconnect of this gateway within which a stream's worker must be heard of: workers
/// come back within 2 s (the longest reconnect pause) and say `Alive` for each silent stream.
pub const AFTER_RECONNECT: Duration = Duration::from_millis(2500);

/// Silence of a worker with streams of ours after which it is pinged. A dead process is answered
/// for by NATS ("no responders") at once, so the ping finds it within this time and a round trip.
/// On a slow link more pings are sent than are needed; none of them harms, for only NATS answers "no
/// responders". As often a worker is pinged that is new here, until its link is known.
pub const PING_AFTER: Duration = Duration::from_millis(300);

/// Runs of one request that may be lost in a row without progress, or fail in their engines at all, before the client
/// is told: one poisonous request must not take every engine down in turn.
pub const MAX_RUNS: u32 = 3;

/// Time that a request which no worker has taken waits for NATS while that is away, by default: longer than a restart
/// or an election takes, shorter than a client's patience with a connection that says nothing.
pub const BUS_PATIENCE: Duration = Duration::from_secs(15);

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

/// Bytes of the bodies of requests that wait for room, all models together: some hundred requests with
/// images, or eight of the largest that are taken.
pub const WAITING_BYTES: usize = 256 * 1024 * 1024;

/// A waiting request looks again after this time, when its turn is next, even when no hint of room came, because
/// hints are messages and can be lost.
pub const WAIT_RETRY: Duration = Duration::from_millis(1000);

/// Time that a request which some worker has had waits for any worker of its model to come, however the last one went.
pub const NO_WORKER_GRACE: Duration = Duration::from_secs(10);

/// Time for which a worker that a cluster of NATS servers does not know any more may be on its way back, because its
/// server died and not its process: longer than the longest pause between tries to reconnect.
pub const WORKER_RETURN: Duration = Duration::from_secs(3);

/// Pause of a request that found no worker, and may wait for one, before it asks NATS again.
pub const WORKER_RETRY: Duration = Duration::from_millis(300);

/// `Retry-After` when no worker serves a model: workers re-register within seconds.
pub const NO_WORKER_RETRY: Duration = Duration::from_secs(5);

/// Bounds of `Retry-After` when the queue is full. The header has whole seconds; and what takes longer
/// than the time that requests have by default is not known.
pub const RETRY_AFTER: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_mins(10);

/// Time that a run is taken to last at least, while none has ended: an answer of some hundred tokens.
pub const FIRST_RUNS: Duration = Duration::from_secs(10);

/// Longest time for which the waiting room drains before the first of those that found it full is to
/// come back.
pub const RETURN_SLACK: Duration = Duration::from_secs(30);

/// Tenants of one model for which it is remembered until when they were told to stay away; the others
/// share one memory.
pub const TOLD_TENANTS: usize = 1024;

/// Cancels that wait for the bus. Beyond it they are counted and dropped: the worker's own
/// deadline then ends the work.
pub const COURIER: usize = 16_384;

/// Models remembered for "unknown model" answers and for listing.
pub const KNOWN_MODELS: usize = 10_000;

/// Time after which a model without workers is forgotten.
pub const MODEL_MEMORY: Duration = Duration::from_secs(600);

/// Time that the last usage records have to be published when the gateway stops.
pub const LAST_RECORDS: Duration = Duration::from_secs(3);
