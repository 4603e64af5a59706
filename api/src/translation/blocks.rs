//! A chat answer as a sequence of blocks: reasoning, text, tool calls, each begun, grown and ended
//! before the next begins.
//!
//! The newer APIs give an answer as a list of items or content blocks, where a chat completion has
//! one text, one reasoning and numbered tool calls whose pieces may come mixed. This is the one
//! place where the second becomes the first, whatever way the engine cut its deltas.

use std::collections::VecDeque;

use tokenbus_protocol::{Delta, DeltaExtra};

use crate::AnswerError;
use crate::limits::{MAX_ANSWER, MAX_CHOICES, MAX_TOOL_CALLS};
use crate::translation::pieces::{CallPiece, Scan, argument_text, elements, matched_stop, push_elements, read};

/// What a block is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Block {
    /// What the model thinks.
    Reasoning,
    /// What it says.
    Text,
    /// Why it does not.
    Refusal,
    /// What it wants to have called.
    Call {
        /// The engine's id of the call; empty where it gave none.
        id: String,
        /// Of the function or tool.
        name: String,
        /// Whether the input is free text rather than JSON.
        custom: bool,
    },
}

/// What is told of the blocks, in order: `open`, any number of `append`, `close`, the next `open`.
pub(crate) trait Sink {
    /// A block begins.
    fn open(&mut self, block: Block);

    /// The open block grows. `logprobs` are the elements of a JSON array, without its brackets.
    fn append(&mut self, text: &str, logprobs: &str);

    /// The open block is complete.
    fn close(&mut self);
}

/// Why an answer ended.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Ending {
    /// The engine's `finish_reason`.
    pub(crate) reason: Option<String>,
    /// The stop string that was met, where the engine tells.
    pub(crate) stop: Option<String>,
    /// Whether the model asks for a call.
    pub(crate) calls: bool,
    /// Whether it refused.
    pub(crate) refused: bool,
    /// Tokens seen: counted, or one for each delta.
    pub(crate) tokens: u64,
}

/// Sorts the deltas of one answer into blocks.
#[derive(Debug, Default)]
pub(crate) struct Blocks {
    current: Current,
    calls: Vec<Call>,
    /// What has to wait until the call that is open is complete.
    waiting: VecDeque<Piece>,
    /// Blank text that has no block yet: engines put line breaks between tool calls.
    blank: String,
    blank_logprobs: String,
    /// The same of reasoning: templates of models that were told not to think leave some.
    blank_reasoning: String,
    begun: bool,
    opened: bool,
    bytes: usize,
    ending: Ending,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Current {
    #[default]
    None,
    Reasoning,
    Text,
    Refusal,
    Call(usize),
}

#[derive(Debug, Default)]
struct Call {
    index: Option<u64>,
    id: String,
    name: String,
    custom: bool,
    state: CallState,
    /// Input that came before the name.
    held: String,
    scan: Scan,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum CallState {
    #[default]
    Waiting,
    Open,
    Closed,
}

#[derive(Debug)]
enum Piece {
    Reasoning(String),
    Text {
        text: String,
        logprobs: String,
    },
    Refusal(String),
    /// Input of the call with this place in the list.
    Call(usize, String),
}

impl Blocks {
    /// Takes `delta` in.
    ///
    /// # Errors
    /// [`AnswerError`] when the choice is none that a request can ask for, or the answer grows
    /// beyond [`MAX_ANSWER`].
    pub(crate) fn delta(&mut self, delta: &Delta<'_>, sink: &mut impl Sink) -> Result<(), AnswerError> {
        if delta.choice >= MAX_CHOICES {
            return Err(AnswerError::TooManyChoices(delta.choice));
        }
        // One choice is asked for; what else an engine sends has no place in these APIs.
        if delta.choice > 0 {
            return Ok(());
        }
        self.begun = true;
        self.count(delta)?;
        let extra = delta.extra.as_deref();
        let members = extra
            .and_then(|extra| extra.delta.as_ref())
            .map(read)
            .unwrap_or_default();
        // The same text under both names, from engines that are about to rename it.
        let reasoning = members.reasoning_content.filter(|text| !text.is_empty());
        if let Some(text) = reasoning.or(members.reasoning).filter(|text| !text.is_empty()) {
            self.take(Piece::Reasoning(text), sink);
        }
        let logprobs = extra.and_then(|extra| extra.logprobs.as_ref()).map(elements);
        let logprobs = logprobs.unwrap_or_default();
        if !delta.text.is_empty() || !logprobs.is_empty() {
            self.text(&delta.text, logprobs, sink);
        }
        if let Some(text) = members.refusal.filter(|text| !text.is_empty()) {
            self.ending.refused = true;
            self.take(Piece::Refusal(text), sink);
        }
        for piece in members.tool_calls.unwrap_or_default() {
            self.call(piece, sink);
        }
        self.note_end(delta, extra);
        Ok(())
    }

    /// Why the engine says that the answer ends, once it has.
    pub(crate) fn reason(&self) -> Option<&str> {
        self.ending.reason.as_deref()
    }

    /// Ends the answer: what waited comes out, and the open block is closed. An answer without any
    /// block gets an empty text where `never_empty` says so.
    ///
    /// # Errors
    /// [`AnswerError::NoAnswer`] when nothing has come at all.
    pub(crate) fn finish(&mut self, never_empty: bool, sink: &mut impl Sink) -> Result<Ending, AnswerError> {
        if !self.begun {
            return Err(AnswerError::NoAnswer);
        }
        loop {
            self.close(sink);
            if self.waiting.is_empty() {
                break;
            }
            self.drain(sink);
        }
        self.nameless(sink);
        if !self.opened && (never_empty || !self.blank.is_empty()) {
            self.open(Current::Text, Block::Text, sink);
            self.append_blank(sink);
            self.close(sink);
        }
        Ok(std::mem::take(&mut self.ending))
    }

    fn count(&mut self, delta: &Delta<'_>) -> Result<(), AnswerError> {
        let extra = delta.extra.as_deref().map_or(0, DeltaExtra::weight);
        self.bytes = self.bytes.saturating_add(delta.text.len()).saturating_add(extra);
        if self.bytes > MAX_ANSWER {
            return Err(AnswerError::TooLarge);
        }
        let piece = delta.extra.as_ref().is_some_and(|extra| extra.delta.is_some());
        self.ending.tokens += u64::from(delta.tokens).max(u64::from(piece || !delta.text.is_empty()));
        Ok(())
    }

    fn note_end(&mut self, delta: &Delta<'_>, extra: Option<&DeltaExtra>) {
        if self.ending.reason.is_none() {
            self.ending.reason.clone_from(&delta.finish_reason);
        }
        if self.ending.stop.is_none() {
            self.ending.stop = extra.and_then(|extra| extra.choice.as_ref()).and_then(matched_stop);
        }
    }

    /// Text, without a copy where nothing stands in its way.
    fn text(&mut self, text: &str, logprobs: &str, sink: &mut impl Sink) {
        if self.current == Current::Text {
            sink.append(text, logprobs);
            return;
        }
        self.take(
            Piece::Text {
                text: text.to_owned(),
                logprobs: logprobs.to_owned(),
            },
            sink,
        );
    }

    fn call(&mut self, piece: CallPiece<'_>, sink: &mut impl Sink) {
        let id = piece.id.filter(|id| !id.is_empty());
        let Some(at) = self.place(piece.index, id.as_deref()) else {
            return;
        };
        self.ending.calls = true;
        let Some(call) = self.calls.get_mut(at) else { return };
        if call.id.is_empty() {
            call.id = id.unwrap_or_default();
        }
        let (name, input) = match (piece.function, piece.custom) {
            (Some(function), _) => (function.name, function.arguments.map(argument_text)),
            (None, Some(custom)) => {
                call.custom = true;
                (custom.name, custom.input)
            }
            (None, None) => (None, None),
        };
        if call.name.is_empty() {
            call.name = name.unwrap_or_default();
        }
        self.take(Piece::Call(at, input.unwrap_or_default()), sink);
    }

    /// Which call a piece belongs to: by its number, else by its id, else the newest.
    fn place(&mut self, index: Option<u64>, id: Option<&str>) -> Option<usize> {
        let at = match (index, id) {
            (Some(_), _) => self.calls.iter().position(|call| call.index == index),
            (None, Some(id)) => self.calls.iter().position(|call| call.id == id),
            (None, None) => self.calls.len().checked_sub(1),
        };
        if at.is_some() || self.calls.len() >= MAX_TOOL_CALLS {
            return at;
        }
        self.calls.push(Call {
            index,
            ..Call::default()
        });
        Some(self.calls.len() - 1)
    }

    /// Writes `piece`, or lets it wait while a call that is not complete is open.
    fn take(&mut self, piece: Piece, sink: &mut impl Sink) {
        if let Current::Call(open) = self.current {
            let same = matches!(piece, Piece::Call(at, _) if at == open);
            let complete = self.calls.get(open).is_some_and(|call| call.scan.complete);
            if !same && !complete {
                self.waiting.push_back(piece);
                return;
            }
        }
        self.write(piece, sink);
        if let Current::Call(open) = self.current
            && !self.waiting.is_empty()
            && self.calls.get(open).is_some_and(|call| call.scan.complete)
        {
            self.drain(sink);
        }
    }

    /// Takes what waits once more; what still has to wait does.
    fn drain(&mut self, sink: &mut impl Sink) {
        for piece in std::mem::take(&mut self.waiting) {
            self.take(piece, sink);
        }
    }

    fn write(&mut self, piece: Piece, sink: &mut impl Sink) {
        match piece {
            Piece::Reasoning(text) => self.write_reasoning(&text, sink),
            Piece::Refusal(text) => {
                self.switch(Current::Refusal, Block::Refusal, sink);
                sink.append(&text, "");
            }
            Piece::Text { text, logprobs } => self.write_text(&text, &logprobs, sink),
            Piece::Call(at, input) => self.write_call(at, &input, sink),
        }
    }

    fn write_reasoning(&mut self, text: &str, sink: &mut impl Sink) {
        if self.current != Current::Reasoning {
            if text.trim().is_empty() {
                self.blank_reasoning.push_str(text);
                return;
            }
            self.switch(Current::Reasoning, Block::Reasoning, sink);
            let blank = std::mem::take(&mut self.blank_reasoning);
            if !blank.is_empty() {
                sink.append(&blank, "");
            }
        }
        sink.append(text, "");
    }

    fn write_text(&mut self, text: &str, logprobs: &str, sink: &mut impl Sink) {
        if self.current != Current::Text {
            if text.trim().is_empty() {
                self.blank.push_str(text);
                push_elements(&mut self.blank_logprobs, logprobs);
                return;
            }
            self.close(sink);
            self.open(Current::Text, Block::Text, sink);
            self.append_blank(sink);
        }
        sink.append(text, logprobs);
    }

    fn append_blank(&mut self, sink: &mut impl Sink) {
        if !self.blank.is_empty() || !self.blank_logprobs.is_empty() {
            sink.append(
                &std::mem::take(&mut self.blank),
                &std::mem::take(&mut self.blank_logprobs),
            );
        }
    }

    fn write_call(&mut self, at: usize, input: &str, sink: &mut impl Sink) {
        let Some(call) = self.calls.get_mut(at) else { return };
        match call.state {
            // Complete JSON was followed by another block: there is no place for more.
            CallState::Closed => return,
            CallState::Open => {
                call.scan.feed(input);
                if !input.is_empty() {
                    sink.append(input, "");
                }
                return;
            }
            CallState::Waiting if call.name.is_empty() => {
                call.held.push_str(input);
                return;
            }
            CallState::Waiting => {}
        }
        self.close(sink);
        self.open_call(at, input, sink);
    }

    fn open_call(&mut self, at: usize, input: &str, sink: &mut impl Sink) {
        let Some(call) = self.calls.get_mut(at) else { return };
        call.state = CallState::Open;
        let held = std::mem::take(&mut call.held);
        call.scan.feed(&held);
        call.scan.feed(input);
        let block = Block::Call {
            id: call.id.clone(),
            name: call.name.clone(),
            custom: call.custom,
        };
        self.open(Current::Call(at), block, sink);
        for text in [held.as_str(), input] {
            if !text.is_empty() {
                sink.append(text, "");
            }
        }
    }

    /// Calls whose name never came are told all the same: the client sees what the engine did.
    fn nameless(&mut self, sink: &mut impl Sink) {
        for at in 0..self.calls.len() {
            let waits = self.calls.get(at).is_some_and(|call| call.state == CallState::Waiting);
            if waits {
                self.open_call(at, "", sink);
                self.close(sink);
            }
        }
    }

    fn switch(&mut self, to: Current, block: Block, sink: &mut impl Sink) {
        if self.current != to {
            self.close(sink);
            self.open(to, block, sink);
        }
    }

    fn open(&mut self, current: Current, block: Block, sink: &mut impl Sink) {
        self.current = current;
        self.opened = true;
        sink.open(block);
    }

    fn close(&mut self, sink: &mut impl Sink) {
        match std::mem::take(&mut self.current) {
            Current::None => return,
            Current::Call(at) => {
                if let Some(call) = self.calls.get_mut(at) {
                    call.state = CallState::Closed;
                }
            }
            Current::Reasoning | Current::Text | Current::Refusal => {}
        }
        sink.close();
    }
}

#[cfg(test)]
#[path = "blocks_tests.rs"]
mod tests;
