//! Server-sent events of a streamed answer.
//!
//! A chunk with a token is a template: a prefix that is made once per stream, the text escaped straight into the
//! buffer, a suffix. A token costs no value tree and no allocation.

use std::marker::PhantomData;
use std::sync::Arc;

use bytes::{BufMut as _, BytesMut};
use serde::Serialize;
use tokenbus_protocol::{Delta, DeltaExtra, Finish, RawObject};

use super::style::{RichDelta, Style};
use crate::answer::events::{DONE, push_failure, push_unnamed};
use crate::answer::json::{self, members, push_escaped, push_members};
use crate::answer::usage::Usage;
use crate::answer::{AnswerError, Encoder, Failure, Identity, Template};
use crate::delta::Tidy;

const CHUNK_END: &[u8] = b"}\n\n";

/// Bytes of most prefixes and suffixes, so that their buffers do not grow.
const USUAL_PREFIX: usize = 256;
const USUAL_SUFFIX: usize = 64;

/// Encodes the chunks of one stream.
#[derive(Debug)]
pub(crate) struct ChunkEncoder<S> {
    identity: Identity,
    fingerprint: Option<String>,
    /// Everything before the first choice.
    prefix: Vec<u8>,
    /// Writes text of the first choice.
    template: Arc<Template>,
    /// What stands between the choices and the closing brace of a chunk without usage.
    no_usage: &'static [u8],
    include_usage: bool,
    choices: Vec<Progress>,
    /// Characters of each choice's text so far, where the style counts them.
    characters: Vec<usize>,
    tidy: Tidy,
    style: PhantomData<S>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Progress {
    begun: bool,
    finished: bool,
}

/// The members with which every chunk begins.
#[derive(Serialize)]
struct Head<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    system_fingerprint: Option<&'a str>,
}

#[derive(Serialize)]
struct Chunk<'a, C> {
    #[serde(flatten)]
    head: Head<'a>,
    choices: &'a [C],
    /// Null where the client asked for the usage and it comes later.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Option<Usage<'a>>>,
}

impl<S: Style> ChunkEncoder<S> {
    /// Begins a stream. `include_usage` is the client's `stream_options.include_usage`: the last chunk then carries
    /// the usage and no choices, and all others carry `"usage":null`.
    pub(crate) fn new(identity: Identity, include_usage: bool) -> Self {
        let mut encoder = Self {
            identity,
            fingerprint: None,
            prefix: Vec::new(),
            template: Arc::new(Template::new("", "")),
            no_usage: if include_usage { b",\"usage\":null" } else { b"" },
            include_usage,
            choices: Vec::new(),
            characters: Vec::new(),
            tidy: Tidy::default(),
            style: PhantomData,
        };
        encoder.prepare();
        encoder
    }

    /// Makes the prefix: at the start, and again when the engine's fingerprint becomes known or changes.
    fn prepare(&mut self) {
        let mut out = BytesMut::with_capacity(USUAL_PREFIX);
        out.extend_from_slice(b"data: ");
        json::push(&mut out, &self.head());
        json::reopen(&mut out);
        out.extend_from_slice(b",\"choices\":[");
        self.prefix = out.to_vec();
        S::push_before_text(0, &mut out);
        let mut after = BytesMut::with_capacity(USUAL_SUFFIX);
        S::push_after_text(0, &mut after);
        self.template = Arc::new(Template::new(&out, [&after, self.no_usage, CHUNK_END].concat()));
    }

    fn head(&self) -> Head<'_> {
        Head {
            id: &self.identity.id,
            object: S::CHUNK,
            created: self.identity.created,
            model: &self.identity.model,
            system_fingerprint: self.fingerprint.as_deref(),
        }
    }

    /// A chunk with one choice that carries no usage.
    fn chunk<'a, C>(&'a self, choice: &'a C) -> Chunk<'a, C> {
        Chunk {
            head: self.head(),
            choices: std::slice::from_ref(choice),
            usage: self.include_usage.then_some(None),
        }
    }

    /// Writes the common case: text and nothing else.
    fn text(&self, delta: &Delta<'_>, out: &mut BytesMut) {
        if delta.text.is_empty() {
            return;
        }
        if delta.choice == 0 {
            return self.template.write(&delta.text, out);
        }
        out.extend_from_slice(&self.prefix);
        S::push_before_text(delta.choice, out);
        push_escaped(out, &delta.text);
        S::push_after_text(delta.choice, out);
        out.extend_from_slice(self.no_usage);
        out.extend_from_slice(CHUNK_END);
    }

    /// Writes a delta with more than text.
    fn rich(&self, piece: &RichDelta<'_>, out: &mut BytesMut) {
        if S::is_silent(piece) {
            return;
        }
        out.extend_from_slice(&self.prefix);
        S::push_choice(piece, out);
        // The engine's usage so far, which a client may ask for in each chunk, stands in place of the null.
        let has_usage = piece.chunk.contains("\"usage\"")
            && RawObject::parse(format!("{{{}}}", piece.chunk).as_bytes())
                .is_ok_and(|more| more.get("usage").is_some());
        if !has_usage {
            out.extend_from_slice(self.no_usage);
        }
        push_members(out, piece.chunk);
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
        if choice >= S::MAX_CHOICES {
            return Err(AnswerError::TooManyChoices(choice));
        }
        let index = usize::try_from(choice).map_err(|_| AnswerError::TooManyChoices(choice))?;
        if self.choices.len() <= index {
            self.choices.resize(index + 1, Progress::default());
        }
        self.choices.get_mut(index).ok_or(AnswerError::TooManyChoices(choice))
    }

    /// Counts the characters of `delta`, and returns how many came before.
    fn count_characters(&mut self, delta: &Delta<'_>) -> usize {
        if !S::COUNTS_CHARACTERS {
            return 0;
        }
        self.characters.resize(self.choices.len(), 0);
        let index = usize::try_from(delta.choice).ok();
        let count = index.and_then(|index| self.characters.get_mut(index));
        count.map_or(0, |count| std::mem::replace(count, *count + delta.text.chars().count()))
    }
}

impl<S: Style> Encoder for ChunkEncoder<S> {
    fn delta(&mut self, delta: &Delta<'_>, out: &mut BytesMut) -> Result<(), AnswerError> {
        let extra = delta.extra.as_deref();
        self.learn_fingerprint(extra);
        let progress = self.progress(delta.choice)?;
        let begins = !std::mem::replace(&mut progress.begun, true);
        // A choice has one finish reason, even if the engine repeats it.
        let reason = delta.finish_reason.as_deref().filter(|_| !progress.finished);
        progress.finished |= reason.is_some();
        let characters = self.count_characters(delta);
        if begins && let Some(choice) = S::opening(delta.choice) {
            push_unnamed(out, &self.chunk(&choice), None);
        }
        if extra.is_none() && reason.is_none() {
            self.text(delta, out);
            return Ok(());
        }
        let none = DeltaExtra::default();
        let extra = extra.unwrap_or(&none);
        let tidied = self.tidy.delta(delta.choice, extra.delta.as_ref(), reason.is_some());
        let piece = RichDelta {
            index: delta.choice,
            text: &delta.text,
            reason,
            extra,
            delta: tidied.as_deref().map_or("", members),
            choice: extra.choice.as_ref().map_or("", members),
            chunk: extra.chunk.as_ref().map_or("", members),
            characters,
        };
        self.rich(&piece, out);
        Ok(())
    }

    fn template(&self) -> Option<Arc<Template>> {
        let first = self.choices.first().filter(|_| S::GIVES_TEMPLATE)?;
        (first.begun && !first.finished).then(|| Arc::clone(&self.template))
    }

    /// Appends the usage when the client asked for it and it is known, the members of the engine's last chunk, and
    /// `[DONE]`. Appends nothing when no choice has begun.
    fn finish(&mut self, finish: &Finish, out: &mut BytesMut) -> Result<(), AnswerError> {
        if !self.choices.iter().any(|choice| choice.begun) {
            return Err(AnswerError::NoAnswer);
        }
        let usage = Usage::of(finish).filter(|_| self.include_usage);
        let more = finish.chunk.as_ref().filter(|json| !members(json).is_empty());
        if usage.is_some() {
            let chunk = Chunk::<()> {
                head: self.head(),
                choices: &[],
                usage: Some(usage),
            };
            push_unnamed(out, &chunk, more);
        } else if more.is_some() {
            // With a choice in it: clients that did not ask for the usage read `choices[0]` of every chunk.
            push_unnamed(out, &self.chunk(&S::blank()), more);
        }
        out.put_slice(DONE);
        Ok(())
    }

    fn fail(&mut self, failure: &Failure<'_>, out: &mut BytesMut) {
        push_failure(failure, out);
    }
}
