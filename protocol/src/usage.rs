//! What one request used, for billing and for whoever wants to know; published when it ends.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::name::Name;
use crate::request::RequestKind;
use crate::wire_enum::wire_enum;

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

wire_enum! {
    /// How a request ended.
    UsageOutcome, other = Failed, {
        /// Answered in full.
        Succeeded = "succeeded",
        /// The cluster's fault: an engine failed, a worker was lost.
        Failed = "failed",
        /// Not taken: no room, no worker, or the engine refused it.
        Rejected = "rejected",
        /// Its time was over.
        TimedOut = "timed_out",
        /// The client went away, or did not read.
        Cancelled = "cancelled",
    }
}

/// What one request used. One is published for each request that was understood and allowed,
/// whatever became of it; a repeat that got the answer of an earlier request uses no tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageRecord {
    /// The request's id, a UUID v7; the answer's visible id is made of it.
    pub id: Uuid,
    /// The client's `x-request-id`, or the one made for it.
    pub request: String,
    /// The gateway that answered.
    pub gateway: Name,
    /// The worker that ran it last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<Name>,
    /// Name of the API key; none where the gateway asks for no keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// For whom.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// What was asked.
    pub kind: RequestKind,
    /// The model that the client asked for.
    pub model: String,
    /// The model that served it, where that is another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub served: Option<String>,
    /// Tokens of the prompt.
    #[serde(default, skip_serializing_if = "is_default")]
    pub prompt_tokens: u64,
    /// Tokens delivered, also of an answer that did not end.
    #[serde(default, skip_serializing_if = "is_default")]
    pub completion_tokens: u64,
    /// Tokens of the prompt that the engine had in its cache; they are among `prompt_tokens`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub cached_tokens: u64,
    /// The engine did not tell the prompt's tokens (it does at the end of an answer, which may not
    /// have come): they are estimated from its length.
    #[serde(default, skip_serializing_if = "is_default")]
    pub estimated: bool,
    /// How it ended.
    pub outcome: UsageOutcome,
    /// The HTTP status that was sent; 499 when the client left before.
    pub status: u16,
    /// Milliseconds from its arrival to its first output, where there was any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttft_ms: Option<u64>,
    /// Milliseconds from its arrival to its end.
    pub duration_ms: u64,
    /// Its end, Unix time in milliseconds by the gateway's clock.
    pub at_ms: u64,
}
