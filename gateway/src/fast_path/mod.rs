//! The fast path of plain text: from a worker's message to the client's socket, past the stream's state machine and
//! past the HTTP library.
//!
//! Nearly every frame is text of its stream's current run, next in sequence, and means one thing: deliver it. The
//! demultiplexer does so on the spot. The fast path decides nothing; it never sees a frame that needs a decision.
//!
//! - `lane.rs` says which frames pass and counts what has passed.
//! - `splice.rs` is what the client's side lends a lane: the template of its events, and an outlet.
//! - `chunk_outlet.rs` is that outlet for HTTP/1.1; `wire.rs` is the client's socket under it.
//! - `handover.rs` takes a begun answer out of the HTTP library.
//!
//! `stream/` knows the first two, which know no HTTP. `http/` knows all of them.
//!
//! # What it may assume
//!
//! - A lane belongs to one run. Its reader opens it only when its inbox is empty, so the state machine has seen
//!   everything that came before.
//! - A template writes the same bytes as the answer's encoder would for the same text. The encoder of an answer with
//!   several choices has none.
//! - Only an HTTP/1.1 connection lends an outlet, and only if one thread serves everything: the demultiplexer may then
//!   write to any client's socket. Otherwise the lane writes the text and the client's task sends it.
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
//! 4. When the body has nothing more for now, it goes into the [`handover::Handover`]. When the wire is clean as well,
//!    the connection takes body and socket back and writes the chunks itself (`http/connection/chunked.rs`). The
//!    library gets the socket again for the next request.

pub(crate) mod chunk_outlet;
pub(crate) mod handover;
pub(crate) mod lane;
pub(crate) mod splice;
pub(crate) mod wire;
