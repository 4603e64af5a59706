//! Tool calls as Ollama sends them: whole, with an object as arguments.

use serde::Serialize;
use serde_json::value::RawValue;

use crate::translation::streamed_calls::StreamedCalls;

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
    arguments: Arguments,
}

/// The arguments, which are always an object: typed clients refuse anything else.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Arguments {
    Object(Box<RawValue>),
    /// Text that is no object, because it was cut off or because the model wrote no better.
    Invalid {
        #[serde(rename = "INVALID_JSON")]
        text: String,
    },
    Empty {},
}

impl Arguments {
    fn new(text: &str) -> Self {
        let text = text.trim();
        if text.is_empty() {
            return Self::Empty {};
        }
        let object = Some(text.to_owned()).filter(|text| text.starts_with('{'));
        match object.map(RawValue::from_string) {
            Some(Ok(object)) => Self::Object(object),
            _ => Self::Invalid { text: text.to_owned() },
        }
    }
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
                arguments: Arguments::new(&call.held),
            },
        })
        .collect()
}
