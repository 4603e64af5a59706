//! Halves of a character at the ends of chunks: some servers cut an emoji between two of them. Pure.

use std::borrow::Cow;

use serde_json::value::RawValue;
use tokenbus_http_parts::code_unit;

use crate::engine::openai::wire::completion_chunk::Chunk;

const UNKNOWN: char = '\u{fffd}';

/// The first halves that wait for their second, by choice.
#[derive(Debug, Default)]
pub(super) struct Halves {
    waiting: Vec<Half>,
    /// The ends of the chunk that is being read, by choice.
    ends: Vec<(u32, Ends)>,
}

#[derive(Debug)]
struct Half {
    choice: u32,
    high: u16,
    /// Tokens of a chunk that had nothing else in it.
    tokens: u32,
}

/// The halves at the ends of a chunk's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Ends {
    /// A second half at its beginning.
    low: Option<u16>,
    /// A first half at its end.
    high: Option<u16>,
}

impl Ends {
    /// Those of a JSON string.
    fn of(content: &RawValue) -> Self {
        let Some(inner) = content.get().strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else {
            return Self::default();
        };
        let at = inner.len().saturating_sub(6);
        let backslashes = |text: &str| text.bytes().rev().take_while(|byte| *byte == b'\\').count();
        let is_escape = inner.get(..at).is_some_and(|before| backslashes(before) % 2 == 0);
        Self {
            low: code_unit(inner, 0).filter(|unit| (0xDC00..=0xDFFF).contains(unit)),
            high: code_unit(inner, at).filter(|unit| is_escape && (0xD800..=0xDBFF).contains(unit)),
        }
    }
}

impl Halves {
    /// Whether no half waits, and the chunk has none at its ends.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.ends.is_empty()
    }

    /// Takes what `sent` has of halves, for which `chunk` has U+FFFD: the ends of its contents, and the other members
    /// of its deltas, in which the gateway joins them. Call [`Self::join`] for each choice.
    pub(super) fn read<'a>(&mut self, sent: &'a str, chunk: &mut Chunk<'a>) {
        self.ends.clear();
        let Ok(sent) = serde_json::from_str::<Chunk<'_>>(sent) else {
            return;
        };
        for (choice, sent) in chunk.choices.iter_mut().zip(sent.choices) {
            let ends = sent.content.map_or_else(Ends::default, Ends::of);
            if ends != Ends::default() {
                self.ends.push((sent.index, ends));
            }
            choice.delta = sent.delta;
        }
    }

    /// The content of a chunk, in which halves are U+FFFD, joined with the half that waited: whole characters, and
    /// the tokens of that half. A first half at its end waits, unless the choice `ends`.
    pub(super) fn join<'t>(&mut self, choice: u32, text: Cow<'t, str>, ends: bool) -> (Cow<'t, str>, u32) {
        if self.is_empty() {
            return (text, 0);
        }
        let at_ends = self.ends.iter().position(|(index, _)| *index == choice);
        let halves = at_ends.map_or_else(Ends::default, |at| self.ends.swap_remove(at).1);
        if text.is_empty() && !ends {
            return (text, 0);
        }
        let (mut joined, mut tokens) = (text, 0);
        if let Some(half) = self.take(choice) {
            let second = halves
                .low
                .and_then(|low| joined.strip_prefix(UNKNOWN).map(|rest| (low, rest)));
            joined = match second {
                Some((low, rest)) => format!("{}{rest}", character(half.high, low)).into(),
                None => format!("{UNKNOWN}{joined}").into(),
            };
            tokens = half.tokens;
        }
        if let Some(high) = halves.high.filter(|_| !ends)
            && let Some(rest) = joined.strip_suffix(UNKNOWN)
        {
            joined = rest.to_owned().into();
            let tokens = 0;
            self.waiting.push(Half { choice, high, tokens });
        }
        (joined, tokens)
    }

    /// The chunk had nothing but the half that waits now: its tokens count with the other half.
    pub(super) fn owe(&mut self, choice: u32, tokens: u32) {
        if let Some(half) = self.waiting.iter_mut().find(|half| half.choice == choice) {
            half.tokens = tokens;
        }
    }

    /// The end of a choice that said nothing more: what waited, and its tokens.
    pub(super) fn end(&mut self, choice: u32) -> (Cow<'static, str>, u32) {
        let half = self.take(choice);
        half.map_or_else(Default::default, |half| (String::from(UNKNOWN).into(), half.tokens))
    }

    fn take(&mut self, choice: u32) -> Option<Half> {
        let at = self.waiting.iter().position(|half| half.choice == choice)?;
        Some(self.waiting.swap_remove(at))
    }
}

/// The character of two halves.
fn character(high: u16, low: u16) -> char {
    let mut decoded = char::decode_utf16([high, low]);
    decoded.next().and_then(Result::ok).unwrap_or(UNKNOWN)
}

#[cfg(test)]
#[path = "halves_tests.rs"]
mod tests;
