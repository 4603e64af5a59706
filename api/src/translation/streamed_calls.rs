//! The tool calls of an answer while their pieces come.

use super::pieces::CallPiece;
use crate::delta::Scan;
use crate::limits::MAX_TOOL_CALLS;

/// One tool call, as far as it has come.
#[derive(Debug, Default)]
pub(crate) struct StreamedCall {
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
    pub(crate) fn add(&mut self, piece: CallPiece) -> Option<(usize, String)> {
        let at = piece.index?;
        // Calls are numbered in the order in which they begin.
        if at == self.0.len() && at < MAX_TOOL_CALLS {
            self.0.push(StreamedCall::default());
        }
        let call = self.0.get_mut(at)?;
        if call.id.is_empty() {
            call.id = piece.id.unwrap_or_default();
        }
        let (name, input) = match (piece.function, piece.custom) {
            (Some(function), _) => (function.name, function.arguments),
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
}
