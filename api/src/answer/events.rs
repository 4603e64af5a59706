//! Server-sent events, as JSON on one line each.

use bytes::BytesMut;
use serde::Serialize;
use tokenbus_protocol::RawJson;

use super::failure::{Failure, openai_envelope};
use super::json;

/// A comment. Proxies take it as a sign of life, and every client skips it. One newline ends it: with a second one, some
/// clients (openai-go) would see an event without data, and fail.
pub(crate) const KEEP_ALIVE: &[u8] = b": keep-alive\n";

/// The event that tells a client of OpenAI's older APIs that its stream is complete.
pub(crate) const DONE: &[u8] = b"data: [DONE]\n\n";

/// Appends an event without a name. Its data is `value`, followed by the members of `more`.
pub(crate) fn push_unnamed(out: &mut BytesMut, value: &impl Serialize, more: Option<&RawJson>) {
    out.extend_from_slice(b"data: ");
    json::push_object(out, value, more);
    out.extend_from_slice(b"\n\n");
}

/// Appends the event `name` with `value` as its data.
pub(crate) fn push_named(out: &mut BytesMut, name: &str, value: &impl Serialize) {
    out.extend_from_slice(b"event: ");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\ndata: ");
    json::push(out, value);
    out.extend_from_slice(b"\n\n");
}

/// Appends OpenAI's event for a failure after the status has been sent: `data: {"error":{…}}`.
///
/// The body ends after it, without `data: [DONE]`. The official Python and Node clients (and LangChain on top of
/// them) look for a member `error` in each event's data, whatever the event's name, and raise an `APIError` with its
/// message, type, param and code. A client that does not know this event sees a stream without finish reason and
/// without `[DONE]`. With a `[DONE]`, or with an invented finish reason, it would take half an answer for a whole
/// one.
pub(crate) fn push_failure(failure: &Failure<'_>, out: &mut BytesMut) {
    out.extend_from_slice(b"data: ");
    out.extend_from_slice(&openai_envelope(failure));
    out.extend_from_slice(b"\n\n");
}
