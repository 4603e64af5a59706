//! Every bound and time-out behind the HTTP edge, with its unit and its reason.

use std::time::Duration;

/// Bytes of unread output that one stream may hold before it alone is cancelled. A client that stops reading must not
/// cost the others anything.
pub const STREAM_BUFFER: usize = 1024 * 1024;

/// Times [`STREAM_BUFFER`] that may wait unread at once: a worker passes on a single delta of up to 4 MiB, with escapes.
pub(crate) const BURST: usize = 8;

/// Time for which a reader may leave more than [`STREAM_BUFFER`] unread: a client that reads needs milliseconds.
pub(crate) const SLOW_READER: Duration = Duration::from_secs(1);

/// Bytes of text sent past a stream's reader before the reader wakes to account for them: thousands of tokens, yet
/// little beside the stream's other memory.
pub(crate) const TEXT_KEPT: usize = 16 * 1024;

/// Messages that have already arrived and are read before anything is sent: a few hundred microseconds of work.
pub(crate) const MESSAGES_IN_A_ROW: usize = 16;

/// Streams whose text is sent in a row before other tasks, such as new requests, get a turn: well under a millisecond
/// of work.
pub(crate) const SENDS_IN_A_ROW: usize = 64;

/// How often coordinators are told how many requests wait here: as often as they publish.
pub(crate) const TELL_WAITING: Duration = Duration::from_secs(1);

/// How much longer than its measured time (see `placement::AcceptClock`) a worker may take to answer `Accepted` before
/// the request is published again, up to [`ACCEPT_MAX`].
pub(crate) const ACCEPT_MIN: Duration = Duration::from_millis(250);

/// The least patience with a worker with few measurements: TCP's value for an unknown host (RFC 6298). A dead worker is
/// noticed by "no responders" long before.
pub(crate) const ACCEPT_FIRST: Duration = Duration::from_secs(1);

/// The longest wait for an `Accepted`. It covers lossy links half way round the world, and eight times [`ACCEPT_MIN`],
/// the longest pause between copies of one request.
pub(crate) const ACCEPT_MAX: Duration = Duration::from_secs(4);

/// Answers of a worker before its link counts as measured. A single fast answer may be luck on a link that is slow now
/// and then.
pub(crate) const MEASUREMENTS: u32 = 4;

/// How many workers are pinged at once to measure them: a snapshot that brings ten thousand workers must not cause as
/// many messages.
pub(crate) const MEASURE_AT_ONCE: usize = 64;

/// Silence after which a worker counts as lost. Workers send `Alive` every second, so several signs of life are
/// missing, and no slow prefill looks like this.
pub(crate) const STALL: Duration = Duration::from_secs(5);

/// Time after a reconnect of this gateway within which a stream's worker must be heard. Workers come back within 2 s
/// (the longest reconnect pause) and send `Alive` for each silent stream.
pub(crate) const AFTER_RECONNECT: Duration = Duration::from_millis(2500);

/// Silence after which a worker with streams of ours is pinged. NATS answers for a dead process at once ("no
/// responders"), so the ping finds it within this time and a round trip. A slow link gets more pings than it needs;
/// they do no harm, because only NATS answers "no responders". A new worker is pinged at the same interval until its
/// link is measured.
pub(crate) const PING_AFTER: Duration = Duration::from_millis(300);

/// Runs of one request that may be lost in a row without progress, or fail in their engines in total, before the client
/// gets an error. One poisonous request must not take down every engine in turn.
pub(crate) const MAX_RUNS: u32 = 3;

/// Engines that may answer one request with an error of their own (500). The request may be the cause, so one more is
/// asked, and no third.
pub(crate) const MAX_OWN_ERRORS: u32 = 2;

/// Engines that may die of one request: two are no coincidence.
pub(crate) const MAX_DEATHS: u32 = 2;

/// Time from a worker's `Accepted` within which an engine that dies without output counts as dead of the request.
pub(crate) const DEATH_WITHIN: Duration = Duration::from_secs(10);

/// Time for which a request of which engines died is refused. Longer than the retries of SDKs and of most agents.
pub(crate) const DEADLY_TIME: Duration = Duration::from_secs(120);

/// Most requests that are remembered as deadly, and most of one other gateway's.
pub(crate) const DEADLY_KEPT: usize = 64;

/// Most deadly requests of all other gateways. With their names they take some 40 KB.
pub(crate) const DEADLY_HEARD: usize = 256;

/// Default time that a request which no worker has taken waits while NATS is away: longer than a restart or an
/// election, shorter than a client waits on a silent connection.
pub(crate) const BUS_PATIENCE: Duration = Duration::from_secs(15);

/// Time that a stream which has begun waits at least while NATS is away. It cannot be had again elsewhere, but its
/// client must learn that nothing more comes.
pub(crate) const BEGUN_BUS_PATIENCE: Duration = Duration::from_secs(20);

/// How long a gateway remembers that some worker of a model had a feature: as long as an engine takes to restart. Until
/// then, a request that needs the feature lacks a worker instead of being invalid.
pub(crate) const ABLE_MEMORY: Duration = Duration::from_mins(1);

/// Different sets of features to remember per model. A cluster has a handful.
pub(crate) const ABLE_SETS: usize = 16;

/// Streams of one model that may move at once after a loss: those of several large workers.
pub(crate) const REDISPATCH_BURST: f64 = 2048.0;

/// Streams of one model that may move per second after that burst.
pub(crate) const REDISPATCH_RATE: f64 = 256.0;

/// Most token buckets of one kind, each of a model or a worker.
pub(crate) const BUCKETS: usize = 10_000;

/// How long a stream that may not move yet pauses.
pub(crate) const REDISPATCH_PAUSE: Duration = Duration::from_millis(250);

/// Unanswered publishes of one request in a row before the bus is to blame and the request waits longer between tries.
pub(crate) const MAX_OPEN: usize = 8;

/// Age after which a capacity snapshot is no longer used: three are missing.
pub(crate) const SNAPSHOT_FRESH: Duration = Duration::from_secs(3);

/// Requests that may wait for a free slot, over all models, before the next one is answered 429.
pub const WAITING: usize = 4096;

/// Bytes of the bodies of waiting requests, over all models: some hundred requests with images, or eight of the largest
/// size.
pub(crate) const WAITING_BYTES: usize = 256 * 1024 * 1024;

/// Time after which a waiting request moves into the next class: longer than a request should wait, shorter than its
/// client does.
pub(crate) const AGEING: Duration = Duration::from_secs(30);

/// Ended runs of a model from which the wait for a slot is known well enough to refuse a request because of it. Fewer say
/// little if answers differ much in length.
pub(crate) const KNOWN_ENDS: f64 = 32.0;

/// A request is refused at once if it can wait for less than this part of the expected wait. The rest is the error of the
/// estimate.
pub(crate) const HOPELESS: f64 = 0.75;

/// How long it is remembered that a client left the waiting room: longer than clients usually pause between tries,
/// and soon over when they have gone for good.
pub(crate) const PATIENCE_KNOWN: Duration = Duration::from_secs(3);

/// Clients that must have left the waiting room of late before their patience counts: one who presses "stop" is no crowd.
pub(crate) const LEAVERS: f64 = 16.0;

/// How far back "of late" reaches: long enough for a few runs of short answers, short enough that a crowd which has gone
/// does not make others be refused.
pub(crate) const LEAVERS_COUNT: Duration = Duration::from_secs(3);

/// Time in which the patience that clients are believed to have doubles while none leaves. So it is found anew when it has
/// grown, at the price of a few who leave.
pub(crate) const PATIENCE_DOUBLES: Duration = Duration::from_secs(10);

/// How long a request pauses that would be refused, while clients come back earlier than they were told: the least that they
/// are told.
pub(crate) const REFUSAL_PAUSE: Duration = *RETRY_AFTER.start();

/// Tenants of one class whose charge is remembered while they have nothing waiting.
pub(crate) const CHARGED_TENANTS: usize = 4096;

/// How long a worker gets no request after it refused a second one in a row although it had said it had room. Several
/// gateways that share its slots also cause that now and then, hence so short.
pub(crate) const REFUSED_FIRST: Duration = Duration::from_millis(25);

/// The longest such pause: as often as the first request of a line looks by itself ([`WAIT_RETRY`]).
pub(crate) const REFUSED_LONGEST: Duration = Duration::from_secs(1);

/// A worker that has none of the labels that a model prefers counts as so many milliseconds slower.
pub(crate) const PREFERRED_MS: f32 = 1_000.0;

/// The wait for the workers of a tier beyond which a request may use the next tier, if nothing else is set: longer than a
/// usual queue, shorter than a person's patience.
pub(crate) const TIER_WAIT: Duration = Duration::from_secs(5);

/// How often a worker is told again that requests wait here, if it offers no slot: it may have been restarted.
pub(crate) const SAY_WAITING_EVERY: Duration = Duration::from_secs(1);

/// Workers that are told of a request that begins to wait. Each further one tells more of them.
pub(crate) const SAY_WAITING_TO: usize = 16;

/// How long a request waits for one worker at most, whatever was expected: half of what a person waits for an answer.
pub(crate) const LONGEST_HOLD: Duration = Duration::from_secs(30);

/// How often a request that waits for one worker looks whether that is still best.
pub(crate) const HOLD_LOOK: Duration = Duration::from_millis(250);

/// How often the first request of a line looks for a free slot without a hint. Hints are messages and can be lost.
pub(crate) const WAIT_RETRY: Duration = Duration::from_millis(1000);

/// How long a request that some worker has had waits for another worker of its model, however the last one was lost.
pub(crate) const NO_WORKER_GRACE: Duration = Duration::from_secs(10);

/// How long a worker that NATS no longer knows may still return, because its NATS server died and not its process:
/// longer than the longest pause between reconnects. It applies where NATS is a cluster.
pub(crate) const WORKER_RETURN: Duration = Duration::from_secs(3);

/// How long a request that found no worker, and may wait for one, pauses before it asks NATS again.
pub(crate) const WORKER_RETRY: Duration = Duration::from_millis(300);

/// `Retry-After` if no worker serves a model. Workers register again within seconds.
pub(crate) const NO_WORKER_RETRY: Duration = Duration::from_secs(5);

/// How long is told what became of the streams that left a worker: as long as coordinators show a lost one.
pub(crate) const LEFT_KEPT: Duration = Duration::from_secs(300);

/// Most workers of which that is told.
pub(crate) const LEFT_WORKERS: usize = 64;

/// Age of a snapshot up to which its word counts that workers of a model are started on demand. Requests that wait for a
/// start are not refused while one coordinator takes over from another.
pub(crate) const STARTING_BELIEVED: Duration = Duration::from_secs(15);

/// Bounds of `Retry-After` if the waiting room is full. The header counts whole seconds, and estimates beyond the
/// default time limit of requests are guesses.
pub(crate) const RETRY_AFTER: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_mins(10);

/// How long it is remembered how many requests ran together: as long as their slots may be free between a crowd that leaves
/// and the next requests, and not much longer, because workers leave too.
pub(crate) const RUNS_REMEMBERED: Duration = Duration::from_secs(2);

/// The least assumed duration of a run while none has ended: an answer of some hundred tokens.
pub(crate) const FIRST_RUNS: Duration = Duration::from_secs(10);

/// How long the waiting room empties at most before the first refused request may come back.
pub(crate) const RETURN_SLACK: Duration = Duration::from_secs(30);

/// Tenants per model whose `Retry-After` is remembered. Others are told as if they were refused for the first time.
pub(crate) const TOLD_TENANTS: usize = 1024;

/// Cancels that wait for the bus. More are counted and dropped; the worker then stops at the request's deadline.
pub(crate) const COURIER: usize = 16_384;

/// Attempts of one stream of which it is known who has them: twice those that can be open, for late answers.
pub(crate) const KNOWN_ATTEMPTS: usize = 2 * MAX_OPEN;

/// Frames that nobody asked for and that one worker may send at once: what ten thousand streams that were cancelled
/// still send within a second's way.
pub(crate) const USELESS_BURST: f64 = 200_000.0;

/// Such frames of one worker per second from then on. Beyond that its messages are not read, which costs it its own
/// streams. To read so many costs a few hundredths of a core.
pub(crate) const USELESS_RATE: f64 = 50_000.0;

/// What such a frame counts if its worker must be told to stop: the queue of cancels is not for those who invent frames.
pub(crate) const UNASKED_ANSWER: usize = 16;

/// Models to remember for "unknown model" errors and for listing.
pub(crate) const KNOWN_MODELS: usize = 10_000;

/// Workers to know, and models of each, that only messages other than a snapshot tell of. Anybody who may publish can
/// invent names. With the names of [`KNOWN_MODELS`], which all share, they take some 60 MB at most.
pub(crate) const KNOWN_WORKERS: usize = 10_000;
pub(crate) const MODELS_OF_WORKER: usize = 256;

/// Silence after which a worker is forgotten while no coordinator tells who is there. Workers are asked every 5 s then.
pub(crate) const WORKER_MEMORY: Duration = Duration::from_secs(60);

/// Time after which a model without workers is forgotten.
pub(crate) const MODEL_MEMORY: Duration = Duration::from_secs(600);

/// How long the last usage records may take to be published when the gateway stops.
pub(crate) const LAST_RECORDS: Duration = Duration::from_secs(3);

/// Longest time that a worker may take for a stream. As long as output comes, nothing else bounds a stream; a worker takes
/// no longer budget.
pub(crate) const STREAM_TIME: Duration = Duration::from_hours(24);

/// A worker whose prefixes were not all heard is asked for all of them at most this often.
pub(crate) const ASK_PREFIXES_EVERY: Duration = Duration::from_secs(5);

/// Models of one worker whose pace is remembered; the others count as unmeasured. With the longest names, those of
/// [`KNOWN_WORKERS`] take some 100 MB.
pub(crate) const PACES: usize = 32;

/// Without a coordinator, a worker is chosen only if it holds this many tokens of a prompt: some 100 ms of reading.
pub(crate) const WORTH_A_HOLDER: u32 = 256;

/// Time without NATS after which a gateway that is being stopped ends its streams. A server that is replaced is back
/// sooner; one that was stopped with the cluster never is.
pub(crate) const LEAVING_WITHOUT_BUS: Duration = Duration::from_secs(2);

/// Steps that are kept of one request's way. A request that moves on and on has more; they are only counted.
pub(crate) const STORY_STEPS: usize = 32;

/// Characters of a reason or an error that are kept in a request's story.
pub(crate) const STORY_WHY: usize = 200;

/// How long the stories of requests are kept, for `tokenbus trace`: somebody who complains does so soon.
pub(crate) const STORIES_AGE: Duration = Duration::from_hours(1);

/// Bytes of all kept stories: some forty thousand requests.
pub(crate) const STORIES_BYTES: usize = 16 << 20;

/// Stories of one request id that are told: clients may use an id again and again, and the answer must fit a message.
pub(crate) const STORIES_TOLD: usize = 16;
