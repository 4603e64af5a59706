//! A chat answer as a sequence of blocks: reasoning, text and tool calls. Each block ends before the next begins.
//!
//! A chat completion has one text, one reasoning and numbered tool calls, whose pieces may come mixed. The newer APIs
//! have a list of items or content blocks instead. This is the one place that turns a chat completion into such a
//! list, however the engine cuts its deltas.

use std::collections::VecDeque;

use tokenbus_protocol::{Delta, DeltaExtra};

use super::pieces::{CallPiece, elements, matched_stop, push_elements, read};
use super::streamed_calls::{CallState, StreamedCalls};
use crate::answer::AnswerError;
use crate::delta::Tidy;
use crate::limits::{MAX_ANSWER, MAX_CHOICES};

/// The beginning of a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Block {
    /// The model's reasoning.
    Reasoning,
    /// The model's text.
    Text,
    /// Why the model refuses to answer.
    Refusal,
    /// A tool call.
    Call {
        /// The engine's id of the call; empty when it gave none.
        id: String,
        /// The name of the function or tool.
        name: String,
        /// Whether the input is free text rather than JSON.
        custom: bool,
    },
}

/// Receives the blocks in order: `open`, any number of `append`, `close`, then the next `open`.
pub(crate) trait BlockSink {
    /// A block begins.
    fn open(&mut self, block: Block);

    /// The open block grows. `logprobs` are the elements of a JSON array, without brackets.
    fn append(&mut self, text: &str, logprobs: &str);

    /// The open block is complete.
    fn close(&mut self);
}

/// Why an answer ended.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Ending {
    /// The engine's `finish_reason`.
    pub(crate) reason: Option<String>,
    /// The stop string that ended the answer, if the engine says.
    pub(crate) stop: Option<String>,
    /// Whether the model calls a tool.
    pub(crate) calls: bool,
    /// Whether the model refused.
    pub(crate) refused: bool,
    /// The tokens that came: by the engine's count, or one for each delta.
    pub(crate) tokens: u64,
}

/// Sorts the deltas of one answer into blocks.
#[derive(Debug, Default)]
pub(crate) struct Blocks {
    current: Current,
    tidy: Tidy,
    calls: StreamedCalls,
    /// Pieces that wait until the open call is complete.
    waiting: VecDeque<Piece>,
    /// Blank text without a block: engines put line breaks between tool calls.
    blank: String,
    blank_logprobs: String,
    /// Blank reasoning without a block: chat templates leave some when thinking is disabled.
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

#[derive(Debug)]
enum Piece {
    Reasoning(String),
    Text {
        text: String,
        logprobs: String,
    },
    Refusal(String),
    /// Input of the call at this place in the list.
    Call(usize, String),
}

impl Blocks {
    /// Adds `delta`.
    ///
    /// # Errors
    /// [`AnswerError`] when no request can ask for the delta's choice, or when the answer grows beyond
    /// [`MAX_ANSWER`].
    pub(crate) fn delta(&mut self, delta: &Delta<'_>, sink: &mut impl BlockSink) -> Result<(), AnswerError> {
        if delta.choice >= MAX_CHOICES {
            return Err(AnswerError::TooManyChoices(delta.choice));
        }
        // The request asked for one choice, and these APIs have no place for another.
        if delta.choice > 0 {
            return Ok(());
        }
        self.begun = true;
        self.count(delta)?;
        let extra = delta.extra.as_deref();
        let members = extra.and_then(|extra| extra.delta.as_ref());
        let members = self.tidy.delta(0, members, delta.finish_reason.is_some());
        let members = members.as_deref().map(read).unwrap_or_default();
        // Engines that are renaming the member send the same text under both names.
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

    /// The engine's finish reason, once it has come.
    pub(crate) fn reason(&self) -> Option<&str> {
        self.ending.reason.as_deref()
    }

    /// Ends the answer: writes the pieces that waited, and closes the open block. With `never_empty`, an answer
    /// without a block gets an empty text.
    ///
    /// # Errors
    /// [`AnswerError::NoAnswer`] when no delta has come.
    pub(crate) fn finish(&mut self, never_empty: bool, sink: &mut impl BlockSink) -> Result<Ending, AnswerError> {
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

    /// Adds text, without a copy while a text block is open.
    fn text(&mut self, text: &str, logprobs: &str, sink: &mut impl BlockSink) {
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

    fn call(&mut self, piece: CallPiece, sink: &mut impl BlockSink) {
        if let Some((at, input)) = self.calls.add(piece) {
            self.ending.calls = true;
            self.take(Piece::Call(at, input), sink);
        }
    }

    /// Writes `piece`, or lets it wait while an incomplete call is open.
    fn take(&mut self, piece: Piece, sink: &mut impl BlockSink) {
        if let Current::Call(open) = self.current {
            let same = matches!(piece, Piece::Call(at, _) if at == open);
            if !same && !self.calls.is_complete(open) {
                self.waiting.push_back(piece);
                return;
            }
        }
        self.write(piece, sink);
        if let Current::Call(open) = self.current
            && !self.waiting.is_empty()
            && self.calls.is_complete(open)
        {
            self.drain(sink);
        }
    }

    /// Takes the waiting pieces again; some may go on waiting.
    fn drain(&mut self, sink: &mut impl BlockSink) {
        for piece in std::mem::take(&mut self.waiting) {
            self.take(piece, sink);
        }
    }

    fn write(&mut self, piece: Piece, sink: &mut impl BlockSink) {
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

    fn write_reasoning(&mut self, text: &str, sink: &mut impl BlockSink) {
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

    fn write_text(&mut self, text: &str, logprobs: &str, sink: &mut impl BlockSink) {
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

    fn append_blank(&mut self, sink: &mut impl BlockSink) {
        if !self.blank.is_empty() || !self.blank_logprobs.is_empty() {
            sink.append(
                &std::mem::take(&mut self.blank),
                &std::mem::take(&mut self.blank_logprobs),
            );
        }
    }

    fn write_call(&mut self, at: usize, input: &str, sink: &mut impl BlockSink) {
        let Some(call) = self.calls.get_mut(at) else { return };
        match call.state {
            // Another block has followed the complete JSON, so this input has no place.
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

    fn open_call(&mut self, at: usize, input: &str, sink: &mut impl BlockSink) {
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

    /// Writes calls whose name never came, so that the client sees what the engine did.
    fn nameless(&mut self, sink: &mut impl BlockSink) {
        for at in 0..self.calls.len() {
            let waits = self.calls.get(at).is_some_and(|call| call.state == CallState::Waiting);
            if waits {
                self.open_call(at, "", sink);
                self.close(sink);
            }
        }
    }

    fn switch(&mut self, to: Current, block: Block, sink: &mut impl BlockSink) {
        if self.current != to {
            self.close(sink);
            self.open(to, block, sink);
        }
    }

    fn open(&mut self, current: Current, block: Block, sink: &mut impl BlockSink) {
        self.current = current;
        self.opened = true;
        sink.open(block);
    }

    fn close(&mut self, sink: &mut impl BlockSink) {
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
