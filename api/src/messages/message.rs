//! The form of an answer of the Messages API, and the message while it comes.

use bytes::{Bytes, BytesMut};
use tokenbus_protocol::{Delta, Finish};

use super::error::{anthropic_envelope, push_failure};
use super::objects::Stop;
use super::thinking::Thoughts;
use super::writer::{EventWriter, PING, Writer};
use crate::answer::{AnswerError, Collect, Encoder, Failure, Form, Identity};
use crate::translation::blocks::{Blocks, Ending};

/// The form in which one client wants its message.
#[derive(Debug, Clone)]
pub(super) struct MessageForm {
    stream: bool,
    /// The estimated number of the prompt's tokens.
    prompt: u64,
    stops: Stops,
    thoughts: Thoughts,
}

/// The strings that end an answer.
#[derive(Debug, Clone)]
pub(super) struct Stops(Vec<String>);

impl Stops {
    pub(super) fn new(stops: Vec<String>) -> Self {
        Self(stops)
    }

    /// Anthropic's word for why an answer ended, and the string that ended it.
    pub(super) fn reason<'a>(&self, ending: &'a Ending) -> Stop<'a> {
        let stop = ending.stop.as_deref();
        let stop = stop.filter(|stop| self.0.iter().any(|asked| asked == stop));
        let (reason, sequence) = match ending.reason.as_deref() {
            Some("length") => ("max_tokens", None),
            Some("content_filter") => ("refusal", None),
            _ if ending.refused => ("refusal", None),
            _ if ending.calls => ("tool_use", None),
            _ if stop.is_some() => ("stop_sequence", stop),
            _ => ("end_turn", None),
        };
        Stop {
            reason: Some(reason),
            sequence,
        }
    }
}

impl MessageForm {
    pub(super) fn new(stream: bool, prompt: u64, stops: Stops, thoughts: Thoughts) -> Self {
        Self {
            stream,
            prompt,
            stops,
            thoughts,
        }
    }

    fn message(&self, identity: Identity) -> Message {
        Message {
            blocks: Blocks::default(),
            writer: Writer::new(identity, self.thoughts),
            stops: self.stops.clone(),
            prompt: self.prompt,
        }
    }
}

impl Form for MessageForm {
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
        anthropic_envelope(failure)
    }
}

/// A message while it comes.
#[derive(Debug)]
struct Message {
    blocks: Blocks,
    writer: Writer,
    stops: Stops,
    prompt: u64,
}

impl Encoder for Message {
    fn begin(&mut self, out: &mut BytesMut) {
        self.writer.begin(self.prompt, out);
    }

    fn delta(&mut self, delta: &Delta<'_>, out: &mut BytesMut) -> Result<(), AnswerError> {
        let writer = &mut self.writer;
        self.blocks.delta(delta, &mut EventWriter { writer, out })
    }

    fn finish(&mut self, finish: &Finish, out: &mut BytesMut) -> Result<(), AnswerError> {
        let writer = &mut self.writer;
        let mut sink = EventWriter { writer, out: &mut *out };
        let ending = self.blocks.finish(false, &mut sink)?;
        Writer::finish(self.stops.reason(&ending), ending.tokens, finish, out);
        Ok(())
    }

    fn fail(&mut self, failure: &Failure<'_>, out: &mut BytesMut) {
        push_failure(failure, out);
    }

    fn keep_alive(&self) -> &'static [u8] {
        PING
    }
}

impl Collect for Message {
    fn delta(&mut self, delta: &Delta<'_>) -> Result<(), AnswerError> {
        self.blocks.delta(delta, &mut self.writer)
    }

    fn finish(mut self: Box<Self>, finish: &Finish) -> Result<Bytes, AnswerError> {
        let ending = self.blocks.finish(false, &mut self.writer)?;
        Ok(self.writer.whole(self.stops.reason(&ending), ending.tokens, finish))
    }
}

#[cfg(test)]
#[path = "message_tests.rs"]
mod tests;
