//! Every bound and time-out of a worker, with its unit and its reason.

use std::time::Duration;

/// (id, attempt) pairs that a worker remembers to have run. At 100 requests a second this covers
/// nine minutes, far longer than any message of a publish that was repeated can be under way. Twice as many fill
/// a hash table of a power of two buckets.
pub const SEEN_REQUESTS: usize = 57_344;

/// Cancels remembered for requests that have not come yet. Only messages that overtook each other
/// on their way (milliseconds) need it.
pub const EARLY_CANCELS: usize = 8192;

/// Longest wait for the next part of a request body. The gateway sends all of them at once when it
/// sees `Accepted`; silence this long means that one was lost.
pub const PARTS_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of request bodies in parts that a worker holds at once, so that many large requests
/// cannot exhaust its memory; beyond it a request is answered `Busy`.
pub const BODIES: u64 = 512 * 1024 * 1024;

/// Bytes that wait for one gateway by default. At 40 bytes a token this is some 200,000 tokens: a
/// NATS server that is away for a few seconds is survived, memory is not eaten.
pub const OUTBOX: usize = 8 * 1024 * 1024;

/// Bytes beyond the outbox's bound for answers to requests that were not taken. They are small and
/// spare the gateway a time-out.
pub const OUTBOX_ANSWERS: usize = 1024 * 1024;

/// Bytes waiting for one gateway from which an engine that can pause is asked to.
pub const OUTBOX_CONGESTED: usize = 1024 * 1024;

/// Bytes waiting for one gateway below which a paused engine goes on.
pub const OUTBOX_ROOM: usize = 256 * 1024;

/// A batch is closed, with the worker's room at its end, when less than this many bytes would be
/// left in it beside the text of the next frame: room for a frame's numbers and names, and the room.
pub const ROOM_RESERVE: usize = 2 * 1024;

/// Bytes that a sender publishes without waiting for more: a turn of the other tasks saves no message then.
pub const SMALL_BATCH: usize = 16 * 1024;

/// Most turns of the other tasks that a sender waits before it publishes, each because the last one brought more.
pub const GATHER_TURNS: u32 = 4;

/// How long a frame that can wait does. A gateway waits far longer for `Accepted` before it asks another
/// worker; an engine that has a token sooner saves a message and two wake-ups before that token.
pub const PATIENCE: Duration = Duration::from_millis(1);

/// Bytes that one gateway's sender hands to the NATS client before it waits until they are
/// written. The rest waits in the outbox, which has a bound in bytes; the client's has not.
pub const UNFLUSHED: usize = 256 * 1024;

/// Largest single frame in bytes. Longer text is split; anything else that large ends its stream
/// with an error, because the NATS server (1 MiB by default) would not take it.
pub const FRAME: usize = 512 * 1024;

/// Bytes at most of one stream in the list of a gateway's streams.
pub const HELD_STREAM: usize = 32;

/// Streams of one gateway of which a list is sent: what a frame has room for. With more, the gateway's
/// own timers find what was lost.
pub const HELD_STREAMS: usize = FRAME / HELD_STREAM;

/// Bytes that a frame may need beside its payload: keys, numbers, batch header, subject.
pub const FRAME_OVERHEAD: usize = 1024;

/// An outbox whose gateway has had no stream for this long is closed.
pub const OUTBOX_IDLE: Duration = Duration::from_secs(60);

/// Gateways that a worker answers at once. Far more than a cluster has; a peer that invents names
/// must not make a task for each.
pub const GATEWAYS: usize = 4096;

/// How often a gateway with streams is probed: twice a second, and a little less than a whole number
/// of ticks, so that a tick that comes a moment early does not cost a further one. While tokens
/// flow a probe is no message of its own.
pub const GATEWAY_PROBE_EVERY: Duration = Duration::from_millis(400);

/// Probes in a row that must find nobody before a gateway counts as gone.
pub const GATEWAY_MISSES: u32 = 3;

/// Time between the first and the last of these probes: a tick less than 3 s, which is longer than a
/// gateway's longest pause between two tries to reconnect (2 s), so that NATS may be restarted. With
/// the wait for the first probe the streams of a dead gateway end within 5 s on a loaded machine, too.
pub const GATEWAY_SILENCE: Duration = Duration::from_millis(2750);

/// How often a starting worker asks whether another has its id, until somebody answers. Where nobody is
/// subscribed NATS says so to the first.
pub const CLAIM_ASK_EVERY: Duration = Duration::from_millis(250);

/// Silence after which a starting worker takes its id from one that does not answer: a frozen process, a
/// link that was cut. Long enough for an answer over a slow link, short enough for a restart.
pub const CLAIM_SILENCE: Duration = Duration::from_secs(2);

/// How often a worker says that its id is its own. That is how long two can have one id unknown to each
/// other, after a partition of NATS for one; also said when it begins to listen and after each reconnect.
pub const CLAIM_EVERY: Duration = Duration::from_secs(5);

/// Silence on a stream after which the worker says that it lives.
pub const ALIVE_EVERY: Duration = Duration::from_secs(1);

/// How often a worker with requests looks for silent streams and idle outboxes. Without requests it does so once a second
/// ([`STATUS_EVERY`]).
pub const TICK: Duration = Duration::from_millis(250);

/// How long a free slot is kept for the gateway that it was offered to. Longer than the way to a far gateway and back; a
/// gateway that died costs a slot this time once.
pub const OFFER_PATIENCE: Duration = Duration::from_millis(500);

/// Messages that wait to be published beside frames (control replies, probes' answers). A control reply that is lost is
/// asked for again.
pub const POST_QUEUE: usize = 1024;

/// Time between two statuses: three missed ones make a worker lost.
pub const STATUS_EVERY: Duration = Duration::from_secs(1);

/// Shortest time between two statuses when only the load changed.
pub const STATUS_GAP: Duration = Duration::from_millis(50);

/// How long running streams may go on by default after the worker was asked to stop.
pub const GRACE: Duration = Duration::from_secs(30);

/// Longest wait at the end for frames to leave.
pub const LAST_FLUSH: Duration = Duration::from_secs(5);

/// Longest wait for a small task (service registration, last status) when the worker stops.
pub const LAST_TASK: Duration = Duration::from_secs(2);

/// Longest time that a request may ask for; a larger budget is cut to it.
pub const MAX_BUDGET: Duration = Duration::from_hours(24);

/// Latency quantiles and rates are of about the last this long, at least half of it.
pub const LATENCY_WINDOW: Duration = Duration::from_secs(30);

/// Largest latency that quantiles tell apart.
pub const LATENCY_MAX: Duration = Duration::from_mins(10);

/// Tokens per second are of the last this long.
pub const RATE_WINDOW: Duration = Duration::from_secs(5);

/// A worker's drain rate is that of about the last this long: long enough for slots that are held
/// for seconds.
pub const DRAIN_WINDOW: Duration = Duration::from_secs(30);

/// Longest time that a refusal asks to wait. An estimate beyond it is a guess; a minute is soon
/// enough to look again.
pub const RETRY_AFTER_MAX: Duration = Duration::from_mins(1);

/// At most one log line for malformed messages in this time; the count is in it.
pub const MALFORMED_LOG_EVERY: Duration = Duration::from_secs(1);

/// First pause before a failed subscription is tried again; doubled each time.
pub const SUBSCRIBE_RETRY_FIRST: Duration = Duration::from_millis(100);

/// Longest pause before a failed subscription is tried again.
pub const SUBSCRIBE_RETRY_MAX: Duration = Duration::from_secs(5);

/// Longest head of an answer that is tapped, bytes. Engines send some hundred; hyper's own bound is for what
/// is longer.
pub const LINE_HEAD: usize = 16 * 1024;

/// Most header fields of an answer that is tapped, count. hyper's own bound is 100.
pub const LINE_FIELDS: usize = 64;

/// Bytes that are read from a tapped connection at once: some dozens of tokens. On the stack, not of the stream.
pub const LINE_READ: usize = 8 * 1024;

/// Tokens that an engine is assumed to hold, where it does not tell: enough for some long conversations. An engine that
/// reports its cached tokens corrects it.
pub const HELD_TOKENS: u64 = 1 << 20;

/// Most cuts that are kept of what the engine holds, 32 bytes each: 64 MiB.
pub const HELD_CUTS: usize = 2_000_000;

/// Bytes of news beside the cuts: paces of a few models.
pub const NEWS_OVERHEAD: usize = 8 * 1024;

/// News are told at least this often, so that a gateway that has just begun sees that it missed something.
pub const NEWS_AT_LEAST_EVERY: Duration = Duration::from_secs(5);

/// Tokens more or less to be read than gateways can know, of which they are told before the next news: some 100 ms of
/// reading. Shorter prompts cause no messages of their own.
pub const NEWS_TOKENS: f32 = 1024.0;

/// Least time between two news.
pub const NEWS_SOON: Duration = Duration::from_millis(20);
