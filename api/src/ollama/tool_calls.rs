//! Tool calls as Ollama sends them: whole, with an object as arguments.

use serde::Serialize;

use crate::translation::streamed_calls::StreamedCalls;
use crate::translation::tool_input::ToolInput;

/// One tool call.
#[derive(Debug, Serialize)]
pub(super) struct WholeCall<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    id: &'a str,
    function: CalledFunction<'a>,
}

#[derive(Debug, Serialize)]
struct CalledFunction<'a> {
    index: usize,
    name: &'a str,
    arguments: ToolInput,
}

/// The calls of a complete answer.
pub(super) fn whole(calls: &StreamedCalls) -> Vec<WholeCall<'_>> {
    let calls = (0..calls.len()).filter_map(|at| calls.get(at)).enumerate();
    calls
        .map(|(index, call)| WholeCall {
            id: &call.id,
            function: CalledFunction {
                index,
                name: &call.name,
                arguments: ToolInput::new(&call.held),
            },
        })
        .collect()
}
