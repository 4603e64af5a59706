//! The JSON objects of an answer of the Messages API.

use serde::Serialize;
use tokenbus_protocol::Finish;

use crate::answer::usage::Counts;
use crate::translation::tool_input::ToolInput;

/// An event of a stream, apart from the deltas of a block's text.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Event<'a> {
    MessageStart { message: MessageObject<'a> },
    ContentBlockStart { index: usize, content_block: ContentBlock },
    ContentBlockDelta { index: usize, delta: SignatureDelta },
    ContentBlockStop { index: usize },
    MessageDelta { delta: Stop<'a>, usage: MessageUsage },
    MessageStop,
}

impl Event<'_> {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::MessageStart { .. } => "message_start",
            Self::ContentBlockStart { .. } => "content_block_start",
            Self::ContentBlockDelta { .. } => "content_block_delta",
            Self::ContentBlockStop { .. } => "content_block_stop",
            Self::MessageDelta { .. } => "message_delta",
            Self::MessageStop => "message_stop",
        }
    }
}

/// The message, as it begins or as a whole.
#[derive(Serialize)]
pub(super) struct MessageObject<'a> {
    pub(super) id: &'a str,
    pub(super) r#type: &'static str,
    pub(super) role: &'static str,
    pub(super) model: &'a str,
    pub(super) content: &'a [ContentBlock],
    #[serde(flatten)]
    pub(super) stop: Stop<'a>,
    pub(super) usage: MessageUsage,
}

/// Why a message ended; empty while it has not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(super) struct Stop<'a> {
    #[serde(rename = "stop_reason")]
    pub(super) reason: Option<&'static str>,
    #[serde(rename = "stop_sequence")]
    pub(super) sequence: Option<&'a str>,
}

#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum ContentBlock {
    Text { text: String },
    Thinking { thinking: String, signature: String },
    ToolUse { id: String, name: String, input: ToolInput },
}

#[derive(Serialize)]
#[serde(tag = "type", rename = "signature_delta")]
pub(super) struct SignatureDelta {
    pub(super) signature: String,
}

#[derive(Default, Serialize)]
pub(super) struct MessageUsage {
    input_tokens: u64,
    output_tokens: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_creation_input_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_read_input_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output_tokens_details: Option<OutputDetails>,
}

#[derive(Serialize)]
struct OutputDetails {
    thinking_tokens: u64,
}

impl MessageUsage {
    /// The usage of a message that begins.
    pub(super) fn estimated(prompt: u64) -> Self {
        Self {
            input_tokens: prompt.max(1),
            ..Self::default()
        }
    }

    /// The usage. The API requires numbers: `seen`, the tokens that came, stands in for a missing count.
    pub(super) fn new(finish: &Finish, seen: u64) -> Self {
        let counts = Counts::of(finish);
        let prompt = counts.map(|counts| counts.prompt).or(finish.prompt_tokens).unwrap_or(0);
        let completion = counts.map(|counts| counts.completion).or(finish.completion_tokens);
        let cached = counts.and_then(|counts| counts.cached);
        let thinking = counts.and_then(|counts| counts.reasoning);
        Self {
            // Anthropic counts cached tokens apart from the rest of the prompt.
            input_tokens: prompt.saturating_sub(cached.unwrap_or(0)),
            output_tokens: completion.unwrap_or(seen),
            cache_creation_input_tokens: cached.map(|_| 0),
            cache_read_input_tokens: cached,
            output_tokens_details: thinking.map(|thinking_tokens| OutputDetails { thinking_tokens }),
        }
    }
}
