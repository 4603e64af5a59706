//! The input of a tool call as an object, in which Anthropic's and Ollama's APIs have it.

use serde::Serialize;
use serde_json::value::RawValue;

/// The input of a tool call, which is always an object.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum ToolInput {
    /// An object.
    Object(Box<RawValue>),
    /// Text that is no object, because it was cut off or because the model wrote no better. Anthropic's documentation
    /// asks for this wrapping.
    Invalid {
        /// The text.
        #[serde(rename = "INVALID_JSON")]
        text: String,
    },
    /// No text.
    Empty {},
}

impl ToolInput {
    /// The input that `text` is.
    pub(crate) fn new(text: &str) -> Self {
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
