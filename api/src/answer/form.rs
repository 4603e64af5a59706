//! The traits that turn a call's output into an API's answer.
//!
//! An API is a translation: its request becomes the body of a call, and its [`Form`] writes the answer. Nothing here
//! waits, and no API has a path of its own through the cluster.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokenbus_protocol::{Delta, Finish};

use super::error::AnswerError;
use super::events::KEEP_ALIVE;
use super::failure::{Failure, openai_envelope};
use super::identity::Identity;
use super::json::push_escaped;

/// The form in which one client wants its answer.
pub trait Form: Send + Sync + std::fmt::Debug {
    /// Whether the answer is streamed.
    fn is_stream(&self) -> bool;

    /// The type of a streamed answer's content.
    fn stream_type(&self) -> &'static str {
        "text/event-stream; charset=utf-8"
    }

    /// Makes the writer of a streamed answer.
    fn encoder(&self, identity: Identity) -> Box<dyn Encoder>;

    /// Makes the collector of an answer that the client wants in one piece.
    fn collector(&self, identity: Identity) -> Box<dyn Collect>;

    /// The answer for a model whose engines cannot do what the request asks for, if there is one.
    fn estimate(&self) -> Option<Bytes> {
        None
    }

    /// The JSON body of an error that is sent instead of an answer.
    fn error(&self, failure: &Failure<'_>) -> Bytes {
        openai_envelope(failure)
    }
}

/// How long an answer took, for APIs that tell their clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Times {
    /// From the request's arrival until now.
    pub total: Duration,
    /// Until the first output, if there was any.
    pub first: Option<Duration>,
}

/// The event of a delta that is text and nothing else, as the bytes before and after that text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    before: Box<[u8]>,
    after: Box<[u8]>,
}

impl Template {
    /// A template. The text goes between the two, escaped as the inside of a JSON string.
    pub fn new(before: impl AsRef<[u8]>, after: impl AsRef<[u8]>) -> Self {
        Self {
            before: before.as_ref().into(),
            after: after.as_ref().into(),
        }
    }

    /// Appends the event for `text`. Inlined, because the lane that calls it for each token is in another crate.
    #[inline]
    pub fn write(&self, text: &str, out: &mut BytesMut) {
        // Nearly every text needs few escapes; an eighth more leaves room for them.
        out.reserve(self.before.len() + text.len() + text.len() / 8 + self.after.len());
        out.extend_from_slice(&self.before);
        push_escaped(out, text);
        out.extend_from_slice(&self.after);
    }
}

/// Writes the events of one streamed answer.
pub trait Encoder: Send {
    /// Appends the events before any output. Called once, when the status is sent.
    fn begin(&mut self, _out: &mut BytesMut) {}

    /// Appends the events for `delta`.
    ///
    /// # Errors
    /// [`AnswerError`] when the worker's output is no answer.
    fn delta(&mut self, delta: &Delta<'_>, out: &mut BytesMut) -> Result<(), AnswerError>;

    /// What [`Encoder::delta`] would write now for text of the first choice alone, where that is always the same.
    /// Asked for after each delta.
    fn template(&self) -> Option<Arc<Template>> {
        None
    }

    /// Told before [`Encoder::finish`].
    fn times(&mut self, _times: Times) {}

    /// Appends the end of the stream.
    ///
    /// # Errors
    /// [`AnswerError`] when the worker's output is no answer.
    fn finish(&mut self, finish: &Finish, out: &mut BytesMut) -> Result<(), AnswerError>;

    /// Appends the event for a failure after the status has been sent. Nothing follows it.
    fn fail(&mut self, failure: &Failure<'_>, out: &mut BytesMut);

    /// A comment or event that keeps the connection alive.
    fn keep_alive(&self) -> &[u8] {
        KEEP_ALIVE
    }
}

/// Collects the deltas of one call into one answer.
pub trait Collect: Send {
    /// Adds a delta.
    ///
    /// # Errors
    /// [`AnswerError`] when the worker's output is no answer, or too large.
    fn delta(&mut self, delta: &Delta<'_>) -> Result<(), AnswerError>;

    /// Told before [`Collect::finish`].
    fn times(&mut self, _times: Times) {}

    /// The whole answer as JSON.
    ///
    /// # Errors
    /// [`AnswerError`] when the worker's output is no answer.
    fn finish(self: Box<Self>, finish: &Finish) -> Result<Bytes, AnswerError>;
}
