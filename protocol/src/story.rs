//! One request's story: what a gateway did for it, step by step. For the access log and for `tokenbus trace`.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::name::Name;
use crate::usage::UsageOutcome;
use crate::wire::{is_default, wire_enum};

/// Asks all gateways for the stories of a request. Those that know none do not answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoryQuestion {
    /// The client's `x-request-id`, the call's UUID, or the id of the answer, which has that UUID in it.
    pub request: String,
}

/// What one gateway answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stories {
    /// The gateway.
    pub gateway: Name,
    /// The newest stories first: clients may use one request id several times.
    pub stories: Vec<Story>,
}

wire_enum! {
    /// One step of a request's way.
    StepKind, other = Other, {
        /// It waits at the gateway for a free slot.
        Waits = "waits",
        /// It was published: to the worker that the gateway chose, or to the model's queue group.
        Sent = "sent",
        /// A worker accepted it.
        Accepted = "accepted",
        /// A worker refused it.
        Refused = "refused",
        /// Nobody was there to take it.
        Unanswered = "unanswered",
        /// The worker that ran it was lost, failed or handed it over.
        Left = "left",
        /// A step that only a newer version knows.
        Other = "other",
    }
}

wire_enum! {
    /// Why a request left the worker that ran it.
    LeftCause, other = Other, {
        /// The worker's process is gone.
        Gone = "gone",
        /// The worker was restarted under its id.
        Restarted = "restarted",
        /// Nothing was heard of the worker for too long.
        Silent = "silent",
        /// Frames were lost on the way.
        FramesLost = "frames_lost",
        /// The worker gave the request back.
        GivenBack = "given_back",
        /// The engine failed, or refused the request.
        Engine = "engine",
        /// The worker stops and handed the request over.
        HandedOver = "handed_over",
        /// A cause that only a newer version knows.
        Other = "other",
    }
}

/// One step of a request's way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Milliseconds since the request arrived.
    #[serde(rename = "ms", default)]
    pub after_ms: u64,
    /// What happened.
    #[serde(rename = "k")]
    pub kind: StepKind,
    /// The attempt, from 0.
    #[serde(rename = "a", default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// The worker.
    #[serde(rename = "w", default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<Name>,
    /// Why it left its worker.
    #[serde(rename = "c", default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<LeftCause>,
    /// Why, for a human.
    #[serde(rename = "y", default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// One request, from its arrival to its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Story {
    /// The client's `x-request-id`, or the gateway's own.
    pub request: String,
    /// The call's id, a UUID v7, if the request became a call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call: Option<Uuid>,
    /// The path of the API.
    pub api: String,
    /// Name of the API key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// The model that the client asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The model that served it, if another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub served: Option<String>,
    /// The last worker that ran it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<Name>,
    /// Unix time of its end in milliseconds, by the gateway's clock.
    pub at_ms: u64,
    /// What happened, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<Step>,
    /// Further steps that were not kept.
    #[serde(default, skip_serializing_if = "is_default")]
    pub more_steps: u32,
    /// Publishes to workers.
    #[serde(default, skip_serializing_if = "is_default")]
    pub attempts: u32,
    /// Milliseconds that it waited at the gateway for a free slot.
    #[serde(default, skip_serializing_if = "is_default")]
    pub wait_ms: u64,
    /// How it ended.
    pub outcome: UsageOutcome,
    /// The HTTP status that was sent; 499 when the client left before.
    pub status: u16,
    /// The code of its error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// The message of its error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Tokens of the prompt.
    #[serde(default, skip_serializing_if = "is_default")]
    pub prompt_tokens: u64,
    /// Prompt tokens that the engine had in its cache.
    #[serde(default, skip_serializing_if = "is_default")]
    pub cached_tokens: u64,
    /// Tokens delivered.
    #[serde(default, skip_serializing_if = "is_default")]
    pub completion_tokens: u64,
    /// Milliseconds from its arrival to its first output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttft_ms: Option<u64>,
    /// 99th percentile of its inter-token latency in milliseconds, estimated from a histogram.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub itl_p99_ms: Option<u64>,
    /// Milliseconds from its arrival to its end.
    pub duration_ms: u64,
}
