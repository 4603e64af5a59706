//! The server-sent events that are the same for chat and text completions.
//!
//! **An error after the first chunk** is the event `data: {"error":{…}}`, then the body ends
//! without `data: [DONE]`. The official Python and Node clients (and LangChain on top of them) look
//! for a member `error` in each event's data, whatever the event's name, and raise an `APIError` with
//! its message, type, param and code. A client that knows no such event sees a stream without
//! finish reason and without `[DONE]`; with a `[DONE]` after it, or with an invented finish reason,
//! it would take half an answer for a whole one.

use bytes::BytesMut;

/// A comment: seen by proxies as life, passed over by every client.
pub(crate) const KEEP_ALIVE: &[u8] = b": keep-alive\n\n";

/// The event that says that the stream is complete.
pub(crate) const DONE: &[u8] = b"data: [DONE]\n\n";

/// Appends the event for a failure after the status has been sent; `envelope` is one line of JSON,
/// `{"error":{…}}`.
pub(crate) fn push_error(envelope: &[u8], out: &mut BytesMut) {
    out.extend_from_slice(b"data: ");
    out.extend_from_slice(envelope);
    out.extend_from_slice(b"\n\n");
}
