//! Every bound and timeout of the HTTP edge, with its unit and its reason.

use std::time::Duration;

/// Default limit of a request body in bytes: room for some images as data URLs, or for millions of tokens as text.
pub(crate) const BODY_LIMIT: usize = 32 * 1024 * 1024;

/// Largest body in bytes that is checked on a thread that serves connections: some milliseconds of work. Larger ones
/// (images as data URLs) go to a blocking thread.
pub(crate) const INLINE: usize = 256 * 1024;

/// Default bytes of all request bodies in memory: twice those of a full waiting room.
pub(crate) const BODY_MEMORY: usize = 512 * 1024 * 1024;

/// Time in which a client must have sent [`BODY_WINDOW_BYTES`] of its body, else it gets a 408. Longer than a stall of a
/// mobile link, short enough that half-sent bodies do not pile up in memory.
pub(crate) const BODY_WINDOW: Duration = Duration::from_secs(30);

/// Bytes of a body in each [`BODY_WINDOW`]: 1 KiB a second, less than any link on which a chat is of use.
pub(crate) const BODY_WINDOW_BYTES: usize = 30 * 1024;

/// Large bodies that are checked at once; the others wait. A check holds a small multiple of its body.
pub(crate) const CHECKS_AT_ONCE: usize = 4;

/// Largest body in bytes that is copied out of the connection's buffer. Uncopied, it would hold the whole buffer as
/// long as its stream lives. Such a copy costs a few microseconds.
pub(crate) const COPIED: usize = 64 * 1024;

/// Default time limit: of an answer in one piece, of the wait for a stream's first output, and of each silence after
/// that. The official SDKs give up after as long a silence.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(600);

/// Default of the longest time limit that a client may ask for. Enough for long reasoning that is not streamed.
pub(crate) const MAX_REQUEST_TIMEOUT: Duration = Duration::from_hours(1);

/// Default wait for the first output before the status is sent without it. Most errors come well within this time and
/// so get a real status; proxies that cut silent connections wait for at least 30 s.
pub(crate) const COMMIT_AFTER: Duration = Duration::from_secs(10);

/// Default silence on an event stream after which a comment is sent.
pub(crate) const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// Default grace: the time that running requests have to end at a shutdown.
pub(crate) const GRACE: Duration = Duration::from_secs(30);

/// Time past a request's deadline, or past the longest silence of a stream, after which the edge answers by itself. The core answers at the deadline; this only
/// matters if it has a bug.
pub(crate) const BACKSTOP: Duration = Duration::from_secs(5);

/// Bytes of events in one write; the rest goes with the next one. A stream with a backlog does not copy all of it at
/// once.
pub(crate) const MAX_WRITE: usize = 64 * 1024;

/// Longest request id in bytes that a client may choose; it appears in logs and on the bus.
pub(crate) const MAX_REQUEST_ID: usize = 128;

/// Longest tenant name in bytes.
pub(crate) const MAX_TENANT: usize = 128;

/// Longest `tracestate` in bytes that is passed on: W3C asks for at least 512.
pub(crate) const MAX_TRACESTATE: usize = 512;

/// Priorities range from minus this to plus this.
pub(crate) const MAX_PRIORITY: i32 = 1000;

/// Most model names that a 404 lists; there may be thousands.
pub(crate) const MAX_LISTED: usize = 50;

/// Longest `Retry-After` in seconds. A longer one would mean "no".
pub(crate) const MAX_RETRY_AFTER: u64 = 3600;

/// `Retry-After` for causes that pass within moments: a worker drains, the bus reconnects.
pub(crate) const SHORT_RETRY: Duration = Duration::from_secs(1);

/// Time limit for a new connection's first bytes. The HTTP library watches headers only once it knows the protocol's
/// version.
pub(crate) const OPENING: Duration = Duration::from_secs(30);

/// Bytes after which a connection counts as opened: the length of the HTTP/2 preface, which tells the version.
pub(crate) const OPENING_BYTES: usize = 24;

/// Bytes of a request's head, and so of what a connection may hold before its request has a key: more than proxies allow.
pub(crate) const HEADER_BYTES: usize = 64 * 1024;

/// Time limit for a head that has begun: a mobile link needs a second for one.
pub(crate) const HEADER_TIME: Duration = Duration::from_secs(15);

/// Time limit between two requests on one connection. Longer than the 90 s for which Go's and Rust's clients keep idle connections: so the client closes them, and no
/// request meets a closing connection.
pub(crate) const IDLE: Duration = Duration::from_secs(120);

/// Time after which a client that leaves its socket full is disconnected. The core cancels its stream much earlier.
pub(crate) const WRITE_STALL: Duration = Duration::from_secs(60);

/// Time after which unacknowledged bytes end the connection, and silence after which a keep-alive probe is sent. A
/// closed laptop must not hold a slot for the quarter of an hour that TCP tries by itself.
pub(crate) const UNACKNOWLEDGED: Duration = Duration::from_secs(30);

/// Time for which a closed connection, or the rest of an answered HTTP/2 request, is still read. Many clients look for
/// an answer only when they have sent their whole body; without this they would get a reset instead of the answer. A
/// slow uplink takes a while, and reading costs next to nothing.
pub(crate) const LINGER: Duration = Duration::from_secs(30);

/// Silence of the client that ends the linger early: it has stopped sending, or has vanished.
pub(crate) const LINGER_IDLE: Duration = Duration::from_secs(5);

/// Most bytes that a linger reads and throws away: several times the default body limit.
pub(crate) const LINGER_BYTES: usize = 256 * 1024 * 1024;

/// Pauses between bytes that tell whether a client which has ended its side is still there: the first, and the longest.
pub(crate) const PROBE_PAUSE: std::ops::RangeInclusive<Duration> = Duration::from_millis(500)..=Duration::from_secs(10);

/// Leading zeros of a chunk's size that such a client gets at most. Go's library takes 16 digits.
pub(crate) const PROBE_ZEROS: u32 = 4;

/// Most streams per HTTP/2 connection. A proxy may carry all its clients over one connection; flow control bounds the
/// buffers of each stream.
pub(crate) const HTTP2_STREAMS: u32 = 10_000;

/// Time between two pings of an HTTP/2 client, and the time that it has to answer one.
pub(crate) const HTTP2_PING: Duration = Duration::from_secs(20);

/// Most bytes of one HTTP/2 stream that wait in memory for a slow client. The library's 400 KB would be 4 GB for
/// 10,000 streams.
pub(crate) const HTTP2_SEND_BUFFER: usize = 64 * 1024;

/// Streams that the client has reset before they were served, and resets of ours that a client provokes, after which an
/// HTTP/2 connection ends: a client that opens and resets streams at full speed costs work, but no answer.
pub(crate) const HTTP2_RESETS: usize = 128;

/// Bytes of one HTTP/2 stream, and of all streams of a connection, that the client may send ahead of the reader.
pub(crate) const HTTP2_WINDOW: u32 = 1024 * 1024;

/// Bytes of the headers of one HTTP/2 request.
pub(crate) const HTTP2_HEADERS: u32 = 32 * 1024;

/// First and longest pause after a failed accept (no file descriptors). Short, because a descriptor is free as soon as
/// any connection ends.
pub(crate) const ACCEPT_PAUSE: std::ops::RangeInclusive<Duration> = Duration::from_millis(5)..=Duration::from_secs(1);

/// Open files that connections leave free, at least and at most: for NATS, for settings that are read again, for
/// connections that are told that they are too many.
pub(crate) const FILES_KEPT: std::ops::RangeInclusive<u64> = 96..=1024;

/// Connections beyond the limit that are told so at once; others are closed without a word. Well below [`FILES_KEPT`].
pub(crate) const REFUSED_AT_ONCE: usize = 32;

/// Time that a connection beyond the limit has to take in the refusal.
pub(crate) const REFUSED_FOR: Duration = Duration::from_secs(1);

/// Time between the end of the grace, when the core ends its streams with an error event, and the cutting of the
/// connections, so that the event still leaves.
pub(crate) const LAST_WORDS: Duration = Duration::from_secs(1);

/// Bytes of one read from a client: about what the system usually has of a large body.
pub(crate) const READ_SCRATCH: usize = 64 * 1024;

/// Bytes of one read before the protocol is known, and while a client is being answered. Most requests' headers fit, so
/// the HTTP library gets them in one piece.
pub(crate) const AHEAD: usize = 4 * 1024;

/// Log lines about refused requests in one [`REFUSAL_WINDOW`]. More are counted and left out: a client in a loop must not
/// fill the log.
pub(crate) const REFUSAL_LINES: u32 = 20;

/// Time after which refused requests are logged again.
pub(crate) const REFUSAL_WINDOW: Duration = Duration::from_secs(10);

/// Bytes that are kept of what a client sends while it is answered. What is more is dropped, and the connection closes
/// after the answer.
pub(crate) const KEPT_AHEAD: usize = 64 * 1024;

/// Bytes of a streamed answer that wait in memory for a full socket before no more is taken from the stream. The core
/// has a bound of its own.
pub(crate) const UNSENT: usize = 64 * 1024;
