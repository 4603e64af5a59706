//! One answer of the engine as a state machine: events in, deltas out, and how it ended.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use tokenbus_http_parts::{CompletionPattern, Event, PatternMatch, whole_characters};
use tokenbus_protocol::{Delta, DeltaExtra, EngineError, Finish, RawJson, RawObject};

use super::begun::Begun;
use super::content_parts::said;
use super::given_up::given_up;
use super::halves::Halves;
use super::usage::{Usages, with_member};
use crate::engine::Closed;
use crate::engine::openai::error::{self, Secrets};
use crate::engine::openai::request::count::{Counted, Counting};
use crate::engine::openai::request::engine_request::{Asked, Call};
use crate::engine::openai::target::UsageRule;
use crate::engine::openai::wire::completion_chunk::{Choice, Chunk, Members};

/// Whether the answer goes on.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// More events are expected.
    More,
    /// The engine said that it is done.
    Done,
}

/// Why the answer ends early.
#[derive(Debug, PartialEq)]
pub(crate) enum Stopped {
    /// Nobody wants it any more.
    Closed,
    /// The engine failed.
    Failed(EngineError),
}

impl From<Closed> for Stopped {
    fn from(_: Closed) -> Self {
        Self::Closed
    }
}

impl From<EngineError> for Stopped {
    fn from(error: EngineError) -> Self {
        Self::Failed(error)
    }
}

/// What is known of one answer.
#[derive(Debug)]
pub(crate) struct Answer<'s> {
    secrets: &'s Secrets,
    /// The only choice's index for the client, where that is not what the engine says.
    choice: Option<u32>,
    /// Choices that are due.
    due: u32,
    usages: Usages,
    begun: Begun,
    /// Whether the engine said that it is done, but not why.
    unsaid: bool,
    fingerprint: Fingerprint,
    finish: Finish,
    plain: PlainChunk,
    counted: Counted,
    halves: Halves,
    asked: Asked,
    /// The end of a choice, kept until it is known what the engine's next chunk adds to it.
    held: Option<Delta<'static>>,
}

/// The last chunk that carried nothing but text.
#[derive(Debug, Default)]
struct PlainChunk {
    pattern: CompletionPattern,
    /// Its choice, by the client's index and by the engine's.
    choice: u32,
    engine_choice: u32,
}

/// The engine's `system_fingerprint`, which goes out with the first delta that is sent at all.
#[derive(Debug)]
enum Fingerprint {
    Unknown,
    Known(String),
    Told,
}

impl<'s> Answer<'s> {
    /// The answer to `call`.
    pub(crate) fn new(call: &Call, rule: UsageRule, secrets: &'s Secrets) -> Self {
        Self {
            secrets,
            choice: call.choice,
            due: call.choices,
            usages: Usages::new(call, rule),
            begun: Begun::default(),
            unsaid: false,
            fingerprint: Fingerprint::Unknown,
            finish: Finish::default(),
            plain: PlainChunk::default(),
            counted: Counted::new(call.counting),
            halves: Halves::default(),
            asked: call.asked,
            held: None,
        }
    }

    /// Takes one event; what it says of choices goes to `emit`.
    ///
    /// # Errors
    /// [`Stopped`] when the engine reports a failure, sends nonsense, or `emit` is closed.
    pub(crate) fn event(
        &mut self,
        event: Event<'_>,
        emit: &mut impl FnMut(Delta<'_>) -> Result<(), Closed>,
    ) -> Result<Step, Stopped> {
        let engine_choice = self.plain.engine_choice;
        if !event.is_error()
            && self.halves.is_empty()
            && let Some(PatternMatch { text, counter }) = self.plain.pattern.read(event.data.trim_ascii())
            && let Some(tokens) = counter.map_or(Some(1), |counter| self.counted.more(engine_choice, counter, true))
        {
            emit(plain(self.plain.choice, text, tokens))?;
            return Ok(Step::More);
        }
        let data =
            std::str::from_utf8(event.data).map_err(|_| error::nonsense("the engine sent bytes that are no text"))?;
        let sent = data.trim();
        let whole = whole_characters(sent);
        let data = whole.as_ref();
        if event.is_error() {
            return Err(error::from_stream(data, self.secrets).into());
        }
        if data == "[DONE]" {
            return self.done(emit);
        }
        // llama-server begins the answer to several prompts with a `null`.
        if data.is_empty() || data == "null" {
            return Ok(Step::More);
        }
        let mut chunk: Chunk<'_> = match serde_json::from_str(data) {
            Ok(chunk) => chunk,
            Err(_) if error::is_error_object(data) => return Err(error::from_stream(data, self.secrets).into()),
            Err(_) => return Err(error::nonsense("the engine sent an event that is no completion chunk").into()),
        };
        if chunk.is_error || chunk.error.is_some() || (!chunk.has_choices && error::is_error_object(data)) {
            return Err(error::from_stream(data, self.secrets).into());
        }
        if let Cow::Owned(_) = whole {
            self.halves.read(sent, &mut chunk);
        }
        self.chunk(data, chunk, emit)?;
        Ok(Step::More)
    }

    /// The stream ended without `[DONE]`: complete only if every choice has said that it is.
    ///
    /// # Errors
    /// The error for the client when it was cut.
    pub(crate) fn ended(&self) -> Result<(), EngineError> {
        if self.is_complete() {
            Ok(())
        } else {
            Err(error::truncated())
        }
    }

    /// Hands on the end of a choice that was held back; call it when nothing more comes.
    ///
    /// # Errors
    /// [`Closed`] when `emit` is.
    pub(crate) fn flush(&mut self, emit: &mut impl FnMut(Delta<'_>) -> Result<(), Closed>) -> Result<(), Closed> {
        let Some(mut held) = self.held.take() else {
            return Ok(());
        };
        if let Some(fingerprint) = self.take_fingerprint() {
            held.extra.get_or_insert_default().fingerprint = Some(fingerprint);
        }
        emit(held)
    }

    /// What closes the stream; call it once it is complete.
    pub(crate) fn finish(mut self) -> Finish {
        // vLLM tells it beside the usage alone.
        if let Some(fingerprint) = self.take_fingerprint() {
            self.finish.chunk = with_member(self.finish.chunk.take(), "system_fingerprint", &fingerprint);
        }
        Finish {
            chunk: self.finish.chunk,
            ..self.usages.finish()
        }
    }

    /// Whether every choice has said that it is complete.
    pub(crate) fn is_complete(&self) -> bool {
        self.begun.is_complete(self.due)
    }

    /// Whether the engine said that it is done, but not why.
    pub(crate) fn is_unsaid(&self) -> bool {
        self.unsaid
    }

    /// `[DONE]`: the engine says that all is there. Some say no more than that.
    fn done(&mut self, emit: &mut impl FnMut(Delta<'_>) -> Result<(), Closed>) -> Result<Step, Stopped> {
        self.flush(emit)?;
        for (index, reason) in self.begun.finish(self.due) {
            self.unsaid = true;
            let (text, tokens) = self.halves.end(index);
            emit(Delta {
                choice: self.choice.unwrap_or(index),
                text,
                tokens,
                finish_reason: Some(reason.to_owned()),
                ..Delta::default()
            })?;
        }
        Ok(Step::Done)
    }

    /// What a chunk says; it fails with what it has of a choice that the engine gave up.
    fn chunk(
        &mut self,
        data: &str,
        mut chunk: Chunk<'_>,
        emit: &mut impl FnMut(Delta<'_>) -> Result<(), Closed>,
    ) -> Result<(), Stopped> {
        let given_up = given_up(&mut chunk, self.secrets);
        self.output(data, chunk, emit)?;
        given_up.map_or(Ok(()), |error| Err(error.into()))
    }

    fn output(
        &mut self,
        data: &str,
        mut chunk: Chunk<'_>,
        emit: &mut impl FnMut(Delta<'_>) -> Result<(), Closed>,
    ) -> Result<(), Stopped> {
        if let (Some(fingerprint), Fingerprint::Unknown) = (chunk.fingerprint, &self.fingerprint) {
            self.fingerprint = Fingerprint::Known(fingerprint.into_owned());
        }
        if let Some(usage) = chunk.usage {
            self.usages
                .add(usage, chunk.choices.first().map_or(0, |choice| choice.index));
        }
        let counting = self.counted.counting();
        let ends = chunk.choices.iter().all(|choice| choice.finish_reason.is_some());
        // Those of an answer's end come unasked.
        if counting == (Counting::Timings { hidden: true }) && !ends {
            chunk.rest.remove("timings");
        }
        let mut rest = raw(&chunk.rest)?;
        if chunk.choices.is_empty() {
            if let Some(more) = rest {
                self.beside_usage(more);
            }
            return Ok(());
        }
        self.flush(emit)?;
        if let Some(usage) = chunk.usage.filter(|_| self.asked.usage_in_chunks) {
            rest = self.usages.beside(rest, usage);
        }
        let counter = counting.counter(chunk.usage, chunk.timings);
        let counts = chunk.usage.is_none() || counting == Counting::Usage;
        let alone = counts && chunk.choices.len() == 1 && rest.is_none();
        for choice in &chunk.choices {
            let is_plain = self.choice(choice, counter, &mut rest, emit)?;
            if let Some(content) = choice.content.filter(|_| alone && is_plain) {
                let text = content.get().trim_matches('"');
                let plain = &mut self.plain;
                plain.pattern.learn(data.as_bytes(), text, counter.map(RawValue::get));
                plain.choice = self.choice.unwrap_or(choice.index);
                plain.engine_choice = choice.index;
            }
        }
        // A chunk that said nothing else still may carry something for the client.
        if rest.is_some() {
            let choice = chunk
                .choices
                .first()
                .map_or(0, |choice| self.choice.unwrap_or(choice.index));
            let extra = Some(Box::new(DeltaExtra {
                chunk: rest,
                fingerprint: self.take_fingerprint(),
                ..DeltaExtra::default()
            }));
            emit(Delta {
                choice,
                extra,
                ..Delta::default()
            })?;
        }
        Ok(())
    }

    /// What one choice says; whether that was text and nothing else.
    fn choice(
        &mut self,
        choice: &Choice<'_>,
        counter: Option<&RawValue>,
        rest: &mut Option<RawJson>,
        emit: &mut impl FnMut(Delta<'_>) -> Result<(), Closed>,
    ) -> Result<bool, Stopped> {
        self.begun
            .mark(choice.index, choice.finish_reason.is_some(), choice.delta.names());
        let (text, members) = said(choice)?;
        let mut extra = DeltaExtra {
            delta: members,
            logprobs: choice.logprobs.map(RawJson::from),
            choice: raw(&choice.rest)?,
            ..DeltaExtra::default()
        };
        let says = !text.is_empty()
            || choice.finish_reason.is_some()
            || extra.delta.is_some()
            || extra.logprobs.is_some()
            || extra.choice.is_some();
        if !says {
            // The role alone, or nothing: the gateway gives each choice its role itself.
            return Ok(false);
        }
        extra.chunk = rest.take();
        extra.fingerprint = self.take_fingerprint();
        let token_ids = token_ids(choice);
        let tokens = match counter {
            Some(counter) => {
                let says = is_output(choice, &text);
                self.counted.more(choice.index, counter.get(), says)
            }
            None => None,
        };
        let tokens = tokens.unwrap_or_else(|| tokens_listed(choice, &text, token_ids.len()));
        let is_cut = !self.halves.is_empty();
        let (text, more) = self.halves.join(choice.index, text, choice.finish_reason.is_some());
        let tokens = tokens.saturating_add(more);
        if is_cut && text.is_empty() && choice.finish_reason.is_none() && extra == DeltaExtra::default() {
            self.halves.owe(choice.index, tokens);
            return Ok(false);
        }
        let delta = Delta {
            choice: self.choice.unwrap_or(choice.index),
            tokens,
            token_ids,
            text,
            finish_reason: choice.finish_reason.as_deref().map(str::to_owned),
            extra: (extra != DeltaExtra::default()).then(|| Box::new(extra)),
        };
        let is_plain = !is_cut && delta == plain(delta.choice, Cow::Borrowed(&delta.text), delta.tokens);
        if delta.finish_reason.is_some() && self.asked.no_usage_chunk {
            self.flush(emit)?;
            self.held = Some(delta.into_owned());
        } else {
            emit(delta)?;
        }
        Ok(is_plain)
    }

    /// Members of a chunk without choices: where the client gets no chunk for the usage, they belong to the end of
    /// the choice before it.
    fn beside_usage(&mut self, more: RawJson) {
        let Some(held) = &mut self.held else {
            self.finish.chunk = Some(more);
            return;
        };
        let extra = held.extra.get_or_insert_default();
        let members = RawObject::parse(more.get().as_bytes()).unwrap_or_default();
        for (name, value) in members.iter() {
            extra.chunk = with_member(extra.chunk.take(), name, value);
        }
    }

    fn take_fingerprint(&mut self) -> Option<String> {
        match std::mem::replace(&mut self.fingerprint, Fingerprint::Told) {
            Fingerprint::Known(fingerprint) => Some(fingerprint),
            Fingerprint::Told => None,
            Fingerprint::Unknown => {
                self.fingerprint = Fingerprint::Unknown;
                None
            }
        }
    }
}

/// Text and nothing else.
fn plain(choice: u32, text: Cow<'_, str>, tokens: u32) -> Delta<'_> {
    Delta {
        choice,
        text,
        tokens,
        ..Delta::default()
    }
}

/// Several answers that together are one: each is one choice of it.
pub(crate) fn merge(finishes: Vec<Finish>) -> Finish {
    let mut finishes = finishes.into_iter();
    let Some(first) = finishes.next() else {
        return Finish {
            completion_tokens: Some(0),
            ..Finish::default()
        };
    };
    finishes.fold(first, |sum, next| Finish {
        prompt_tokens: sum.prompt_tokens.max(next.prompt_tokens),
        completion_tokens: sum
            .completion_tokens
            .zip(next.completion_tokens)
            .map(|(a, b)| a.saturating_add(b)),
        usage: None,
        chunk: None,
    })
}

pub(crate) fn raw(members: &Members<'_>) -> Result<Option<RawJson>, EngineError> {
    members
        .to_json()
        .map_err(|_| error::nonsense("the engine sent an event that cannot be handed on"))
}

pub(crate) fn token_ids(choice: &Choice<'_>) -> Vec<u32> {
    choice
        .token_ids
        .and_then(|raw| serde_json::from_str(raw.get()).ok())
        .unwrap_or_default()
}

/// Completion tokens in a chunk without a count: those that it lists, otherwise one where it says anything.
pub(crate) fn tokens_listed(choice: &Choice<'_>, text: &str, ids: usize) -> u32 {
    let counted = if ids > 0 {
        Some(ids)
    } else {
        choice.logprobs.and_then(logprobs_count).filter(|count| *count > 0)
    };
    match counted {
        Some(count) => u32::try_from(count).unwrap_or(u32::MAX),
        None => u32::from(is_output(choice, text)),
    }
}

/// Whether a chunk has something of the answer in it.
fn is_output(choice: &Choice<'_>, text: &str) -> bool {
    let output = [
        "reasoning",
        "reasoning_content",
        "tool_calls",
        "function_call",
        "refusal",
        "content",
    ];
    !text.is_empty() || choice.delta.say(&output)
}

fn logprobs_count(logprobs: &RawValue) -> Option<usize> {
    #[derive(Deserialize)]
    struct Logprobs {
        #[serde(default)]
        content: Option<Vec<IgnoredAny>>,
        #[serde(default)]
        tokens: Option<Vec<IgnoredAny>>,
    }
    let logprobs: Logprobs = serde_json::from_str(logprobs.get()).ok()?;
    logprobs.content.or(logprobs.tokens).map(|list| list.len())
}

#[cfg(test)]
#[path = "streamed_tests.rs"]
mod tests;
