//! What differs between the answers of chats and of text completions.

use std::borrow::Cow;
use std::fmt;

use bytes::BytesMut;
use serde::Serialize;
use tokenbus_protocol::{DeltaExtra, RawJson};

use super::collector::Choice;

/// One of the two APIs, as its answers are written.
pub(crate) trait Style: fmt::Debug + Send + Sync + 'static {
    /// `object` of a chunk.
    const CHUNK: &'static str;
    /// `object` of a whole answer.
    const ANSWER: &'static str;
    /// The most choices that one request can ask for.
    const MAX_CHOICES: u32;
    /// Whether log probabilities name the characters before each token. The characters are counted then.
    const COUNTS_CHARACTERS: bool;
    /// Whether plain text may be written without the encoder.
    const GIVES_TEMPLATE: bool;

    /// The choice of a chunk that comes before the first delta of choice `index`, if there is such a chunk.
    fn opening(index: u32) -> Option<impl Serialize>;

    /// The choice of a chunk that carries no output.
    fn blank() -> impl Serialize;

    /// Appends the part of a choice that stands before its text, where the choice carries text alone.
    fn push_before_text(index: u32, out: &mut BytesMut);

    /// Appends the part behind that text, and the end of the array of choices.
    fn push_after_text(index: u32, out: &mut BytesMut);

    /// Whether `piece` makes no chunk.
    fn is_silent(piece: &RichDelta<'_>) -> bool;

    /// Appends the choice for `piece`, and the end of the array of choices.
    fn push_choice(piece: &RichDelta<'_>, out: &mut BytesMut);

    /// Log probabilities in the form of this API. `characters` of the choice's text come before them.
    fn logprobs(logprobs: Option<&RawJson>, characters: usize) -> Option<Cow<'_, RawJson>>;

    /// A choice of a whole answer.
    fn whole(choice: &Choice) -> impl Serialize;
}

/// A delta that is more than text, in parts.
#[derive(Debug)]
pub(crate) struct RichDelta<'a> {
    pub(crate) index: u32,
    pub(crate) text: &'a str,
    /// Why the choice ends, when this delta ends it.
    pub(crate) reason: Option<&'a str>,
    pub(crate) extra: &'a DeltaExtra,
    /// Members of the delta, of the choice around it and of the chunk, without braces.
    pub(crate) delta: &'a str,
    pub(crate) choice: &'a str,
    pub(crate) chunk: &'a str,
    /// Characters of the choice's text before this delta.
    pub(crate) characters: usize,
}
