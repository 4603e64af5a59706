//! The fast path of plain text: from a worker's message to the client's socket, past the stream's state machine and
//! past the HTTP library.
//!
//! Nearly every frame is text of its stream's current run, next in sequence, and means one thing: deliver it. The
//! demultiplexer does so on the spot. The fast path decides nothing; it never sees a frame that needs a decision.
//!
//! - `lane.rs` says which frames pass and counts what has passed.
//! - `splice.rs` is what the client's side lends a lane: the template of its events, and an outlet.
//! - `bypass.rs` is that outlet. Under it are two ways past the HTTP library: `wire.rs`, the socket of an HTTP/1.1
//!   connection, and `stream_wire.rs`, one stream of an HTTP/2 connection.
//! - `handover.rs` takes a begun HTTP/1.1 answer out of the HTTP library.
//!
//! `stream/` knows the first two, which know no HTTP. `http/` knows all of them.
//!
//! # What it may assume
//!
//! - A lane belongs to one run. Its reader opens it only when its inbox is empty, so the state machine has seen
//!   everything that came before.
//! - A template writes the same bytes as the answer's encoder would for the same text. The encoder of an answer with
//!   several choices has none.
//! - A connection lends an outlet only if one thread serves everything: the demultiplexer may then write to any client.
//!   Otherwise the lane writes the text and the client's task sends it.
//!
//! # What closes it
//!
//! Any event for the stream: a frame of another kind, another attempt, a hole, a lost worker, an overflow. The driver
//! closes it too before its timer decides anything. The state machine is told of all that passed
//! (`StreamState::on_passed`) before it sees the event.
//!
//! # Who owns which bytes
//!
//! 1. Until the end of the bus message, the text waits in the inbox ([`lane::Passed`]).
//! 2. The flush then offers it to the outlet, which frames it as one chunk. A *clean* wire takes it: nothing waits in
//!    the HTTP library or in the wire. The wire keeps what the system does not take, and sends it before anything
//!    else. A wire that is not clean takes nothing: the text stays in the inbox, and the reader is woken.
//! 3. The answer's head and first events belong to the HTTP library. `Wire::hold` makes the wire unclean before the
//!    library gets bytes; the library's flush makes it clean again.
//!    An HTTP/2 stream is clean when the library has all that the body's task has read; a bus message's events for one
//!    connection then leave together.
//! 4. When the body of an HTTP/1.1 answer has nothing more for now, it goes into the [`handover::Handover`]. When the
//!    wire is clean as well, the connection takes body and socket back and writes the chunks itself
//!    (`http/connection/chunked.rs`). The library gets the socket again for the next request.

pub(crate) mod bypass;
pub(crate) mod handover;
pub(crate) mod lane;
pub(crate) mod splice;
pub(crate) mod stream_wire;
pub(crate) mod wire;
