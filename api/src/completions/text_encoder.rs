//! Server-sent events of a streamed text completion. The rules are those of `chat/chunk_encoder.rs`; the shapes
//! are OpenAI's older ones.

use bytes::{BufMut as _, BytesMut};
use tokenbus_protocol::{Delta, DeltaExtra, Finish};

use crate::answer::events::{DONE, push_error};
use crate::answer::form::{Encoder, Failure, envelope};
use crate::answer::json::{members, push_members, push_number, push_string};
use crate::answer::usage::push_usage;
use crate::completions::logprobs::in_text_form;
use crate::limits::MAX_TEXT_CHOICES;
use crate::{AnswerError, Identity};

/// Encodes the chunks of one stream.
#[derive(Debug)]
pub(crate) struct TextEncoder {
    identity: Identity,
    fingerprint: Option<String>,
    /// Everything before the first choice.
    prefix: Vec<u8>,
    include_usage: bool,
    choices: Vec<Progress>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Progress {
    begun: bool,
    finished: bool,
    /// Characters of the text so far.
    characters: usize,
}

impl TextEncoder {
    /// Begins a stream; `include_usage` as in a chat.
    pub(crate) fn new(identity: Identity, include_usage: bool) -> Self {
        let mut encoder = Self {
            identity,
            fingerprint: None,
            prefix: Vec::new(),
            include_usage,
            choices: Vec::new(),
        };
        encoder.prepare();
        encoder
    }

    fn prepare(&mut self) {
        let mut out = BytesMut::new();
        out.extend_from_slice(b"data: {\"id\":");
        push_string(&mut out, &self.identity.id);
        out.extend_from_slice(b",\"object\":\"text_completion\",\"created\":");
        push_number(&mut out, self.identity.created);
        out.extend_from_slice(b",\"model\":");
        push_string(&mut out, &self.identity.model);
        if let Some(fingerprint) = &self.fingerprint {
            out.extend_from_slice(b",\"system_fingerprint\":");
            push_string(&mut out, fingerprint);
        }
        out.extend_from_slice(b",\"choices\":[");
        self.prefix = out.to_vec();
    }

    fn progress(&mut self, choice: u32) -> Result<&mut Progress, AnswerError> {
        let index = usize::try_from(choice).unwrap_or(usize::MAX);
        if choice >= MAX_TEXT_CHOICES {
            return Err(AnswerError::TooManyChoices(choice));
        }
        if self.choices.len() <= index {
            self.choices.resize(index + 1, Progress::default());
        }
        self.choices.get_mut(index).ok_or(AnswerError::TooManyChoices(choice))
    }

    fn learn_fingerprint(&mut self, extra: &DeltaExtra) {
        if extra.fingerprint.is_some() && extra.fingerprint != self.fingerprint {
            self.fingerprint.clone_from(&extra.fingerprint);
            self.prepare();
        }
    }

    fn close(&self, extra: &DeltaExtra, out: &mut BytesMut) {
        if self.include_usage {
            out.extend_from_slice(b",\"usage\":null");
        }
        push_members(out, extra.chunk.as_ref());
        out.extend_from_slice(b"}\n\n");
    }
}

impl Encoder for TextEncoder {
    fn delta(&mut self, delta: &Delta<'_>, out: &mut BytesMut) -> Result<(), AnswerError> {
        let none = DeltaExtra::default();
        let extra = delta.extra.as_deref().unwrap_or(&none);
        self.learn_fingerprint(extra);
        let progress = self.progress(delta.choice)?;
        progress.begun = true;
        // One finish reason per choice, whatever the engine repeats.
        let reason = delta.finish_reason.as_deref().filter(|_| !progress.finished);
        progress.finished |= reason.is_some();
        let logprobs = in_text_form(extra.logprobs.as_ref(), progress.characters);
        progress.characters += delta.text.chars().count();
        if delta.text.is_empty() && reason.is_none() && *extra == none {
            return Ok(());
        }
        out.extend_from_slice(&self.prefix);
        out.extend_from_slice(b"{\"text\":");
        push_string(out, &delta.text);
        push_number(out, format_args!(",\"index\":{},\"logprobs\":", delta.choice));
        out.extend_from_slice(logprobs.as_ref().map_or("null", |json| json.get()).as_bytes());
        out.extend_from_slice(b",\"finish_reason\":");
        match reason {
            Some(reason) => push_string(out, reason),
            None => out.extend_from_slice(b"null"),
        }
        push_members(out, extra.delta.as_ref());
        push_members(out, extra.choice.as_ref());
        out.extend_from_slice(b"}]");
        self.close(extra, out);
        Ok(())
    }

    fn finish(&mut self, finish: &Finish, out: &mut BytesMut) -> Result<(), AnswerError> {
        if !self.choices.iter().any(|choice| choice.begun) {
            return Err(AnswerError::NoAnswer);
        }
        let mut usage = BytesMut::new();
        let chunk = finish.chunk.as_ref().filter(|json| !members(json).is_empty());
        if self.include_usage && push_usage(finish, &mut usage) {
            out.extend_from_slice(&self.prefix);
            out.extend_from_slice(b"],\"usage\":");
            out.extend_from_slice(&usage);
            push_members(out, chunk);
            out.extend_from_slice(b"}\n\n");
        } else if chunk.is_some() {
            // With a choice in it: clients that did not ask for usage index `choices[0]` blindly.
            out.extend_from_slice(&self.prefix);
            out.extend_from_slice(br#"{"text":"","index":0,"logprobs":null,"finish_reason":null}]"#);
            if self.include_usage {
                out.extend_from_slice(b",\"usage\":null");
            }
            push_members(out, chunk);
            out.put_slice(b"}\n\n");
        }
        out.extend_from_slice(DONE);
        Ok(())
    }

    fn fail(&mut self, failure: &Failure<'_>, out: &mut BytesMut) {
        push_error(&envelope(failure), out);
    }
}

#[cfg(test)]
#[path = "text_encoder_tests.rs"]
mod tests;
