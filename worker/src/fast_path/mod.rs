//! The fast path of a streamed answer: from the engine's socket to the task that wants the text, past the HTTP library.
//!
//! Through the library a token wakes two tasks, crosses a channel and leaves a small buffer behind. Through the tap it
//! wakes one task, which reads it from the socket.
//!
//! - `tap.rs` is the connection as hyper has it, and the body of a tapped answer.
//! - `line.rs` decides who reads what comes in: hyper, or the reader of the answer.
//!
//! Behind it, `engine/openai/answer/` parses the events. It matches a chunk of plain text against the pattern of the
//! last one (`http-parts`) instead of parsing its JSON, and the outbox appends the text to the open batch of the
//! gateway.
//!
//! # What it may assume
//!
//! - hyper sends one request at a time on a connection and reads its answer to the end before the next.
//! - Only an answer with status 200 over HTTP/1.1, type `text/event-stream`, chunked and without compression or TLS is
//!   tapped. Whatever is not surely such an answer goes to hyper untouched.
//!
//! # What closes it
//!
//! The last chunk of the body: hyper is told that the body was empty, so it may use the connection for its next
//! request. A body that is dropped earlier, malformed chunks or the end of the connection close the connection.
//!
//! # Who owns which bytes
//!
//! 1. The head belongs to hyper, once it is complete. Bytes of the body that came with it belong to the reader.
//! 2. From the head to the last chunk the reader alone reads the socket; hyper's read is parked.
//! 3. Bytes after the last chunk belong to hyper.

pub(crate) mod line;
pub(crate) mod tap;
