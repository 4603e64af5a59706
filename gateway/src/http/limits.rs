//! Every bound and time-out of the HTTP edge, with its unit and its reason.

use std::time::Duration;

/// Default bound on a request body in bytes: some images as data URLs, or a context of millions of
/// tokens as text.
pub const BODY_LIMIT: usize = 32 * 1024 * 1024;

/// Bytes of a body that are read and translated on a thread that serves connections: some
/// milliseconds of work. Larger ones (images as data URLs) go to a thread of their own.
pub const INLINE: usize = 256 * 1024;

/// Silence of a client in the middle of its body after which it is told 408. Longer than a stall
/// of a mobile link, short enough that half-sent bodies do not pile up in memory.
pub const BODY_IDLE: Duration = Duration::from_secs(30);

/// Bytes of a body up to which it is copied out of the connection's buffer, of which it would keep the whole
/// as long as its stream lives. To copy this much costs a few microseconds.
pub const COPIED: usize = 64 * 1024;

/// Default time for a whole request: what the official SDKs wait before they give up.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(600);

/// Default time that is waited for the first output before the status is sent without it. Errors
/// from below usually come well within it and are real statuses then; proxies that cut silent
/// connections wait for at least 30 s.
pub const COMMIT_AFTER: Duration = Duration::from_secs(10);

/// Default silence on an event stream after which a comment is sent.
pub const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// Default time that running requests have to end after a shutdown was asked for.
pub const GRACE: Duration = Duration::from_secs(30);

/// Time beyond a request's deadline after which the edge answers by itself. The core answers at
/// the deadline; this is for the case that it has a bug: never hang.
pub const BACKSTOP: Duration = Duration::from_secs(5);

/// Bytes of events that leave in one write; what is beyond goes with the next one. Keeps a
/// stream that was held up from copying its whole backlog at once.
pub const MAX_WRITE: usize = 64 * 1024;

/// Longest request id in bytes that is taken over from a client; it stands in logs and on the bus.
pub const MAX_REQUEST_ID: usize = 128;

/// Longest tenant name in bytes.
pub const MAX_TENANT: usize = 128;

/// Longest `tracestate` in bytes that is handed on: W3C asks for at least 512.
pub const MAX_TRACESTATE: usize = 512;

/// Priorities go from minus this to plus this.
pub const MAX_PRIORITY: i32 = 1000;

/// Model names that a 404 lists; there may be thousands.
pub const MAX_LISTED: usize = 50;

/// Longest `Retry-After` in seconds. A client that is told more has been told "no".
pub const MAX_RETRY_AFTER: u64 = 3600;

/// `Retry-After` where the cause passes by itself within moments: a worker that drains, a bus that
/// reconnects.
pub const SHORT_RETRY: Duration = Duration::from_secs(1);

/// Time that a new connection has for its first bytes. The HTTP library watches headers only once
/// it knows the protocol's version.
pub const OPENING: Duration = Duration::from_secs(30);

/// Bytes after which a connection counts as opened: an HTTP/2 preface, by which the version is told.
pub const OPENING_BYTES: usize = 24;

/// Time between two requests on one connection, and for a request's header. One bound in the HTTP
/// library for both; longer than the 90 s for which Go's and Rust's clients keep idle connections,
/// so that it is they who close them and no request meets a closing one.
pub const HEADER_READ: Duration = Duration::from_secs(120);

/// Time that a client may leave its socket full. The core cancels its stream much earlier; this
/// gets rid of the connection.
pub const WRITE_STALL: Duration = Duration::from_secs(60);

/// Time after which bytes that the client's machine does not acknowledge end the connection, and
/// of silence after which it is asked whether it is there: a laptop that was closed must not hold
/// a slot for the quarter of an hour that TCP tries by itself.
pub const UNACKNOWLEDGED: Duration = Duration::from_secs(30);

/// Time for which a closed connection, or the rest of an HTTP/2 request that has been answered, is still read from,
/// so that a client that is sending a body that nobody wants gets the answer rather than a reset: many clients look
/// for an answer only when they have sent all. Over a slow uplink that takes a while; a connection that only swallows
/// costs next to nothing.
pub const LINGER: Duration = Duration::from_secs(30);

/// Silence of the client that ends it sooner: it has stopped to send, or has vanished.
pub const LINGER_IDLE: Duration = Duration::from_secs(5);

/// Bytes that are read and thrown away in that time: several times the largest body that is taken by default.
pub const LINGER_BYTES: usize = 256 * 1024 * 1024;

/// Streams per HTTP/2 connection. A proxy may carry all of its clients over one connection; each
/// stream's buffers are bounded by its own flow control.
pub const HTTP2_STREAMS: u32 = 10_000;

/// Silence after which an HTTP/2 client is asked whether it is there, and the time that it has to
/// answer.
pub const HTTP2_PING: Duration = Duration::from_secs(20);

/// Bytes of one HTTP/2 stream that wait in memory for a slow client. The library's 400 KB, times
/// 10,000 streams, would be 4 GB.
pub const HTTP2_SEND_BUFFER: usize = 64 * 1024;

/// First and longest pause after the system could not accept a connection (no file descriptors):
/// short, because a descriptor is free as soon as any connection ends.
pub const ACCEPT_PAUSE: std::ops::RangeInclusive<Duration> = Duration::from_millis(5)..=Duration::from_secs(1);

/// Time between the end of the grace period, when the core ends its streams with an error event,
/// and the closing of the connections, so that the event still goes out.
pub const LAST_WORDS: Duration = Duration::from_secs(1);

/// Bytes that are read from a client at once: as many as the system usually has of a large body.
pub const READ_SCRATCH: usize = 64 * 1024;

/// Bytes that are read from a client at once before it is known what it speaks, or while it is being answered: most
/// requests' headers as a whole, so that the HTTP library finds them in one piece.
pub const AHEAD: usize = 4 * 1024;

/// Bytes of a streamed answer that wait in memory for a client's full socket, beside the core's own bound, before no
/// more is taken from the stream.
pub const UNSENT: usize = 64 * 1024;
