//! Answers that an engine gives in one piece and the client gets unchanged: embeddings, rerank, score, tokenize. Only
//! the model's name is replaced by the one that the client used.

use bytes::{Bytes, BytesMut};
use tokenbus_protocol::{Delta, Finish, is_model_mark};

use super::error::AnswerError;
use super::events::push_failure;
use super::failure::Failure;
use super::form::{Collect, Encoder, Form};
use super::identity::Identity;
use super::json::push_string;
use crate::limits::MAX_ANSWER;

/// The form of an answer that is passed on as the engine wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Verbatim;

impl Form for Verbatim {
    fn is_stream(&self) -> bool {
        false
    }

    /// Passes the bytes on as they come. Never called, because the form is never streamed.
    fn encoder(&self, identity: Identity) -> Box<dyn Encoder> {
        Box::new(VerbatimEncoder(identity))
    }

    fn collector(&self, identity: Identity) -> Box<dyn Collect> {
        Box::new(VerbatimCollector {
            identity,
            text: BytesMut::new(),
        })
    }
}

fn push(identity: &Identity, delta: &Delta<'_>, out: &mut BytesMut) {
    if is_model_mark(delta) {
        push_string(out, &identity.model);
    } else {
        out.extend_from_slice(delta.text.as_bytes());
    }
}

#[derive(Debug)]
struct VerbatimCollector {
    identity: Identity,
    text: BytesMut,
}

impl Collect for VerbatimCollector {
    fn delta(&mut self, delta: &Delta<'_>) -> Result<(), AnswerError> {
        if self.text.len() + delta.text.len() > MAX_ANSWER {
            return Err(AnswerError::TooLarge);
        }
        push(&self.identity, delta, &mut self.text);
        Ok(())
    }

    fn finish(self: Box<Self>, _: &Finish) -> Result<Bytes, AnswerError> {
        if self.text.is_empty() {
            return Err(AnswerError::NoAnswer);
        }
        Ok(self.text.freeze())
    }
}

struct VerbatimEncoder(Identity);

impl Encoder for VerbatimEncoder {
    fn delta(&mut self, delta: &Delta<'_>, out: &mut BytesMut) -> Result<(), AnswerError> {
        push(&self.0, delta, out);
        Ok(())
    }

    fn finish(&mut self, _: &Finish, _: &mut BytesMut) -> Result<(), AnswerError> {
        Ok(())
    }

    fn fail(&mut self, failure: &Failure<'_>, out: &mut BytesMut) {
        push_failure(failure, out);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tokenbus_protocol::model_mark;
    use uuid::Uuid;

    use super::*;

    fn text(text: &str) -> Delta<'static> {
        Delta {
            text: text.to_owned().into(),
            ..Delta::default()
        }
    }

    fn collector() -> Box<dyn Collect> {
        Verbatim.collector(Identity::new("embd-", Uuid::nil(), 1, "a \"name\""))
    }

    #[test]
    fn the_pieces_are_joined_and_the_model_is_named_as_it_was_asked_for() {
        let mut collector = collector();
        for delta in [text("{\"data\":[1.50],"), text("\"model\":"), model_mark(), text("}")] {
            collector.delta(&delta).unwrap();
        }
        let answer = collector.finish(&Finish::default()).unwrap();
        assert_eq!(answer, r#"{"data":[1.50],"model":"a \"name\""}"#);
    }

    #[test]
    fn nothing_and_too_much_are_no_answers() {
        assert_eq!(collector().finish(&Finish::default()), Err(AnswerError::NoAnswer));
        let mut collector = collector();
        let piece = text(&"x".repeat(MAX_ANSWER / 2));
        collector.delta(&piece).unwrap();
        collector.delta(&piece).unwrap();
        assert_eq!(collector.delta(&text("x")), Err(AnswerError::TooLarge));
    }
}
