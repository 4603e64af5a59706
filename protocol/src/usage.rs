//! The usage of one request, published when it ends. For billing and statistics.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::name::Name;
use crate::request::RequestKind;
use crate::wire::{is_default, wire_enum};

wire_enum! {
    /// How a request ended.
    UsageOutcome, other = Failed, {
        /// Answered in full.
        Succeeded = "succeeded",
        /// The cluster's fault: an engine failed or a worker was lost.
        Failed = "failed",
        /// Not taken: no free slot, no worker, or the engine refused it.
        Rejected = "rejected",
        /// Its deadline passed.
        TimedOut = "timed_out",
        /// The client left, or did not read.
        Cancelled = "cancelled",
    }
}

/// The usage of one request. Every request that was understood and allowed has one, whatever its outcome.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageRecord {
    /// The request's id, a UUID v7. The visible id of the answer is made of it.
    pub id: Uuid,
    /// The client's `x-request-id`, or the gateway's own.
    pub request: String,
    /// The gateway that answered.
    pub gateway: Name,
    /// The last worker that ran it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<Name>,
    /// The tier of that worker among those of the model.
    #[serde(default, skip_serializing_if = "is_default")]
    pub tier: u32,
    /// Name of the API key; absent when the gateway uses no keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// The kind of request.
    pub kind: RequestKind,
    /// The model that the client asked for.
    pub model: String,
    /// The model that served it, if another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub served: Option<String>,
    /// Tokens of the prompt.
    #[serde(default, skip_serializing_if = "is_default")]
    pub prompt_tokens: u64,
    /// Tokens delivered, also of an unfinished answer.
    #[serde(default, skip_serializing_if = "is_default")]
    pub completion_tokens: u64,
    /// Prompt tokens that the engine had in its cache; included in `prompt_tokens`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub cached_tokens: u64,
    /// The prompt tokens are estimated from the prompt's length: the engine reports them at the end of an answer,
    /// which may not have come.
    #[serde(default, skip_serializing_if = "is_default")]
    pub estimated: bool,
    /// What its tokens cost, in billionths of the operator's currency; 0 if nothing has a price.
    #[serde(default, skip_serializing_if = "is_default")]
    pub cost: u64,
    /// How it ended.
    pub outcome: UsageOutcome,
    /// The HTTP status that was sent; 499 when the client left before.
    pub status: u16,
    /// Milliseconds from its arrival to its first output, if there was any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttft_ms: Option<u64>,
    /// Milliseconds from its arrival to its end.
    pub duration_ms: u64,
    /// Unix time of its end in milliseconds, by the gateway's clock.
    pub at_ms: u64,
}
