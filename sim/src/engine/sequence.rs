//! One running request of the simulated engine.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokenbus_engine::{Closed, Sink};
use tokenbus_protocol::{Delta, DeltaExtra, EngineError, ErrorCode, Finish, RawJson, model_mark};

use super::fixed_answer::{FixedAnswer, Piece};
use super::logprobs;
use super::plan::Plan;
use super::script::Script;

/// State of a sequence after a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StepOutcome {
    /// It has more tokens to generate.
    More,
    /// It stays silent for ever without an end.
    Hangs,
    /// It has ended.
    Ended,
}

/// One request: a token for each of its choices at every step.
pub(super) struct Sequence {
    plan: Plan,
    sink: Option<Box<dyn Sink>>,
    began: bool,
    produced: u64,
    text: String,
}

impl Sequence {
    /// A request before its first token.
    pub(super) fn new(plan: Plan, sink: Box<dyn Sink>) -> Self {
        Self {
            plan,
            sink: Some(sink),
            began: false,
            produced: 0,
            text: String::new(),
        }
    }

    /// The time to first token that the request's script sets.
    pub(super) fn ttft(&self) -> Option<Duration> {
        self.plan.script.ttft_ms.map(Duration::from_millis)
    }

    /// Resolves when the gateway has caught up; `None` when it is not behind.
    pub(super) fn congestion(&self) -> Option<BoxFuture<'static, ()>> {
        self.sink.as_ref().and_then(|sink| sink.congestion())
    }

    /// Generates one token for each choice.
    pub(super) fn step(&mut self) -> StepOutcome {
        let position = self.plan.choices.iter().find(|c| !c.done).map_or(0, |c| c.next);
        let strikes = |at: Option<u64>| at == Some(position) && (self.plan.script.always || !self.plan.resumed);
        if strikes(self.plan.script.hang_after) {
            return StepOutcome::Hangs;
        }
        if strikes(self.plan.script.drop_after) {
            self.sink = None;
            return StepOutcome::Ended;
        }
        if strikes(self.plan.script.error_after) {
            if let Some(sink) = self.sink.take() {
                sink.fail(scripted_error(&self.plan.script));
            }
            return StepOutcome::Ended;
        }
        let emitted = match self.plan.fixed.take() {
            None => self.emit(),
            Some(fixed) => {
                let emitted = self.emit_fixed(&fixed);
                self.plan.fixed = Some(fixed);
                emitted
            }
        };
        if emitted.is_err() {
            self.sink = None;
            return StepOutcome::Ended;
        }
        if self.plan.choices.iter().any(|choice| !choice.done) {
            return StepOutcome::More;
        }
        if let Some(sink) = self.sink.take() {
            sink.finish(Finish {
                prompt_tokens: Some(self.plan.prompt_tokens),
                completion_tokens: Some(self.produced),
                usage: self.plan.script.usage.clone(),
                chunk: None,
            });
        }
        StepOutcome::Ended
    }

    /// Emits the next piece of each choice, or the whole of a document.
    fn emit_fixed(&mut self, fixed: &FixedAnswer) -> Result<(), Closed> {
        let Some(sink) = self.sink.as_mut() else {
            return Err(Closed);
        };
        let first = !std::mem::replace(&mut self.began, true);
        for choice in self.plan.choices.iter_mut().filter(|choice| !choice.done) {
            let index = choice.index;
            if first && let Some(extra) = reasoning(&self.plan.script) {
                self.produced += 1;
                sink.delta(Delta {
                    choice: index,
                    tokens: 1,
                    extra: Some(extra),
                    ..Delta::default()
                })?;
            }
            let Some(finish_reason) = fixed.finish_reason else {
                fixed
                    .pieces
                    .iter()
                    .try_for_each(|piece| sink.delta(delta(index, piece, 0)))?;
                choice.done = true;
                continue;
            };
            let at = usize::try_from(choice.next).unwrap_or(usize::MAX);
            let mut delta = fixed
                .pieces
                .get(at)
                .map(|piece| delta(index, piece, 1))
                .unwrap_or_default();
            choice.next += 1;
            if choice.next >= self.plan.max {
                let whole = at + 1 >= fixed.pieces.len();
                delta.finish_reason = Some(if whole { finish_reason } else { "length" }.to_owned());
                choice.done = true;
            }
            delta.choice = index;
            self.produced += u64::from(delta.tokens);
            sink.delta(delta)?;
        }
        Ok(())
    }

    fn emit(&mut self) -> Result<(), Closed> {
        let Some(sink) = self.sink.as_mut() else {
            return Err(Closed);
        };
        let script = &self.plan.script;
        let first = !std::mem::replace(&mut self.began, true) && !self.plan.resumed;
        for choice in self.plan.choices.iter_mut().filter(|choice| !choice.done) {
            let index = choice.index;
            if first && let Some(extra) = reasoning(script) {
                self.produced += 1;
                sink.delta(Delta {
                    choice: index,
                    tokens: 1,
                    extra: Some(extra),
                    ..Delta::default()
                })?;
            }
            if first && let Some(text) = self.plan.echoes.get(usize::try_from(index).unwrap_or(usize::MAX)) {
                sink.delta(Delta {
                    choice: index,
                    text: Cow::Borrowed(text),
                    ..Delta::default()
                })?;
                choice.delivered += if script.echo { 0 } else { text.len() };
            }
            self.text.clear();
            let (mut tokens, mut finish_reason) = (1, None);
            if script.echo {
                let body = String::from_utf8_lossy(&self.plan.body);
                self.text.push_str(body.get(choice.delivered..).unwrap_or_default());
                finish_reason = Some("stop".to_owned());
            } else if choice.next < self.plan.max {
                // Writing to a String cannot fail.
                let _ = write!(self.text, "t{} ", choice.next);
                choice.next += 1;
            } else {
                // An earlier attempt delivered all of it but the end.
                tokens = 0;
            }
            if choice.next >= self.plan.max || script.echo {
                let length = || {
                    script
                        .finish_reason
                        .clone()
                        .unwrap_or_else(|| self.plan.at_end.to_owned())
                };
                finish_reason = finish_reason.or_else(|| Some(length()));
                choice.done = true;
            }
            self.produced += u64::from(tokens);
            let mut extra = if first { first_extra(script) } else { None };
            if let (Some(top), None) = (self.plan.logprobs, &script.logprobs) {
                let logprobs = logprobs::of(&self.text, top, self.plan.is_text, choice.delivered);
                extra.get_or_insert_default().logprobs = logprobs;
                choice.delivered += self.text.len();
            }
            sink.delta(Delta {
                choice: index,
                text: Cow::Borrowed(&self.text),
                tokens,
                token_ids: Vec::new(),
                finish_reason,
                extra,
            })?;
        }
        Ok(())
    }
}

fn delta(choice: u32, piece: &Piece, tokens: u32) -> Delta<'static> {
    let mut delta = match piece {
        Piece::Text(text) => Delta {
            text: Cow::Owned(text.clone()),
            ..Delta::default()
        },
        Piece::Members(members) => Delta {
            extra: Some(Box::new(DeltaExtra {
                delta: Some(members.clone()),
                ..DeltaExtra::default()
            })),
            ..Delta::default()
        },
        Piece::Mark => model_mark(),
    };
    (delta.choice, delta.tokens) = (choice, tokens);
    delta
}

fn reasoning(script: &Script) -> Option<Box<DeltaExtra>> {
    #[derive(serde::Serialize)]
    struct Reasoning<'a> {
        reasoning_content: &'a str,
    }
    let reasoning_content = script.reasoning.as_deref()?;
    let delta = RawJson::from_serialize(&Reasoning { reasoning_content }).ok()?;
    Some(Box::new(DeltaExtra {
        delta: Some(delta),
        ..DeltaExtra::default()
    }))
}

fn first_extra(script: &Script) -> Option<Box<DeltaExtra>> {
    let extra = DeltaExtra {
        delta: script.delta.clone(),
        logprobs: script.logprobs.clone(),
        choice: script.choice.clone(),
        chunk: script.chunk.clone(),
        fingerprint: script.fingerprint.clone(),
    };
    (extra != DeltaExtra::default()).then(|| Box::new(extra))
}

fn scripted_error(script: &Script) -> EngineError {
    EngineError {
        code: script.error_code.unwrap_or(ErrorCode::Internal),
        message: script
            .error_message
            .clone()
            .unwrap_or_else(|| "A scripted error".to_owned()),
        param: None,
        engine_code: None,
        retryable: script.retryable,
        retry_after_ms: script.retry_after_ms,
    }
}

#[cfg(test)]
#[path = "sequence_tests.rs"]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
pub(super) mod tests;
