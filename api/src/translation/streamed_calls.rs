//! The tool calls of an answer while their pieces come.

use super::pieces::{CallPiece, Scan, argument_text};
use crate::limits::MAX_TOOL_CALLS;

/// One tool call, as far as it has come.
#[derive(Debug, Default)]
pub(crate) struct StreamedCall {
    index: Option<u64>,
    pub(crate) id: String,
    pub(crate) name: String,
    /// Whether the input is free text rather than JSON.
    pub(crate) custom: bool,
    pub(crate) state: CallState,
    /// Input that came before the name.
    pub(crate) held: String,
    pub(crate) scan: Scan,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum CallState {
    #[default]
    Waiting,
    Open,
    Closed,
}

/// All tool calls of an answer, in the order in which they began.
#[derive(Debug, Default)]
pub(crate) struct StreamedCalls(Vec<StreamedCall>);

impl StreamedCalls {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn get(&self, at: usize) -> Option<&StreamedCall> {
        self.0.get(at)
    }

    pub(crate) fn get_mut(&mut self, at: usize) -> Option<&mut StreamedCall> {
        self.0.get_mut(at)
    }

    /// Whether the input of the call at `at` is complete JSON.
    pub(crate) fn is_complete(&self, at: usize) -> bool {
        self.0.get(at).is_some_and(|call| call.scan.complete)
    }

    /// Adds `piece` to its call. Returns the call's place and the piece's input, or `None` beyond the bound on calls.
    pub(crate) fn add(&mut self, piece: CallPiece<'_>) -> Option<(usize, String)> {
        let id = piece.id.filter(|id| !id.is_empty());
        let at = self.place(piece.index, id.as_deref())?;
        let call = self.0.get_mut(at)?;
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
        Some((at, input.unwrap_or_default()))
    }

    /// The call to which a piece belongs: by its number, else by its id, else the newest.
    fn place(&mut self, index: Option<u64>, id: Option<&str>) -> Option<usize> {
        let at = match (index, id) {
            (Some(_), _) => self.0.iter().position(|call| call.index == index),
            (None, Some(id)) => self.0.iter().position(|call| call.id == id),
            (None, None) => self.0.len().checked_sub(1),
        };
        if at.is_some() || self.0.len() >= MAX_TOOL_CALLS {
            return at;
        }
        self.0.push(StreamedCall {
            index,
            ..StreamedCall::default()
        });
        Some(self.0.len() - 1)
    }
}
