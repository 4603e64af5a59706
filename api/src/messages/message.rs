//! The form of an answer of the Messages API.

use bytes::{Bytes, BytesMut};
use tokenbus_protocol::{Delta, Finish};

use super::error;
use super::writer::{Events, Writer};
use crate::answer::form::{Collect, Encoder, Failure, Form};
use crate::translation::blocks::{Blocks, Ending};
use crate::{AnswerError, Identity};

/// In which form one client wants its message.
#[derive(Debug, Clone)]
pub(super) struct Shape {
    stream: bool,
    stops: Stops,
    thoughts: Thoughts,
}

/// What a client sees of the model's thoughts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Thoughts {
    /// All of them.
    Shown,
    /// That there are some.
    Omitted,
}

/// The strings that end an answer.
#[derive(Debug, Clone)]
pub(super) struct Stops(Vec<String>);

impl Stops {
    pub(super) fn new(stops: Vec<String>) -> Self {
        Self(stops)
    }

    /// Anthropic's word for why an answer ended, and the string that ended it.
    pub(super) fn reason<'a>(&self, ending: &'a Ending) -> (&'static str, Option<&'a str>) {
        let stop = ending.stop.as_deref();
        let stop = stop.filter(|stop| self.0.iter().any(|asked| asked == stop));
        match ending.reason.as_deref() {
            Some("length") => ("max_tokens", None),
            Some("content_filter") => ("refusal", None),
            _ if ending.refused => ("refusal", None),
            _ if ending.calls => ("tool_use", None),
            _ if stop.is_some() => ("stop_sequence", stop),
            _ => ("end_turn", None),
        }
    }
}

impl Shape {
    pub(super) fn new(stream: bool, stops: Stops, thoughts: Thoughts) -> Self {
        Self {
            stream,
            stops,
            thoughts,
        }
    }

    fn message(&self, identity: Identity) -> Message {
        Message {
            blocks: Blocks::default(),
            writer: Writer::new(identity, self.thoughts),
            stops: self.stops.clone(),
        }
    }
}

impl Form for Shape {
    fn is_stream(&self) -> bool {
        self.stream
    }

    fn encoder(&self, identity: Identity) -> Box<dyn Encoder> {
        Box::new(self.message(identity))
    }

    fn collector(&self, identity: Identity) -> Box<dyn Collect> {
        Box::new(self.message(identity))
    }

    fn error(&self, failure: &Failure<'_>) -> Bytes {
        error::envelope(failure)
    }
}

/// A message that comes.
#[derive(Debug)]
struct Message {
    blocks: Blocks,
    writer: Writer,
    stops: Stops,
}

impl Encoder for Message {
    fn begin(&mut self, out: &mut BytesMut) {
        self.writer.begin(out);
    }

    fn delta(&mut self, delta: &Delta<'_>, out: &mut BytesMut) -> Result<(), AnswerError> {
        let writer = &mut self.writer;
        self.blocks.delta(delta, &mut Events { writer, out })
    }

    fn finish(&mut self, finish: &Finish, out: &mut BytesMut) -> Result<(), AnswerError> {
        let writer = &mut self.writer;
        let ending = self.blocks.finish(false, &mut Events { writer, out: &mut *out })?;
        let (reason, stop) = self.stops.reason(&ending);
        self.writer.finish(reason, stop, ending.tokens, finish, out);
        Ok(())
    }

    fn fail(&mut self, failure: &Failure<'_>, out: &mut BytesMut) {
        out.extend_from_slice(b"event: error\ndata: ");
        out.extend_from_slice(&error::envelope(failure));
        out.extend_from_slice(b"\n\n");
    }

    fn keep_alive(&self) -> &'static [u8] {
        super::writer::PING
    }
}

impl Collect for Message {
    fn delta(&mut self, delta: &Delta<'_>) -> Result<(), AnswerError> {
        self.blocks.delta(delta, &mut self.writer)
    }

    fn finish(mut self: Box<Self>, finish: &Finish) -> Result<Bytes, AnswerError> {
        let ending = self.blocks.finish(false, &mut self.writer)?;
        let (reason, stop) = self.stops.reason(&ending);
        let mut out = BytesMut::new();
        self.writer.whole(reason, stop, ending.tokens, finish, &mut out);
        Ok(out.freeze())
    }
}

#[cfg(test)]
#[path = "message_tests.rs"]
mod tests;
