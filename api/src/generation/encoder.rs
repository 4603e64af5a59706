//! Server-sent events of a streamed chat completion.
//!
//! A token is a template: a prefix that is made once per stream, the text escaped straight into
//! the buffer, a suffix. No value tree and no allocation per token.

use std::sync::Arc;

use bytes::{BufMut as _, BytesMut};
use tokenbus_protocol::{Delta, DeltaExtra, Finish};

use crate::answer::events::{DONE, push_error};
use crate::answer::form::{Encoder, Failure, Template, envelope};
use crate::answer::json::{members, push_escaped, push_members, push_number, push_string};
use crate::answer::usage::push_usage;
use crate::limits::MAX_CHOICES;
use crate::{AnswerError, Identity};

// The parts of a chunk that carries text of one choice.
const FIRST_CHOICE: &[u8] = b"{\"index\":0,\"delta\":{";
const TEXT_BEGIN: &[u8] = b"\"content\":\"";
const TEXT_END: &[u8] = b"\"},\"logprobs\":null,\"finish_reason\":null}]";
const CHUNK_END: &[u8] = b"}\n\n";

/// Encodes the chunks of one stream.
#[derive(Debug)]
pub struct ChunkEncoder {
    identity: Identity,
    fingerprint: Option<String>,
    // Everything before the first choice.
    prefix: Vec<u8>,
    // Text of the first choice.
    template: Arc<Template>,
    // What goes between the choices and the closing brace of a chunk that carries no usage.
    no_usage: &'static [u8],
    include_usage: bool,
    choices: Vec<Progress>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Progress {
    begun: bool,
    finished: bool,
}

impl ChunkEncoder {
    /// Begins a stream. `include_usage` is the client's `stream_options.include_usage`: a last chunk
    /// with the usage and no choices, and `"usage":null` in all others.
    pub fn new(identity: Identity, include_usage: bool) -> Self {
        let mut encoder = Self {
            identity,
            fingerprint: None,
            prefix: Vec::new(),
            template: Arc::new(Template::new("", "")),
            no_usage: if include_usage { b",\"usage\":null" } else { b"" },
            include_usage,
            choices: Vec::new(),
        };
        encoder.prepare();
        encoder
    }

    // Makes the prefix: at the start, and again should the fingerprint become known or change.
    fn prepare(&mut self) {
        let mut out = BytesMut::new();
        out.extend_from_slice(b"data: {\"id\":");
        push_string(&mut out, &self.identity.id);
        out.extend_from_slice(b",\"object\":\"chat.completion.chunk\",\"created\":");
        push_number(&mut out, self.identity.created);
        out.extend_from_slice(b",\"model\":");
        push_string(&mut out, &self.identity.model);
        if let Some(fingerprint) = &self.fingerprint {
            out.extend_from_slice(b",\"system_fingerprint\":");
            push_string(&mut out, fingerprint);
        }
        out.extend_from_slice(b",\"choices\":[");
        self.prefix = out.to_vec();
        out.extend_from_slice(FIRST_CHOICE);
        out.extend_from_slice(TEXT_BEGIN);
        self.template = Arc::new(Template::new(&out, [TEXT_END, self.no_usage, CHUNK_END].concat()));
    }

    /// Appends the events for `delta`: the choice's role first, when it has just begun.
    ///
    /// # Errors
    /// [`AnswerError::TooManyChoices`] when the choice is none that a request can ask for.
    pub fn delta(&mut self, delta: &Delta<'_>, out: &mut BytesMut) -> Result<(), AnswerError> {
        let extra = delta.extra.as_deref();
        self.learn_fingerprint(extra);
        let progress = self.progress(delta.choice)?;
        let begins = !std::mem::replace(&mut progress.begun, true);
        // One finish reason per choice, whatever the engine repeats.
        let reason = delta.finish_reason.as_deref().filter(|_| !progress.finished);
        progress.finished |= reason.is_some();
        if begins {
            self.open(delta.choice, out);
            out.extend_from_slice(
                b"\"role\":\"assistant\",\"content\":\"\"},\"logprobs\":null,\"finish_reason\":null}]",
            );
            self.close(None, out);
        }
        match extra {
            None if reason.is_none() => self.text(delta, out),
            None => self.rich(delta, &DeltaExtra::default(), reason, out),
            Some(extra) => self.rich(delta, extra, reason, out),
        }
        Ok(())
    }

    // The common case: text and nothing else.
    fn text(&self, delta: &Delta<'_>, out: &mut BytesMut) {
        if delta.text.is_empty() {
            return;
        }
        if delta.choice == 0 {
            return self.template.write(&delta.text, out);
        }
        self.open(delta.choice, out);
        out.extend_from_slice(TEXT_BEGIN);
        push_escaped(out, &delta.text);
        out.extend_from_slice(TEXT_END);
        self.close(None, out);
    }

    fn rich(&self, delta: &Delta<'_>, extra: &DeltaExtra, reason: Option<&str>, out: &mut BytesMut) {
        let inner = extra.delta.as_ref().map_or("", members);
        let outer = extra.choice.as_ref().map_or("", members);
        let chunk = extra.chunk.as_ref().map_or("", members);
        let says_nothing = delta.text.is_empty()
            && inner.is_empty()
            && outer.is_empty()
            && chunk.is_empty()
            && extra.logprobs.is_none()
            && reason.is_none();
        if says_nothing {
            return;
        }
        self.open(delta.choice, out);
        if !delta.text.is_empty() {
            out.extend_from_slice(b"\"content\":\"");
            push_escaped(out, &delta.text);
            out.put_u8(b'"');
            if !inner.is_empty() {
                out.put_u8(b',');
            }
        }
        out.extend_from_slice(inner.as_bytes());
        out.extend_from_slice(b"},\"logprobs\":");
        let logprobs = extra.logprobs.as_ref().map_or("null", |json| json.get());
        out.extend_from_slice(logprobs.as_bytes());
        out.extend_from_slice(b",\"finish_reason\":");
        match reason {
            Some(reason) => push_string(out, reason),
            None => out.extend_from_slice(b"null"),
        }
        push_members(out, extra.choice.as_ref());
        out.extend_from_slice(b"}]");
        self.close(extra.chunk.as_ref(), out);
    }

    /// Appends the end of the stream: the usage when the client asked for it and it is known, what
    /// else the engine's last chunk said, and `[DONE]`.
    ///
    /// # Errors
    /// [`AnswerError::NoAnswer`] when no choice has begun; nothing has been appended then.
    pub fn finish(&mut self, finish: &Finish, out: &mut BytesMut) -> Result<(), AnswerError> {
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
            self.open(0, out);
            out.extend_from_slice(b"},\"logprobs\":null,\"finish_reason\":null}]");
            self.close(chunk, out);
        }
        out.extend_from_slice(DONE);
        Ok(())
    }

    fn open(&self, choice: u32, out: &mut BytesMut) {
        out.extend_from_slice(&self.prefix);
        if choice == 0 {
            out.extend_from_slice(FIRST_CHOICE);
        } else {
            push_number(out, format_args!("{{\"index\":{choice},\"delta\":{{"));
        }
    }

    fn close(&self, chunk: Option<&tokenbus_protocol::RawJson>, out: &mut BytesMut) {
        out.extend_from_slice(self.no_usage);
        push_members(out, chunk);
        out.extend_from_slice(CHUNK_END);
    }

    fn learn_fingerprint(&mut self, extra: Option<&DeltaExtra>) {
        let told = extra.and_then(|extra| extra.fingerprint.as_deref());
        if told.is_some() && told != self.fingerprint.as_deref() {
            self.fingerprint = told.map(str::to_owned);
            self.prepare();
        }
    }

    fn progress(&mut self, choice: u32) -> Result<&mut Progress, AnswerError> {
        if choice >= MAX_CHOICES {
            return Err(AnswerError::TooManyChoices(choice));
        }
        let index = usize::try_from(choice).map_err(|_| AnswerError::TooManyChoices(choice))?;
        if self.choices.len() <= index {
            self.choices.resize(index + 1, Progress::default());
        }
        self.choices.get_mut(index).ok_or(AnswerError::TooManyChoices(choice))
    }
}

impl Encoder for ChunkEncoder {
    fn delta(&mut self, delta: &Delta<'_>, out: &mut BytesMut) -> Result<(), AnswerError> {
        Self::delta(self, delta, out)
    }

    fn template(&self) -> Option<Arc<Template>> {
        let first = self.choices.first()?;
        (first.begun && !first.finished).then(|| Arc::clone(&self.template))
    }

    fn finish(&mut self, finish: &Finish, out: &mut BytesMut) -> Result<(), AnswerError> {
        Self::finish(self, finish, out)
    }

    fn fail(&mut self, failure: &Failure<'_>, out: &mut BytesMut) {
        push_error(&envelope(failure), out);
    }
}

#[cfg(test)]
#[path = "../chat/chunk_encoder_tests.rs"]
mod tests;
