//! Every bound and time-out of the coordinator, with its unit and its reason.

use std::time::Duration;

/// Time between two statuses of one worker, as the protocol sets it.
pub(crate) const STATUS_PERIOD: Duration = Duration::from_secs(1);

/// Default silence after which a worker is lost: three missed statuses. One or two missed ones mean a busy machine
/// or a lost packet.
pub(crate) const LOST_AFTER: Duration = Duration::from_secs(3);

/// Largest extension of [`LOST_AFTER`] for a worker whose statuses come late. It tells a slow, lossy link from a
/// dead worker; a dead one is lost after 6 s at the latest.
pub(crate) const LATE_MAX: Duration = Duration::from_secs(3);

/// Longest time between two searches for silent workers; a third of the time after which they are lost where that is
/// shorter. A worker that would be lost before that is looked for at that moment.
pub(crate) const LOOK: Duration = Duration::from_secs(1);

/// Shortest time between two searches for silent workers. A quarter of a second does not matter against
/// [`LOST_AFTER`].
pub(crate) const TICK: Duration = Duration::from_millis(250);

/// Delay of a search from which the coordinator assumes that it was asleep itself. It then cannot know who else was
/// silent, and excuses everybody for [`LOST_AFTER`].
pub(crate) const STALL: Duration = Duration::from_millis(750);

/// Extra time beyond [`LOST_AFTER`] for workers to return after the coordinator's own connection was lost: the
/// longest pause before a client reconnects, and one status.
pub(crate) const RECONNECT_GRACE: Duration = Duration::from_secs(3);

/// How long a new coordinator listens before it publishes: one status of every worker and some jitter. Earlier, it
/// would report a cluster without workers.
pub(crate) const WARM_UP: Duration = Duration::from_millis(1250);

/// Time between two snapshots without changes.
pub(crate) const SNAPSHOT_PERIOD: Duration = Duration::from_secs(1);

/// Shortest time between two snapshots when workers join, leave or change: 20 a second.
pub(crate) const STRUCTURE_GAP: Duration = Duration::from_millis(50);

/// Shortest time between two snapshots when a worker becomes full or has a free slot again. Gateways learn of free
/// slots sooner, with the tokens they receive; this is for gateways that receive none.
pub(crate) const ROOM_GAP: Duration = Duration::from_millis(250);

/// Added to [`STRUCTURE_GAP`] for each worker: about the cost of making, encoding and sending its part of a
/// snapshot. So changes never cost more than half a core.
pub(crate) const GAP_PER_WORKER: Duration = Duration::from_micros(25);

/// Age up to which the last snapshot still answers a question; beyond it a new one is made.
pub(crate) const ANSWER_AGE: Duration = Duration::from_millis(50);

/// Most workers that are kept. Each costs 1 KB of memory and 25 µs per snapshot; the bound keeps a runaway
/// namespace from exhausting the machine.
pub(crate) const MAX_WORKERS: usize = 10_000;

/// Most bytes of all workers' statuses: [`MAX_WORKERS`] with a dozen models each.
pub(crate) const MAX_STATUSES: usize = 64 * 1024 * 1024;

/// Most models of one worker; further ones are not listed.
pub(crate) const MAX_MODELS_PER_WORKER: usize = 256;

/// Most models that are listed.
pub(crate) const MAX_MODELS: usize = 10_000;

/// Largest status in bytes: [`MAX_MODELS_PER_WORKER`] models with long names fit.
pub(crate) const MAX_STATUS: usize = 256 * 1024;

/// Statuses of one worker that are read at once: it reports every change, and many may come together.
pub(crate) const STATUSES_BURST: f64 = 100.0;

/// Statuses of one worker that are read per second from then on: twenty times what a calm worker sends.
pub(crate) const STATUSES_RATE: f64 = 20.0;

/// Events and hurried snapshots that one worker may cause at once: it restarts with [`MAX_MODELS_PER_WORKER`] models, of
/// which each vanishes and appears.
pub(crate) const CHANGES_BURST: f64 = 600.0;

/// Events and hurried snapshots per second that one worker may cause from then on.
pub(crate) const CHANGES_RATE: f64 = 10.0;

/// Most models without a worker that stay listed because of the worker that named them last.
pub(crate) const MAX_UNNAMED_PER_WORKER: usize = 32;

/// Most bytes of a text in a status, such as the host's name.
pub(crate) const MAX_TEXT: usize = 256;

/// How long a lost worker is shown as such.
pub(crate) const LOST_SHOWN: Duration = Duration::from_secs(300);

/// Most lost workers that are shown.
pub(crate) const MAX_LOST: usize = 64;

/// Most models of a lost worker that are named.
pub(crate) const MODELS_OF_LOST: usize = 4;

/// Most former instances that are remembered per worker, to recognise their late statuses. A worker that restarts
/// more often within a status period has other problems.
pub(crate) const MAX_FORMER: usize = 8;

/// How long a departed instance is remembered, so that its late statuses do not bring it back.
pub(crate) const DEPARTED_FOR: Duration = Duration::from_secs(60);

/// How long a model without a worker stays listed. Meanwhile a gateway answers "no worker" and not "no such model",
/// for example while the last worker restarts.
pub(crate) const MODEL_LISTED_FOR: Duration = Duration::from_secs(600);

/// Share of the slots that should be in use. The rest is for bursts that come faster than a worker starts.
pub(crate) const TARGET_UTILISATION: f64 = 0.8;

/// How long the load must be lower before fewer workers are asked for. Longer than ordinary pauses in traffic, and
/// than a worker takes to load a model.
pub(crate) const SCALE_DOWN_AFTER: Duration = Duration::from_secs(60);

/// Time without a request after which a model that may have no worker gets none, unless its rule says otherwise.
/// Loading a model again takes a minute, and costs whoever asks next.
pub(crate) const IDLE_AFTER: Duration = Duration::from_secs(600);

/// Time from the wish for a first worker until it is ready, until that was measured, unless the model's rule says
/// otherwise: a machine that is on loads a model of some gigabytes.
pub(crate) const EXPECTED_START: Duration = Duration::from_secs(60);

/// Shortest part of the expected start that a late start is still believed to need.
pub(crate) const LATE_START: u32 = 4;

/// Time limit for one call of the scaler's command. Starting a rented machine takes minutes.
pub(crate) const SCALER_TIMEOUT: Duration = Duration::from_secs(600);

/// Most calls of the scaler's command that run at once.
pub(crate) const SCALER_CALLS: usize = 16;

/// Time between two samples of a model's demand. It bounds them to two per second of its rule's `down-after`.
pub(crate) const DEMAND_SAMPLE: Duration = Duration::from_millis(500);

/// Time between two heartbeats of a coordinator, and between two renewals of its lease. Three renewals may fail.
pub(crate) const BEAT_PERIOD: Duration = Duration::from_millis(500);

/// The same for a leader that holds the lease and hears no other coordinator: nobody waits. A newcomer is answered at once.
pub(crate) const BEAT_ALONE: Duration = Duration::from_secs(1);

/// Silence after which a coordinator counts as gone: three missed heartbeats.
pub(crate) const PEER_LOST_AFTER: Duration = Duration::from_millis(1500);

/// How long a coordinator listens for another leader before it leads without a lease. A leader answers a newcomer's
/// heartbeat at once, and sends its own within [`BEAT_PERIOD`] anyway.
pub(crate) const LISTEN_FIRST: Duration = Duration::from_millis(750);

/// Most coordinators that are tracked. Two are enough, three are many.
pub(crate) const MAX_PEERS: usize = 64;

/// Life of the leader's lease after its last renewal. With [`PEER_LOST_AFTER`], a follower takes over well within 3
/// s of the leader's death.
pub(crate) const LEASE: Duration = Duration::from_secs(2);

/// Time between two attempts to take a lease that another coordinator holds.
pub(crate) const LEASE_RETRY: Duration = Duration::from_millis(250);

/// Interval of the check that the lease's bucket has its replicas. It costs three short answers.
pub(crate) const LEASE_CHECK: Duration = Duration::from_secs(60);

/// Longest wait for an answer of JetStream. Half of [`LEASE`], so that a renewal that timed out can be retried.
pub(crate) const JETSTREAM_TIMEOUT: Duration = Duration::from_secs(1);

/// First pause before JetStream is asked again after it was absent.
pub(crate) const JETSTREAM_RETRY_FIRST: Duration = Duration::from_secs(1);
/// Longest pause before JetStream is asked again.
pub(crate) const JETSTREAM_RETRY_LONGEST: Duration = Duration::from_secs(15);

/// Messages queued for the bus: the events of a cluster that starts all at once, and snapshots.
pub(crate) const OUTBOUND: usize = 1024;

/// Places in that queue that events leave free, so that snapshots are published in any storm.
pub(crate) const FOR_SNAPSHOTS: usize = OUTBOUND / 4;

/// Most events that a follower keeps for the case that the leader dies (see [`UNTOLD_FOR`]).
pub(crate) const MAX_UNTOLD: usize = 1024;

/// How long a follower keeps an event. A leader may die before it has published the event, and is replaced within
/// this time.
pub(crate) const UNTOLD_FOR: Duration = Duration::from_secs(3);

/// Questions that wait for a new coordinator to warm up.
pub(crate) const MAX_WAITING_QUESTIONS: usize = 256;

/// Time limit at shutdown for giving up the lease and for open HTTP connections.
pub(crate) const SHUTDOWN: Duration = Duration::from_secs(2);

/// How long a gateway's message about its waiting requests holds. Three periods: gateways send one a second.
pub(crate) const WAITING_HELD: Duration = Duration::from_secs(3);

/// Most gateways whose waiting requests are kept: messages with invented names must not exhaust memory.
pub(crate) const MAX_GATEWAYS: usize = 1024;

/// Largest message in bytes about the waiting requests of a gateway: thousands of models.
pub(crate) const MAX_WAITING: usize = 256 * 1024;

/// Most bytes of what all gateways told of waiting requests: [`MAX_GATEWAYS`] with hundreds of models each.
pub(crate) const WAITING_BYTES: usize = 32 * 1024 * 1024;

/// Most open connections to the status page: one each for dozens of monitors, autoscalers and people. Beyond it the oldest
/// is closed.
pub(crate) const PAGE_CONNECTIONS: usize = 128;

/// Bytes of the head of a request for the status page: a browser's cookies for other pages of the host fit.
pub(crate) const PAGE_HEAD_BYTES: usize = 16 * 1024;

/// Time limit for the head of a request for the status page, and for the silence before it. Longer than the usual 15 s
/// between two scrapes, so that a monitor keeps its connection.
pub(crate) const PAGE_HEAD_TIME: Duration = Duration::from_secs(20);

/// Time between two log lines about too many connections.
pub(crate) const PAGE_WARNING: Duration = Duration::from_secs(10);
