//! What stands between a new attempt's output and a client that has the beginning already. Pure.
//!
//! An engine that continues a text looks for stop strings in the new text alone: [`Stops`] watches
//! for one that began in the old. An answer that cannot be continued but is deterministic is
//! generated again from its start: [`Skip`] holds back what the client has, compared byte by byte.

use std::borrow::Cow;

use tokenbus_protocol::{Delta, RawJson, RawObject, ResumeChoice};

use super::blank::Blank;
use crate::engine::Closed;
use crate::engine::openai::limits::MAX_HELD_DELTAS;

/// How the output of one call passes the seam.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) enum Seam {
    /// Everything passes.
    #[default]
    Open,
    /// The client's text ends with the beginning of a stop string.
    Stops(Stops),
    /// The output is still what the client has already.
    Skip(Skip),
    /// The white space at the end of the client's text was not handed over, and may come again.
    Blank(Box<Blank>),
    /// A stop string was completed: nothing more passes. With the tokens that were generated.
    Stopped(u64),
    /// What came is not what the client has: nothing passes.
    Differs {
        /// Whether another worker may do better.
        retryable: bool,
    },
}

/// A text that ends with the beginning of a stop string, and what came after it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Stops {
    stops: Vec<String>,
    /// Stop strings belong to the output (`include_stop_str_in_output`).
    included: bool,
    /// The end of the client's text that may begin a stop string, and the new text. The new text
    /// is not longer than the longest stop string and the chunk that decides.
    text: String,
    /// Bytes of `text` that the client has.
    old: usize,
    held: Vec<Delta<'static>>,
}

/// What is left of the client's part of an answer that is generated again.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Skip {
    reasoning: Left,
    text: Left,
    /// Tokens that the client has, and tokens that came.
    had: u64,
    seen: u64,
    retryable: bool,
}

impl Seam {
    /// The seam of a text that an engine continues.
    pub(crate) fn stops(text: &str, mut stops: Vec<String>, included: bool) -> Self {
        stops.retain(|stop| !stop.is_empty());
        let begun = |stop: &String| {
            let mut ends = stop.char_indices().rev().map(|(at, _)| at).filter(|at| *at > 0);
            ends.find(|at| stop.get(..*at).is_some_and(|begin| text.ends_with(begin)))
        };
        let Some(old) = stops.iter().filter_map(begun).max() else {
            return Self::Open;
        };
        let end = text.get(text.len().saturating_sub(old)..).unwrap_or_default();
        Self::Stops(Stops {
            stops,
            included,
            text: end.to_owned(),
            old,
            held: Vec::new(),
        })
    }

    /// The seam of an answer that is generated again; `retryable` is for the error when it comes
    /// out otherwise.
    pub(crate) fn skip(had: &ResumeChoice, retryable: bool) -> Self {
        Self::Skip(Skip {
            reasoning: Left::new(&had.reasoning),
            text: Left::new(&had.text),
            had: had.tokens,
            seen: 0,
            retryable,
        })
    }

    /// The same behind white space that was not handed over.
    pub(crate) fn behind_blank(self, blank: &str) -> Self {
        if blank.is_empty() {
            return self;
        }
        Self::Blank(Box::new(Blank::new(blank, self)))
    }

    /// Tokens that came again and were held back, where only white space is compared.
    pub(crate) fn repeated(&self) -> u64 {
        match self {
            Self::Blank(blank) => blank.repeated(),
            _ => 0,
        }
    }

    /// Takes output of the engine; what the client is to have goes to `emit`. Look at the seam
    /// after each call: it may have stopped the answer.
    ///
    /// # Errors
    /// [`Closed`] when `emit` is.
    pub(crate) fn pass(
        &mut self,
        delta: Delta<'_>,
        emit: &mut impl FnMut(Delta<'_>) -> Result<(), Closed>,
    ) -> Result<(), Closed> {
        match std::mem::take(self) {
            Self::Open => emit(delta),
            Self::Stops(stops) => {
                let (next, out) = stops.take(delta);
                *self = next;
                out.into_iter().try_for_each(emit)
            }
            Self::Skip(skip) => {
                let (next, out) = skip.take(delta);
                *self = next;
                out.into_iter().try_for_each(emit)
            }
            Self::Blank(mut blank) => {
                let out = blank.take(delta);
                *self = blank.next();
                out.into_iter().try_for_each(emit)
            }
            closed @ (Self::Stopped(_) | Self::Differs { .. }) => {
                *self = closed;
                Ok(())
            }
        }
    }

    /// The same for a seam within a seam.
    pub(super) fn take(&mut self, delta: Delta<'_>) -> Vec<Delta<'static>> {
        let (next, out) = match std::mem::take(self) {
            Self::Open => (Self::Open, vec![delta.into_owned()]),
            Self::Stops(stops) => stops.take(delta),
            Self::Skip(skip) => skip.take(delta),
            Self::Blank(mut blank) => {
                let out = blank.take(delta);
                (blank.next(), out)
            }
            closed @ (Self::Stopped(_) | Self::Differs { .. }) => (closed, Vec::new()),
        };
        *self = next;
        out
    }
}

impl Stops {
    fn take(mut self, delta: Delta<'_>) -> (Seam, Vec<Delta<'static>>) {
        self.text.push_str(&delta.text);
        let finished = delta.finish_reason.is_some();
        self.held.push(delta.into_owned());
        if let Some(end) = self.stopped_at() {
            return self.stop(end);
        }
        if finished || !self.may_stop() || self.held.len() >= MAX_HELD_DELTAS {
            return (Seam::Open, self.held);
        }
        (Seam::Stops(self), Vec::new())
    }

    /// Where the text goes on after each place at which a stop string may have begun.
    fn begins(&self) -> impl Iterator<Item = (usize, &str)> {
        (0..self.old).filter_map(|at| Some((at, self.text.get(at..)?)))
    }

    /// The end of the first stop string that is complete.
    fn stopped_at(&self) -> Option<usize> {
        self.begins().find_map(|(at, text)| {
            let complete = self.stops.iter().filter(|stop| text.starts_with(stop.as_str()));
            complete.map(|stop| at + stop.len()).min()
        })
    }

    fn may_stop(&self) -> bool {
        self.begins()
            .any(|(_, text)| self.stops.iter().any(|stop| stop.starts_with(text)))
    }

    fn stop(self, end: usize) -> (Seam, Vec<Delta<'static>>) {
        let tokens: u64 = self.held.iter().map(|delta| u64::from(delta.tokens)).sum();
        let rest = self.text.get(self.old..end).filter(|_| self.included);
        let delta = Delta {
            choice: self.held.first().map_or(0, |delta| delta.choice),
            text: Cow::Owned(rest.unwrap_or_default().to_owned()),
            tokens: u32::try_from(tokens).unwrap_or(u32::MAX),
            finish_reason: Some("stop".to_owned()),
            ..Delta::default()
        };
        (Seam::Stopped(tokens), vec![delta])
    }
}

impl Skip {
    fn take(mut self, delta: Delta<'_>) -> (Seam, Vec<Delta<'static>>) {
        let differs = Seam::Differs {
            retryable: self.retryable,
        };
        let Some(new) = self.beyond(delta) else {
            return (differs, Vec::new());
        };
        if self.reasoning.is_empty() && self.text.is_empty() {
            return (Seam::Open, new.into_iter().collect());
        }
        (Seam::Skip(self), Vec::new())
    }

    /// The part of `delta` that is new, if any; `None` when it is not what the client has.
    fn beyond(&mut self, mut delta: Delta<'_>) -> Option<Option<Delta<'static>>> {
        self.seen = self.seen.saturating_add(delta.tokens.into());
        let logprobs = delta.extra.as_ref().is_some_and(|extra| extra.logprobs.is_some());
        let mut new = delta.finish_reason.is_some();
        let mut cut = false;
        if let Some(extra) = &mut delta.extra
            && let Some(members) = extra.delta.take()
        {
            let (rest, skipped) = self.members(&members)?;
            cut |= rest.is_some() && skipped;
            new |= rest.is_some();
            extra.delta = rest;
        }
        if !delta.text.is_empty() {
            if !self.reasoning.is_empty() {
                return None;
            }
            let rest = self.text.strip(&delta.text)?;
            cut |= !rest.is_empty() && rest.len() < delta.text.len();
            new |= !rest.is_empty();
            delta.text = Cow::Owned(rest.to_owned());
        }
        let ends_early = delta.finish_reason.is_some() && !(self.reasoning.is_empty() && self.text.is_empty());
        // Which of the logprobs are the client's already, nobody can tell.
        if ends_early || (cut && logprobs) {
            return None;
        }
        if !new {
            return Some(None);
        }
        delta.tokens = delta
            .tokens
            .min(u32::try_from(self.seen.saturating_sub(self.had)).unwrap_or(u32::MAX));
        if cut {
            delta.token_ids.clear();
        }
        Some(Some(delta.into_owned()))
    }

    /// What is new in the members of a delta, and whether something of them is not.
    fn members(&mut self, members: &RawJson) -> Option<(Option<RawJson>, bool)> {
        let object = members.parse::<RawObject>().ok()?;
        let (mut rest, mut any, mut skipped) = (RawObject::default(), false, false);
        for (name, value) in object.iter() {
            if value.get() == "null" {
                continue;
            }
            let piece: Cow<'_, str> = match name {
                "reasoning_content" | "reasoning" => Cow::Owned(serde_json::from_str(value.get()).ok()?),
                // Tool calls and the like: not what the client has.
                _ => return None,
            };
            let new = self.reasoning.strip(&piece)?;
            skipped |= new.len() < piece.len();
            if !new.is_empty() {
                if !self.text.is_empty() {
                    return None;
                }
                rest.set(name, &new).ok()?;
                any = true;
            }
        }
        let rest = if any { Some(rest.to_json().ok()?) } else { None };
        Some((rest, skipped))
    }
}

/// A text of which the front has come again.
#[derive(Debug, Clone, PartialEq)]
struct Left {
    text: String,
    from: usize,
}

impl Left {
    fn new(text: &str) -> Self {
        Self {
            text: text.to_owned(),
            from: 0,
        }
    }

    fn rest(&self) -> &str {
        self.text.get(self.from..).unwrap_or_default()
    }

    fn is_empty(&self) -> bool {
        self.from >= self.text.len()
    }

    /// Takes `piece` from the front; gives what goes beyond the text, `None` where they differ.
    fn strip<'p>(&mut self, piece: &'p str) -> Option<&'p str> {
        if self.rest().starts_with(piece) {
            self.from += piece.len();
            return Some("");
        }
        let beyond = piece.strip_prefix(self.rest())?;
        self.from = self.text.len();
        Some(beyond)
    }
}

#[cfg(test)]
#[path = "seam_tests.rs"]
mod tests;
