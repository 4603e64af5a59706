//! Joining a stream into one answer, for clients that do not stream.

use bytes::{BufMut as _, Bytes, BytesMut};
use tokenbus_protocol::{Delta, Finish, RawJson};

use crate::answer::form::Collect;
use crate::answer::json::{push_number, push_string};
use crate::answer::usage::push_usage;
use crate::completions::logprobs::in_text_form;
use crate::generation::merge::{Kind, Members};
use crate::limits::{MAX_ANSWER, MAX_CHOICES, MAX_TEXT_CHOICES};
use crate::{AnswerError, Identity};

/// Which API's answer it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Chat,
    /// A text completion.
    Text,
}

impl Shape {
    fn object(self) -> &'static [u8] {
        match self {
            Self::Chat => b"chat.completion",
            Self::Text => b"text_completion",
        }
    }

    fn max_choices(self) -> u32 {
        match self {
            Self::Chat => MAX_CHOICES,
            Self::Text => MAX_TEXT_CHOICES,
        }
    }
}

/// Collects the deltas of one call.
#[derive(Debug)]
pub(crate) struct Collector {
    shape: Shape,
    identity: Identity,
    fingerprint: Option<String>,
    choices: Vec<Choice>,
    chunk: Members,
    bytes: usize,
}

#[derive(Debug)]
struct Choice {
    index: u32,
    text: String,
    /// Characters of the text, counted where they are needed.
    characters: usize,
    message: Members,
    logprobs: Members,
    members: Members,
    finish_reason: Option<String>,
}

impl Choice {
    fn new(index: u32) -> Self {
        Self {
            index,
            text: String::new(),
            characters: 0,
            message: Members::new(Kind::Message),
            logprobs: Members::new(Kind::Logprobs),
            members: Members::new(Kind::Newest),
            finish_reason: None,
        }
    }

    fn push(&self, shape: Shape, out: &mut BytesMut) {
        match shape {
            Shape::Chat => self.push_message(out),
            Shape::Text => {
                out.extend_from_slice(b"{\"text\":");
                push_string(out, &self.text);
                push_number(out, format_args!(",\"index\":{}", self.index));
                self.message.push(out);
            }
        }
        out.extend_from_slice(b",\"logprobs\":");
        if self.logprobs.is_empty() {
            out.extend_from_slice(b"null");
        } else {
            self.logprobs.push_object(out);
        }
        out.extend_from_slice(b",\"finish_reason\":");
        match &self.finish_reason {
            Some(reason) => push_string(out, reason),
            None => out.extend_from_slice(b"null"),
        }
        self.members.push(out);
        out.put_u8(b'}');
    }

    fn push_message(&self, out: &mut BytesMut) {
        push_number(out, format_args!("{{\"index\":{},\"message\":{{", self.index));
        out.extend_from_slice(b"\"role\":\"assistant\",\"content\":");
        // OpenAI's content is null where the message is something else than text.
        let other = ["tool_calls", "function_call", "refusal"];
        if self.text.is_empty() && other.iter().any(|name| self.message.has(name)) {
            out.extend_from_slice(b"null");
        } else {
            push_string(out, &self.text);
        }
        if !self.message.contains("refusal") {
            out.extend_from_slice(b",\"refusal\":null");
        }
        self.message.push(out);
        out.put_u8(b'}');
    }
}

impl Collector {
    /// Begins an answer to a chat.
    pub(crate) fn new(identity: Identity) -> Self {
        Self::shaped(Shape::Chat, identity)
    }

    /// Begins an answer to a text completion.
    pub(crate) fn of_texts(identity: Identity) -> Self {
        Self::shaped(Shape::Text, identity)
    }

    fn shaped(shape: Shape, identity: Identity) -> Self {
        Self {
            shape,
            identity,
            fingerprint: None,
            choices: Vec::new(),
            chunk: Members::new(Kind::Newest),
            bytes: 0,
        }
    }

    /// Adds `delta`.
    ///
    /// # Errors
    /// [`AnswerError`] when the choice is none that a request can ask for, or the answer grows
    /// beyond [`MAX_ANSWER`].
    pub(crate) fn delta(&mut self, delta: &Delta<'_>) -> Result<(), AnswerError> {
        self.count(delta)?;
        let shape = self.shape;
        let choice = self.choice(delta.choice)?;
        let before = choice.characters;
        choice.characters += if shape == Shape::Text {
            delta.text.chars().count()
        } else {
            0
        };
        choice.text.push_str(&delta.text);
        if choice.finish_reason.is_none() {
            choice.finish_reason.clone_from(&delta.finish_reason);
        }
        if let Some(extra) = delta.extra.as_deref() {
            choice.message.absorb(extra.delta.as_ref());
            match shape {
                Shape::Chat => choice.logprobs.absorb(extra.logprobs.as_ref()),
                Shape::Text => {
                    let logprobs = in_text_form(extra.logprobs.as_ref(), before);
                    choice.logprobs.absorb(logprobs.as_deref());
                }
            }
            choice.members.absorb(extra.choice.as_ref());
            self.chunk.absorb(extra.chunk.as_ref());
            if extra.fingerprint.is_some() {
                self.fingerprint.clone_from(&extra.fingerprint);
            }
        }
        Ok(())
    }

    /// The answer as JSON.
    ///
    /// # Errors
    /// [`AnswerError::NoAnswer`] when no choice has begun.
    pub(crate) fn finish(mut self, finish: &Finish) -> Result<Bytes, AnswerError> {
        if self.choices.is_empty() {
            return Err(AnswerError::NoAnswer);
        }
        self.chunk.absorb(finish.chunk.as_ref());
        self.choices.sort_unstable_by_key(|choice| choice.index);
        let mut out = BytesMut::with_capacity(self.bytes.saturating_add(512));
        out.extend_from_slice(b"{\"id\":");
        push_string(&mut out, &self.identity.id);
        out.extend_from_slice(b",\"object\":\"");
        out.extend_from_slice(self.shape.object());
        out.extend_from_slice(b"\",\"created\":");
        push_number(&mut out, self.identity.created);
        out.extend_from_slice(b",\"model\":");
        push_string(&mut out, &self.identity.model);
        out.extend_from_slice(b",\"choices\":[");
        for (n, choice) in self.choices.iter().enumerate() {
            if n > 0 {
                out.put_u8(b',');
            }
            choice.push(self.shape, &mut out);
        }
        out.put_u8(b']');
        let mut usage = BytesMut::new();
        if push_usage(finish, &mut usage) {
            out.extend_from_slice(b",\"usage\":");
            out.extend_from_slice(&usage);
        }
        if let Some(fingerprint) = &self.fingerprint {
            out.extend_from_slice(b",\"system_fingerprint\":");
            push_string(&mut out, fingerprint);
        }
        self.chunk.push(&mut out);
        out.put_u8(b'}');
        Ok(out.freeze())
    }

    fn count(&mut self, delta: &Delta<'_>) -> Result<(), AnswerError> {
        let raw = |json: &Option<RawJson>| json.as_ref().map_or(0, |json| json.get().len());
        let extra = delta.extra.as_deref().map_or(0, |extra| {
            raw(&extra.delta) + raw(&extra.logprobs) + raw(&extra.choice) + raw(&extra.chunk)
        });
        self.bytes = self.bytes.saturating_add(delta.text.len()).saturating_add(extra);
        if self.bytes > MAX_ANSWER {
            return Err(AnswerError::TooLarge);
        }
        Ok(())
    }

    fn choice(&mut self, index: u32) -> Result<&mut Choice, AnswerError> {
        if index >= self.shape.max_choices() {
            return Err(AnswerError::TooManyChoices(index));
        }
        let at = match self.choices.iter().position(|choice| choice.index == index) {
            Some(at) => at,
            None => {
                self.choices.push(Choice::new(index));
                self.choices.len() - 1
            }
        };
        self.choices.get_mut(at).ok_or(AnswerError::TooManyChoices(index))
    }
}

impl Collect for Collector {
    fn delta(&mut self, delta: &Delta<'_>) -> Result<(), AnswerError> {
        Self::delta(self, delta)
    }

    fn finish(self: Box<Self>, finish: &Finish) -> Result<Bytes, AnswerError> {
        Self::finish(*self, finish)
    }
}

#[cfg(test)]
#[path = "collector_tests.rs"]
mod tests;
