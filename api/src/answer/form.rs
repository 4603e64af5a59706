//! What an API makes of a call's output: the seam between the one path through the cluster and the
//! many shapes in which clients want its answers.
//!
//! An API is a translation: its request becomes the body of a call, and a [`Form`] writes what
//! comes back. Nothing here waits, and no API has a path of its own through the cluster.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokenbus_protocol::{Delta, Finish};

use crate::answer::events::KEEP_ALIVE;
use crate::answer::json::{push_escaped, push_string};
use crate::{AnswerError, Identity};

/// The form in which one client wants its answer.
pub trait Form: Send + Sync + std::fmt::Debug {
    /// Whether the answer is streamed.
    fn is_stream(&self) -> bool;

    /// Writes a streamed answer.
    fn encoder(&self, identity: Identity) -> Box<dyn Encoder>;

    /// Collects an answer that is wanted in one piece.
    fn collector(&self, identity: Identity) -> Box<dyn Collect>;

    /// The body of an error that is told instead of an answer, JSON.
    fn error(&self, failure: &Failure<'_>) -> Bytes {
        envelope(failure)
    }
}

/// How a delta that is text and nothing else is written, as long as nothing else has come: what
/// stands before and after the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    before: Box<[u8]>,
    after: Box<[u8]>,
}

impl Template {
    /// A template; the text goes, escaped as the inside of a JSON string, between the two.
    pub fn new(before: impl AsRef<[u8]>, after: impl AsRef<[u8]>) -> Self {
        Self {
            before: before.as_ref().into(),
            after: after.as_ref().into(),
        }
    }

    /// Appends the event for `text`. Inlined, as the lane that calls it for each token lies in another crate.
    #[inline]
    pub fn write(&self, text: &str, out: &mut BytesMut) {
        // Room for a text of which little has to be escaped, as it nearly always is.
        out.reserve(self.before.len() + text.len() + text.len() / 8 + self.after.len());
        out.extend_from_slice(&self.before);
        push_escaped(out, text);
        out.extend_from_slice(&self.after);
    }
}

/// Writes the events of one streamed answer.
pub trait Encoder: Send {
    /// Appends what stands before any output; called once, when the status is sent.
    fn begin(&mut self, _out: &mut BytesMut) {}

    /// Appends the events for `delta`.
    ///
    /// # Errors
    /// [`AnswerError`] when what the worker sent is no answer.
    fn delta(&mut self, delta: &Delta<'_>, out: &mut BytesMut) -> Result<(), AnswerError>;

    /// What [`Encoder::delta`] would do now with text of the first choice and nothing else, where
    /// that is always the same. Asked after each delta.
    fn template(&self) -> Option<Arc<Template>> {
        None
    }

    /// Appends the end of the stream.
    ///
    /// # Errors
    /// [`AnswerError`] when what the worker sent is no answer.
    fn finish(&mut self, finish: &Finish, out: &mut BytesMut) -> Result<(), AnswerError>;

    /// Appends the event for a failure after the status has been sent. Nothing follows.
    fn fail(&mut self, failure: &Failure<'_>, out: &mut BytesMut);

    /// A comment or event that keeps the connection alive.
    fn keep_alive(&self) -> &'static [u8] {
        KEEP_ALIVE
    }
}

/// Collects the deltas of one call into one answer.
pub trait Collect: Send {
    /// Takes a delta in.
    ///
    /// # Errors
    /// [`AnswerError`] when what the worker sent is no answer, or too large.
    fn delta(&mut self, delta: &Delta<'_>) -> Result<(), AnswerError>;

    /// The whole answer, JSON.
    ///
    /// # Errors
    /// [`AnswerError`] when what the worker sent is no answer.
    fn finish(self: Box<Self>, finish: &Finish) -> Result<Bytes, AnswerError>;
}

/// A failure as a client is told of it.
#[derive(Debug, Clone, Copy)]
pub struct Failure<'a> {
    /// The HTTP status that it has, or would have had before the answer's own was sent.
    pub status: u16,
    /// OpenAI's `error.type`.
    pub kind: &'a str,
    /// A sentence.
    pub message: &'a str,
    /// The member of the request that is to blame.
    pub param: Option<&'a str>,
    /// A word for programs.
    pub code: Option<&'a str>,
    /// The id of the request, for APIs that tell it with the error.
    pub request_id: Option<&'a str>,
}

impl<'a> Failure<'a> {
    /// The same, of the request `id`.
    #[must_use]
    pub fn of(self, id: &'a str) -> Self {
        Self {
            request_id: Some(id),
            ..self
        }
    }
}

/// OpenAI's error object as one line of JSON: `{"error":{…}}`.
pub fn envelope(failure: &Failure<'_>) -> Bytes {
    let mut out = BytesMut::with_capacity(128 + failure.message.len());
    let optional = |out: &mut BytesMut, text: Option<&str>| match text {
        Some(text) => push_string(out, text),
        None => out.extend_from_slice(b"null"),
    };
    out.extend_from_slice(b"{\"error\":{\"message\":");
    push_string(&mut out, failure.message);
    out.extend_from_slice(b",\"type\":");
    push_string(&mut out, failure.kind);
    out.extend_from_slice(b",\"param\":");
    optional(&mut out, failure.param);
    out.extend_from_slice(b",\"code\":");
    optional(&mut out, failure.code);
    out.extend_from_slice(b"}}");
    out.freeze()
}
