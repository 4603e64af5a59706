//! The member `sim` of a request: faults and odd output to order.

use serde::Deserialize;
use serde_json::Value;
use tokenbus_protocol::{ErrorCode, RawJson};

/// The member `sim` of a request's body. Positions count the tokens of one choice from the beginning of the answer,
/// also over a `resume`. A fault strikes only attempts without a `resume`, so that another attempt can continue the
/// answer, unless `always` is set.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Script {
    /// The answer is the request's body, byte for byte, as one token with finish reason `stop`.
    pub(super) echo: bool,
    /// Fails after this many tokens; 0 is before the first one.
    pub(super) error_after: Option<u64>,
    /// Code of that error (`internal` by default).
    pub(super) error_code: Option<ErrorCode>,
    /// Message of that error.
    pub(super) error_message: Option<String>,
    /// Whether another worker may be tried after the error (not by default).
    pub(super) retryable: bool,
    /// Wait before another try, which the error names, milliseconds.
    pub(super) retry_after_ms: Option<u64>,
    /// Falls silent after this many tokens.
    pub(super) hang_after: Option<u64>,
    /// Drops the stream without a finish after this many tokens.
    pub(super) drop_after: Option<u64>,
    /// Faults strike resumed attempts too.
    pub(super) always: bool,
    /// Time to first token of this request, milliseconds.
    pub(super) ttft_ms: Option<u64>,
    /// Finish reason in place of `length` or `stop`.
    pub(super) finish_reason: Option<String>,
    /// Reasoning text before the first token, sent as `reasoning_content`.
    pub(super) reasoning: Option<String>,
    /// Members of the first token's `delta` beside its text.
    pub(super) delta: Option<RawJson>,
    /// The first token's `logprobs`.
    pub(super) logprobs: Option<RawJson>,
    /// Members of the first token's choice.
    pub(super) choice: Option<RawJson>,
    /// Members of the first token's chunk.
    pub(super) chunk: Option<RawJson>,
    /// `system_fingerprint` of the first token's chunk.
    pub(super) fingerprint: Option<String>,
    /// The `usage` object at the end.
    pub(super) usage: Option<RawJson>,
    /// Parallel tool calls that are the answer.
    pub(super) tool_calls: Vec<ScriptedCall>,
}

/// A tool call that a script demands.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ScriptedCall {
    /// The function.
    pub(super) name: String,
    /// Its arguments.
    #[serde(default)]
    pub(super) arguments: Value,
}
