//! Every bound and time-out of the coordinator, with its unit and its reason.

use std::time::Duration;

/// Time between two statuses of one worker (the protocol's rhythm).
pub const STATUS_PERIOD: Duration = Duration::from_secs(1);

/// Silence after which a worker is lost, unless told otherwise: three missed statuses. One or two
/// are a busy machine or a lost packet.
pub const LOST_AFTER: Duration = Duration::from_secs(3);

/// Most that [`LOST_AFTER`] grows by for a worker whose statuses come late: then a link that is slow
/// and loses packets is told from a dead worker, and a dead one is lost after 6 s at the latest.
pub(crate) const LATE_MAX: Duration = Duration::from_secs(3);

/// How often silent workers are looked for. A quarter of a second more or less does not matter
/// against [`LOST_AFTER`].
pub(crate) const TICK: Duration = Duration::from_millis(250);

/// How late a tick may be before the coordinator takes itself for the one who slept: it then
/// cannot know who else was silent, and excuses everybody for [`LOST_AFTER`].
pub(crate) const STALL: Duration = Duration::from_millis(750);

/// What workers get beyond [`LOST_AFTER`] to come back after the coordinator's own connection was
/// away: the longest pause before a client connects again, and one status.
pub(crate) const RECONNECT_GRACE: Duration = Duration::from_secs(3);

/// How long a coordinator listens before it tells what it knows: one status of everybody and some
/// jitter. Before that it would tell gateways of a cluster without workers.
pub(crate) const WARM_UP: Duration = Duration::from_millis(1250);

/// Time between two snapshots when nothing happens.
pub(crate) const SNAPSHOT_PERIOD: Duration = Duration::from_secs(1);

/// Shortest time between two snapshots when workers join, leave or change: 20 a second.
pub(crate) const STRUCTURE_GAP: Duration = Duration::from_millis(50);

/// Shortest time between two snapshots when a worker became full or has room again. Gateways
/// learn of room sooner, with the tokens that they receive; this is for those that receive none.
pub(crate) const ROOM_GAP: Duration = Duration::from_millis(250);

/// Added to [`STRUCTURE_GAP`] for each worker: a snapshot costs about this much to make, to
/// encode and to send, so that a change never costs more than half a core.
pub(crate) const GAP_PER_WORKER: Duration = Duration::from_micros(25);

/// Age of a snapshot up to which a question is answered with it rather than with a new one.
pub(crate) const ANSWER_AGE: Duration = Duration::from_millis(50);

/// Most workers that are kept. What one more would cost is 1 KB of memory and 25 µs of each
/// snapshot; the bound keeps a runaway namespace from taking the machine.
pub(crate) const MAX_WORKERS: usize = 10_000;

/// Most models of one worker; further ones are not listed.
pub(crate) const MAX_MODELS_PER_WORKER: usize = 256;

/// Most models that are listed.
pub(crate) const MAX_MODELS: usize = 10_000;

/// Largest status in bytes: [`MAX_MODELS_PER_WORKER`] models with long names fit.
pub(crate) const MAX_STATUS: usize = 256 * 1024;

/// Most former instances that are remembered of one worker, so that their late statuses are
/// recognised. A worker that restarts more often within a status period has other problems.
pub(crate) const MAX_FORMER: usize = 8;

/// How long it is remembered which instance left, so that its late statuses do not bring it back.
pub(crate) const DEPARTED_FOR: Duration = Duration::from_secs(60);

/// How long a model without a worker stays listed: a gateway then says "no worker" rather than
/// "no such model" while the last worker restarts or a machine boots.
pub(crate) const MODEL_LISTED_FOR: Duration = Duration::from_secs(600);

/// Part of its slots that a model's workers should have in use: the rest is for bursts that come
/// faster than a worker starts.
pub(crate) const TARGET_UTILISATION: f64 = 0.8;

/// How long less load must last before fewer workers are asked for. Longer than the pauses in
/// ordinary traffic, and than a worker takes to load a model.
pub(crate) const SCALE_DOWN_AFTER: Duration = Duration::from_secs(60);

/// Time between two samples that are kept of a model's demand, which bounds them to 122 for each
/// model.
pub(crate) const DEMAND_SAMPLE: Duration = Duration::from_millis(500);

/// Time between two heartbeats of a coordinator.
pub(crate) const BEAT_PERIOD: Duration = Duration::from_millis(500);

/// Silence after which a coordinator counts as gone: three missed heartbeats.
pub(crate) const PEER_LOST_AFTER: Duration = Duration::from_millis(1500);

/// How long a coordinator listens for another leader before it leads without a lease: a leader
/// answers a newcomer's heartbeat at once, and sends its own within [`BEAT_PERIOD`] anyhow.
pub(crate) const LISTEN_FIRST: Duration = Duration::from_millis(750);

/// Most coordinators that are kept track of. Two are enough, three are many.
pub(crate) const MAX_PEERS: usize = 64;

/// Life of the leader's lease after its last renewal. With [`PEER_LOST_AFTER`] it makes a
/// follower take over well within 3 s of the leader's death.
pub(crate) const LEASE: Duration = Duration::from_secs(2);

/// Time between two renewals of the lease: three may fail.
pub(crate) const LEASE_RENEW: Duration = Duration::from_millis(500);

/// Time between two attempts to take a lease that another still holds.
pub(crate) const LEASE_RETRY: Duration = Duration::from_millis(250);

/// How often it is made sure that the lease's bucket has its replicas. It is three short answers.
pub(crate) const LEASE_CHECK: Duration = Duration::from_secs(60);

/// Longest wait for an answer of JetStream. Half of [`LEASE`], so that a renewal that timed out
/// can be tried again.
pub(crate) const JETSTREAM_TIMEOUT: Duration = Duration::from_secs(1);

/// First and longest pause before JetStream is asked again after it was not there.
pub(crate) const JETSTREAM_RETRY_FIRST: Duration = Duration::from_secs(1);
/// See [`JETSTREAM_RETRY_FIRST`].
pub(crate) const JETSTREAM_RETRY_LONGEST: Duration = Duration::from_secs(15);

/// Messages on their way to the bus: events of a cluster that starts all at once, and snapshots.
pub(crate) const OUTBOUND: usize = 1024;

/// Events that a follower keeps in case it has to tell them (see [`UNTOLD_FOR`]).
pub(crate) const MAX_UNTOLD: usize = 1024;

/// How long a follower keeps an event: a leader may die before it has told it, and is replaced
/// within this time.
pub(crate) const UNTOLD_FOR: Duration = Duration::from_secs(3);

/// Questions that wait for a new coordinator to have warmed up.
pub(crate) const MAX_WAITING_QUESTIONS: usize = 256;

/// Longest time for giving up the lease and ending open HTTP connections at the end.
pub(crate) const SHUTDOWN: Duration = Duration::from_secs(2);

/// Time for which it holds what a gateway has told of the requests that wait at it: three of its words, one a
/// second.
pub const WAITING_HELD: Duration = Duration::from_secs(3);

/// Gateways of which that is held; a message with an invented name must not cost memory for good.
pub const MAX_GATEWAYS: usize = 1024;

/// Largest message in bytes of what waits at a gateway: thousands of models.
pub const MAX_WAITING: usize = 256 * 1024;
