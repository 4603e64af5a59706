//! Every limit and time-out of the load generator, with its unit and its reason.

use std::time::Duration;

/// The largest single server-sent event, in bytes; a server that never ends one must not fill our memory.
pub(crate) const MAX_EVENT_BYTES: usize = 4 << 20;

/// The largest body of an error answer or of a complete (not streamed) answer that is read, in bytes.
pub(crate) const MAX_BODY_BYTES: usize = 16 << 20;

/// Size of one read from a connection, in bytes: many tokens, and still within the processor's second cache.
pub(crate) const READ_BYTES: usize = 64 << 10;

/// Gaps between arrivals kept per stream before they are folded into the histograms, in entries.
pub(crate) const GAPS_KEPT: usize = 1024;

/// Connections that a thread opens at the same time. More overflow a server's listen backlog, and a lost
/// SYN is repeated only after a second, which would be measured as the server's latency.
pub(crate) const CONNECTING: usize = 64;

/// What a server may send on one HTTP/2 stream before we have read it, in bytes: more than an answer at full speed gathers
/// between two turns of the reader, so that the load generator's window is never what the server waits for.
pub(crate) const HTTP2_STREAM_WINDOW: u32 = 1 << 20;

/// The same for all streams of an HTTP/2 connection, in bytes.
pub(crate) const HTTP2_CONNECTION_WINDOW: u32 = 64 << 20;

/// An unused connection is closed rather than used again after this long: servers and proxies cut idle
/// ones, and a request that meets the cut would be counted as the server's failure.
pub(crate) const IDLE: Duration = Duration::from_secs(5);

/// The first pause of a connection slot after it could not connect; doubled up to [`BACKOFF_MAX`].
/// Without it a closed loop against a dead server would do nothing but burn a core.
pub(crate) const BACKOFF: Duration = Duration::from_millis(20);

/// The longest pause after a failed connection attempt.
pub(crate) const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// Due requests that wait, per thread, between the open loop's clock and its dispatcher, in requests.
/// When it is full the clock waits; nothing is left out, since latency counts from the intended time.
pub(crate) const PACER_QUEUE: usize = 1024;

/// The open loop's clock looks for a stop at least this often.
pub(crate) const PACER_SLICE: Duration = Duration::from_millis(100);

/// Failures that one report tells apart; it counts the rest together.
pub(crate) const FAILURES_TOLD_APART: usize = 64;

/// The longest example text kept of a failure, in bytes.
pub(crate) const EXAMPLE_BYTES: usize = 200;

/// The longest latency that the histograms tell apart, in µs (one hour); longer counts as this.
pub(crate) const HISTOGRAM_MAX_US: u64 = 3_600_000_000;

/// File descriptors beside the connections (standard streams, poller, resolver, report file).
pub(crate) const FILES_BESIDE_CONNECTIONS: u64 = 64;

/// How often the progress bar is drawn again.
pub(crate) const PROGRESS: Duration = Duration::from_millis(200);

/// Tokens that the request asks for that finds out which check applies.
pub(crate) const PROBE_TOKENS: u64 = 4;

/// Most threads.
pub(crate) const MAX_THREADS: u64 = 256;

/// Most connections or requests in flight.
pub(crate) const MAX_CONCURRENCY: u64 = 1_000_000;

/// Connections that the floor serves at once.
pub(crate) const FLOOR_CLIENTS: usize = 100_000;

/// Events that the floor takes from the poller at a time; more come with the next turn.
pub(crate) const FLOOR_EVENTS: usize = 4096;

/// The largest request to the floor with its head, in bytes.
pub(crate) const FLOOR_REQUEST_BYTES: usize = 1 << 20;

/// Tokens of the floor's longest answer. Their chunks, some 200 bytes each, are kept in memory.
pub(crate) const FLOOR_MAX_TOKENS: usize = 100_000;

/// What the floor keeps for a client that does not read, in bytes; with more it is cut off.
pub(crate) const FLOOR_BACKLOG_BYTES: usize = 32 << 20;
