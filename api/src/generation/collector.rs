//! Joins a stream into one answer, for clients that do not stream.

use std::marker::PhantomData;

use bytes::{Bytes, BytesMut};
use serde::Serialize;
use tokenbus_protocol::{Delta, DeltaExtra, Finish};

use super::merge::{Kind, Members};
use super::style::Style;
use crate::answer::usage::Usage;
use crate::answer::{AnswerError, Collect, Identity, json};
use crate::delta::Tidy;
use crate::limits::MAX_ANSWER;

/// Collects the deltas of one call.
#[derive(Debug)]
pub(crate) struct Collector<S> {
    identity: Identity,
    fingerprint: Option<String>,
    choices: Vec<Choice>,
    chunk: Members,
    tidy: Tidy,
    bytes: usize,
    style: PhantomData<S>,
}

/// One choice of the answer, as far as it has come.
#[derive(Debug)]
pub(crate) struct Choice {
    pub(crate) index: u32,
    pub(crate) text: String,
    /// Characters of the text, where the style counts them.
    characters: usize,
    /// Members of the message.
    pub(crate) message: Members,
    logprobs: Members,
    /// Members of the choice around the message.
    pub(crate) members: Members,
    pub(crate) finish_reason: Option<String>,
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

    pub(crate) fn logprobs(&self) -> Option<&Members> {
        Some(&self.logprobs).filter(|logprobs| !logprobs.is_empty())
    }

    fn absorb<S: Style>(&mut self, extra: &DeltaExtra, characters: usize) {
        self.logprobs
            .absorb(S::logprobs(extra.logprobs.as_ref(), characters).as_deref());
        self.members.absorb(extra.choice.as_ref());
    }
}

#[derive(Serialize)]
struct WholeAnswer<'a, C> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    choices: Vec<C>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Usage<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    system_fingerprint: Option<&'a str>,
    #[serde(flatten)]
    members: &'a Members,
}

impl<S: Style> Collector<S> {
    /// Begins an answer.
    pub(crate) fn new(identity: Identity) -> Self {
        Self {
            identity,
            fingerprint: None,
            choices: Vec::new(),
            chunk: Members::new(Kind::Newest),
            tidy: Tidy::default(),
            bytes: 0,
            style: PhantomData,
        }
    }

    fn count(&mut self, delta: &Delta<'_>) -> Result<(), AnswerError> {
        let extra = delta.extra.as_deref().map_or(0, DeltaExtra::weight);
        self.bytes = self.bytes.saturating_add(delta.text.len()).saturating_add(extra);
        if self.bytes > MAX_ANSWER {
            return Err(AnswerError::TooLarge);
        }
        Ok(())
    }

    fn choice(&mut self, index: u32) -> Result<&mut Choice, AnswerError> {
        if index >= S::MAX_CHOICES {
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

impl<S: Style> Collect for Collector<S> {
    fn delta(&mut self, delta: &Delta<'_>) -> Result<(), AnswerError> {
        self.count(delta)?;
        let members = delta.extra.as_deref().and_then(|extra| extra.delta.as_ref());
        let members = self.tidy.delta(delta.choice, members, delta.finish_reason.is_some());
        let choice = self.choice(delta.choice)?;
        choice.message.absorb(members.as_deref());
        let before = choice.characters;
        if S::COUNTS_CHARACTERS {
            choice.characters += delta.text.chars().count();
        }
        choice.text.push_str(&delta.text);
        if choice.finish_reason.is_none() {
            choice.finish_reason.clone_from(&delta.finish_reason);
        }
        if let Some(extra) = delta.extra.as_deref() {
            choice.absorb::<S>(extra, before);
            self.chunk.absorb(extra.chunk.as_ref());
            if extra.fingerprint.is_some() {
                self.fingerprint.clone_from(&extra.fingerprint);
            }
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>, finish: &Finish) -> Result<Bytes, AnswerError> {
        if self.choices.is_empty() {
            return Err(AnswerError::NoAnswer);
        }
        self.chunk.absorb(finish.chunk.as_ref());
        self.choices.sort_unstable_by_key(|choice| choice.index);
        let answer = WholeAnswer {
            id: &self.identity.id,
            object: S::ANSWER,
            created: self.identity.created,
            model: &self.identity.model,
            choices: self.choices.iter().map(S::whole).collect(),
            usage: Usage::of(finish),
            system_fingerprint: self.fingerprint.as_deref(),
            members: &self.chunk,
        };
        let mut out = BytesMut::with_capacity(self.bytes.saturating_add(512));
        json::push(&mut out, &answer);
        Ok(out.freeze())
    }
}

#[cfg(test)]
#[path = "collector_tests.rs"]
mod tests;
