//! The answer of a chat or a generation while it comes.

use std::sync::Arc;

use bytes::{BufMut as _, Bytes, BytesMut};
use tokenbus_protocol::{Delta, DeltaExtra, Finish};

use super::error::ollama_envelope;
use super::lines::{End, Head, Kind, Piece};
use super::tool_calls::whole;
use crate::answer::{AnswerError, Collect, Encoder, Failure, Form, Identity, Template, Times};
use crate::delta::Tidy;
use crate::limits::{MAX_ANSWER, MAX_CHOICES};
use crate::translation::pieces::{elements, push_elements, read};
use crate::translation::streamed_calls::StreamedCalls;

/// The form in which one client wants its answer.
#[derive(Debug, Clone)]
pub(super) struct OllamaForm {
    pub(super) kind: Kind,
    pub(super) stream: bool,
    /// The model, by the name that the client used.
    pub(super) model: String,
}

impl OllamaForm {
    fn answer(&self, identity: &Identity) -> Answer {
        let head = Head::new(self.kind, self.model.clone(), identity.created);
        let template = Arc::new(head.template());
        let mut keep_alive = BytesMut::new();
        template.write("", &mut keep_alive);
        Answer {
            head,
            template,
            keep_alive: keep_alive.freeze(),
            tidy: Tidy::default(),
            calls: StreamedCalls::default(),
            whole: Whole::default(),
            reason: None,
            begun: false,
            bytes: 0,
            times: Times::default(),
        }
    }
}

impl Form for OllamaForm {
    fn is_stream(&self) -> bool {
        self.stream
    }

    fn stream_type(&self) -> &'static str {
        "application/x-ndjson"
    }

    fn encoder(&self, identity: Identity) -> Box<dyn Encoder> {
        Box::new(self.answer(&identity))
    }

    fn collector(&self, identity: Identity) -> Box<dyn Collect> {
        Box::new(self.answer(&identity))
    }

    fn error(&self, failure: &Failure<'_>) -> Bytes {
        ollama_envelope(failure)
    }
}

/// An answer while it comes.
#[derive(Debug)]
struct Answer {
    head: Head,
    template: Arc<Template>,
    /// A line without text. Clients parse every line, so there is no comment, and an empty line is an error.
    keep_alive: Bytes,
    tidy: Tidy,
    calls: StreamedCalls,
    /// What has come of an answer in one piece.
    whole: Whole,
    reason: Option<String>,
    begun: bool,
    /// What is kept, in bytes.
    bytes: usize,
    times: Times,
}

#[derive(Debug, Default)]
struct Whole {
    text: String,
    thinking: String,
    logprobs: String,
}

impl Answer {
    /// Reads a delta that is more than text. Its tool calls are kept, everything else is for `write`.
    fn rich(&mut self, delta: &Delta<'_>, write: impl FnOnce(&mut Self, &Piece<'_>)) -> Result<(), AnswerError> {
        if let Some(reason) = &delta.finish_reason {
            self.reason.get_or_insert_with(|| reason.clone());
        }
        let extra = delta.extra.as_deref();
        let members = extra.and_then(|extra| extra.delta.as_ref());
        let members = self.tidy.delta(0, members, delta.finish_reason.is_some());
        let members = members.as_deref().map(read).unwrap_or_default();
        for piece in members.tool_calls.unwrap_or_default() {
            let Some((at, input)) = self.calls.add(piece) else {
                continue;
            };
            self.keep(input.len())?;
            if let Some(call) = self.calls.get_mut(at) {
                call.held.push_str(&input);
            }
        }
        // Engines that are renaming the member send the same text under both names.
        let thinking = members.reasoning_content.filter(|text| !text.is_empty());
        let thinking = thinking.or(members.reasoning).unwrap_or_default();
        // Ollama has no member for a refusal.
        let refused = members.refusal.map(|refusal| format!("{}{refusal}", delta.text));
        let logprobs = extra.and_then(|extra| extra.logprobs.as_ref()).map(elements);
        let piece = Piece {
            text: refused.as_deref().unwrap_or(&delta.text),
            thinking: &thinking,
            logprobs: logprobs.unwrap_or_default(),
            calls: &[],
        };
        if !(piece.text.is_empty() && piece.thinking.is_empty() && piece.logprobs.is_empty()) {
            write(self, &piece);
        }
        Ok(())
    }

    fn keep(&mut self, bytes: usize) -> Result<(), AnswerError> {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > MAX_ANSWER {
            return Err(AnswerError::TooLarge);
        }
        Ok(())
    }

    /// Whether the delta is of the one choice that this API has.
    fn is_mine(&mut self, delta: &Delta<'_>) -> Result<bool, AnswerError> {
        if delta.choice >= MAX_CHOICES {
            return Err(AnswerError::TooManyChoices(delta.choice));
        }
        let mine = delta.choice == 0;
        self.begun |= mine;
        Ok(mine)
    }

    fn end(&self, finish: &Finish) -> Result<End<'static>, AnswerError> {
        if !self.begun {
            return Err(AnswerError::NoAnswer);
        }
        Ok(End::new(self.reason.as_deref(), finish, self.times))
    }
}

fn is_plain(delta: &Delta<'_>) -> bool {
    delta.extra.is_none() && delta.finish_reason.is_none()
}

impl Encoder for Answer {
    fn delta(&mut self, delta: &Delta<'_>, out: &mut BytesMut) -> Result<(), AnswerError> {
        if !self.is_mine(delta)? {
            return Ok(());
        }
        if is_plain(delta) {
            if !delta.text.is_empty() {
                self.template.write(&delta.text, out);
            }
            return Ok(());
        }
        self.rich(delta, |answer, piece| answer.head.push_line(piece, None, out))
    }

    fn template(&self) -> Option<Arc<Template>> {
        self.begun.then(|| Arc::clone(&self.template))
    }

    fn times(&mut self, times: Times) {
        self.times = times;
    }

    fn finish(&mut self, finish: &Finish, out: &mut BytesMut) -> Result<(), AnswerError> {
        let end = self.end(finish)?;
        let calls = whole(&self.calls);
        if !calls.is_empty() {
            let piece = Piece {
                calls: &calls,
                ..Piece::default()
            };
            self.head.push_line(&piece, None, out);
        }
        self.head.push_line(&Piece::default(), Some(end), out);
        Ok(())
    }

    fn fail(&mut self, failure: &Failure<'_>, out: &mut BytesMut) {
        out.extend_from_slice(&ollama_envelope(failure));
        out.put_u8(b'\n');
    }

    fn keep_alive(&self) -> &[u8] {
        &self.keep_alive
    }
}

impl Collect for Answer {
    fn delta(&mut self, delta: &Delta<'_>) -> Result<(), AnswerError> {
        if !self.is_mine(delta)? {
            return Ok(());
        }
        let extra = delta.extra.as_deref().map_or(0, DeltaExtra::weight);
        self.keep(delta.text.len().saturating_add(extra))?;
        if is_plain(delta) {
            self.whole.text.push_str(&delta.text);
            return Ok(());
        }
        self.rich(delta, |answer, piece| {
            answer.whole.text.push_str(piece.text);
            answer.whole.thinking.push_str(piece.thinking);
            push_elements(&mut answer.whole.logprobs, piece.logprobs);
        })
    }

    fn times(&mut self, times: Times) {
        self.times = times;
    }

    fn finish(self: Box<Self>, finish: &Finish) -> Result<Bytes, AnswerError> {
        let end = self.end(finish)?;
        let calls = whole(&self.calls);
        let piece = Piece {
            text: &self.whole.text,
            thinking: &self.whole.thinking,
            calls: &calls,
            logprobs: &self.whole.logprobs,
        };
        let mut out = BytesMut::with_capacity(512 + self.whole.text.len());
        self.head.push(&piece, Some(end), &mut out);
        Ok(out.freeze())
    }
}

#[cfg(test)]
#[path = "answer_tests.rs"]
mod tests;
