//! Frames from a worker to a gateway: the events of one stream.
//!
//! A frame names its stream by the gateway's number, its attempt, and its place in the sequence of that attempt.
//! Keys are one letter, because a frame is sent per token.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::name::Name;
use crate::openai::RawJson;
use crate::wire::{is_default, wire_enum, wire_union};

/// One frame. Stream 0 stands for the worker itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Frame<'a> {
    /// The gateway's number for the stream, from the request.
    #[serde(rename = "s")]
    pub stream: u64,
    /// The attempt that produced this frame. A gateway drops frames of abandoned attempts.
    #[serde(rename = "a", default, skip_serializing_if = "is_default")]
    pub attempt: u32,
    /// 0 for the first frame of an attempt, then one more for each. A hole means that a message was lost.
    #[serde(rename = "q", default, skip_serializing_if = "is_default")]
    pub seq: u32,
    /// What happened.
    #[serde(rename = "b", borrow)]
    pub body: Body<'a>,
}

impl Frame<'_> {
    /// The same frame, borrowing nothing.
    pub fn into_owned(self) -> Frame<'static> {
        let Self {
            stream,
            attempt,
            seq,
            body,
        } = self;
        Frame {
            stream,
            attempt,
            seq,
            body: body.into_owned(),
        }
    }
}

impl Body<'_> {
    /// The same body, borrowing nothing.
    pub fn into_owned(self) -> Body<'static> {
        match self {
            Self::Delta(delta) => Body::Delta(delta.into_owned()),
            Self::Accepted(accepted) => Body::Accepted(accepted),
            Self::Finish(finish) => Body::Finish(finish),
            Self::Reject(reject) => Body::Reject(reject),
            Self::Error(error) => Body::Error(error),
            Self::Alive(alive) => Body::Alive(alive),
            Self::Room(room) => Body::Room(room),
            Self::Held(held) => Body::Held(held),
            Self::Offer(offer) => Body::Offer(offer),
            Self::Unknown => Body::Unknown,
        }
    }
}

impl Delta<'_> {
    /// The same delta, borrowing nothing.
    pub fn into_owned(self) -> Delta<'static> {
        let Self {
            choice,
            text,
            tokens,
            token_ids,
            finish_reason,
            extra,
        } = self;
        Delta {
            choice,
            text: Cow::Owned(text.into_owned()),
            tokens,
            token_ids,
            finish_reason,
            extra,
        }
    }
}

wire_union! {
    /// The content of a frame.
    Body<'a>, {
        /// The worker has the request, and a slot or a place in its queue.
        Accepted(Accepted) = "a",
        /// More output of one choice.
        Delta(Delta<'a>) = "d",
        /// The stream is complete. Nothing follows.
        Finish(Finish) = "f",
        /// The worker does not take the request. Nothing follows.
        Reject(Reject) = "r",
        /// The engine or the worker failed. Nothing follows.
        Error(EngineError) = "e",
        /// The stream is alive but has no output yet. Sent every second during a long prefill.
        Alive(Alive) = "l",
        /// The worker's room, in frames for stream 0.
        Room(Room) = "m",
        /// The streams of this gateway that the worker holds, in frames for stream 0.
        Held(Held) = "h",
        /// Free slots that are kept for this gateway for a moment, in frames for stream 0.
        Offer(Offer) = "o",
    }
}

/// The worker has taken the request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// The request's id. A gateway that no longer knows the stream can still cancel it.
    #[serde(rename = "u")]
    pub id: Uuid,
    /// The worker.
    #[serde(rename = "w")]
    pub worker: Name,
    /// Its instance: a random number that it draws at each start.
    #[serde(rename = "i")]
    pub instance: u64,
    /// Place in the worker's queue; 0 when it runs at once.
    #[serde(rename = "p", default, skip_serializing_if = "is_default")]
    pub queue_position: u32,
    /// Whether another worker with this engine can continue the stream from `resume`.
    #[serde(rename = "r", default, skip_serializing_if = "is_default")]
    pub resumable: bool,
}

/// More output of one choice.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Delta<'a> {
    /// The choice's index.
    #[serde(rename = "c", default, skip_serializing_if = "is_default")]
    pub choice: u32,
    /// Text of any number of tokens, possibly empty.
    #[serde(rename = "t", default, borrow, skip_serializing_if = "str::is_empty")]
    pub text: Cow<'a, str>,
    /// Completion tokens in this delta; 0 when the engine does not report them.
    #[serde(rename = "n", default, skip_serializing_if = "is_default")]
    pub tokens: u32,
    /// The ids of these tokens, when the engine reports them.
    #[serde(rename = "i", default, skip_serializing_if = "Vec::is_empty")]
    pub token_ids: Vec<u32>,
    /// Set in the last delta of its choice: `stop`, `length`, `tool_calls`, `content_filter`, or whatever the
    /// engine sent.
    #[serde(rename = "f", default, skip_serializing_if = "Option::is_none")]
    pub finish_reason: Option<String>,
    /// Everything that is not plain text. Rare, hence boxed.
    #[serde(rename = "x", default, skip_serializing_if = "Option::is_none")]
    pub extra: Option<Box<DeltaExtra>>,
}

/// Parts of a delta that tokenbus passes on as the engine sent them: raw JSON objects without the members that have
/// a field of their own.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct DeltaExtra {
    /// Members of the choice's `delta` other than `content` and `role`: `tool_calls`, `refusal`,
    /// `reasoning_content`, and unknown ones.
    #[serde(rename = "d", default, skip_serializing_if = "Option::is_none")]
    pub delta: Option<RawJson>,
    /// The choice's `logprobs`.
    #[serde(rename = "l", default, skip_serializing_if = "Option::is_none")]
    pub logprobs: Option<RawJson>,
    /// Members of the choice other than `index`, `delta`, `logprobs` and `finish_reason`.
    #[serde(rename = "o", default, skip_serializing_if = "Option::is_none")]
    pub choice: Option<RawJson>,
    /// Members of the chunk other than `id`, `object`, `created`, `model`, `choices`, `usage` and
    /// `system_fingerprint`.
    #[serde(rename = "k", default, skip_serializing_if = "Option::is_none")]
    pub chunk: Option<RawJson>,
    /// The engine's `system_fingerprint`, sent once, with the first delta after it is known.
    #[serde(rename = "g", default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
}

impl DeltaExtra {
    /// Bytes of JSON in it.
    pub fn weight(&self) -> usize {
        [&self.delta, &self.logprobs, &self.choice, &self.chunk]
            .into_iter()
            .flatten()
            .map(|json| json.get().len())
            .sum()
    }
}

/// The stream is complete. The finish reason of each choice came in its last delta.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Finish {
    /// Prompt tokens of the whole request, when the engine counts them.
    #[serde(rename = "p", default, skip_serializing_if = "Option::is_none")]
    pub prompt_tokens: Option<u64>,
    /// Completion tokens of this attempt, over all choices, when the engine counts them. The tokens of `resume` are
    /// neither prompt nor completion here: the worker subtracts them if the engine counted them.
    #[serde(rename = "n", default, skip_serializing_if = "Option::is_none")]
    pub completion_tokens: Option<u64>,
    /// The engine's `usage` object, unchanged.
    #[serde(rename = "u", default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<RawJson>,
    /// Members of the last chunk that belong to no choice (`timings`, …).
    #[serde(rename = "k", default, skip_serializing_if = "Option::is_none")]
    pub chunk: Option<RawJson>,
}

wire_enum! {
    /// Why a worker does not take a request.
    RejectReason, other = Other, {
        /// It has no free slot and no place in its queue.
        Busy = "busy",
        /// It is shutting down.
        Draining = "draining",
        /// Its engine is not up: starting, crashed, or the circuit is open.
        Unavailable = "unavailable",
        /// It does not serve this model, or no longer.
        UnknownModel = "unknown_model",
        /// It already runs this request, under another attempt.
        Duplicate = "duplicate",
        /// Its engine cannot do what the request needs; another engine might.
        Unsupported = "unsupported",
        /// The request's deadline had passed when it arrived.
        Expired = "expired",
        /// A reason that only a newer version knows; treated as busy.
        Other = "other",
    }
}

/// The worker does not take the request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reject {
    /// Why.
    #[serde(rename = "r")]
    pub reason: RejectReason,
    /// The worker.
    #[serde(rename = "w")]
    pub worker: Name,
    /// Its room at this moment.
    #[serde(rename = "m")]
    pub room: Room,
    /// A sentence for people, when there is more to say than the reason.
    #[serde(rename = "t", default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Milliseconds after which a retry makes sense, if known.
    #[serde(rename = "y", default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// The request's id. It shows that the worker had the request: whoever takes one from a queue subject is known by
    /// nothing else. Older workers do not send it; their refusals of such requests do not count.
    #[serde(rename = "u", default, skip_serializing_if = "Option::is_none")]
    pub id: Option<Uuid>,
}

wire_enum! {
    /// The kind of failure that ended a stream. Only the gateway turns it into an HTTP status.
    ErrorCode, other = Internal, {
        /// The engine refused the request as malformed.
        BadRequest = "bad_request",
        /// Prompt and completion exceed the model's context.
        ContextLengthExceeded = "context_length_exceeded",
        /// The content filter of the engine or provider refused it.
        ContentFilter = "content_filter",
        /// The engine or provider rejected the worker's own credentials (401).
        UpstreamUnauthorized = "upstream_unauthorized",
        /// The engine or provider forbids it (403).
        UpstreamForbidden = "upstream_forbidden",
        /// The engine does not know the model (404).
        ModelNotFound = "model_not_found",
        /// The request is larger than the engine accepts (413).
        TooLarge = "too_large",
        /// The engine or provider limits the rate (429).
        RateLimited = "rate_limited",
        /// The engine cannot be reached, crashed, or answered 502/503.
        EngineUnavailable = "engine_unavailable",
        /// The engine did not answer in time.
        Timeout = "timeout",
        /// The worker had to drop this stream, for example because its queue to the gateway was full.
        WorkerOverloaded = "worker_overloaded",
        /// The worker is shutting down and hands the stream over.
        Draining = "draining",
        /// Cancelled by the gateway or an operator.
        Cancelled = "cancelled",
        /// The engine failed in another way (5xx).
        Internal = "internal",
    }
}

/// The engine or the worker failed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EngineError {
    /// What kind of failure.
    #[serde(rename = "c")]
    pub code: ErrorCode,
    /// A sentence for the client, without credentials or internal addresses.
    #[serde(rename = "t")]
    pub message: String,
    /// The request field that caused it, if known.
    #[serde(rename = "p", default, skip_serializing_if = "Option::is_none")]
    pub param: Option<String>,
    /// The `code` of the engine's own error object, if it had one.
    #[serde(rename = "k", default, skip_serializing_if = "Option::is_none")]
    pub engine_code: Option<String>,
    /// Whether the same request may succeed on another worker.
    #[serde(rename = "r", default, skip_serializing_if = "is_default")]
    pub retryable: bool,
    /// Milliseconds after which to retry, if the engine said so.
    #[serde(rename = "y", default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

/// The stream is alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Alive {
    /// Place in the worker's queue; 0 when the engine works on it.
    #[serde(rename = "p", default, skip_serializing_if = "is_default")]
    pub queue_position: u32,
}

/// The streams of one gateway that a worker holds, as of this frame: whatever the worker sent before has arrived
/// before it, or never will.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// The worker's instance.
    #[serde(rename = "i")]
    pub instance: u64,
    /// All of these streams.
    #[serde(rename = "s", default)]
    pub streams: Vec<HeldStream>,
}

/// A stream that a worker holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldStream {
    /// The gateway's number for it.
    #[serde(rename = "s")]
    pub stream: u64,
    /// Its attempt.
    #[serde(rename = "a", default, skip_serializing_if = "is_default")]
    pub attempt: u32,
    /// The sequence number of its next frame.
    #[serde(rename = "q", default, skip_serializing_if = "is_default")]
    pub next_seq: u32,
}

/// Slots that just became free. While several gateways wait for a slot, the worker offers each free one to the next
/// gateway in turn, and tells the others that none is free. The gateway sends a request or declines; otherwise the
/// worker offers the slot to the next one a moment later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Offer {
    /// How many.
    #[serde(rename = "n", default)]
    pub slots: u32,
}

/// A worker's room at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Room {
    /// Free slots.
    #[serde(rename = "f", default)]
    pub free: u32,
    /// Requests in its queue.
    #[serde(rename = "q", default, skip_serializing_if = "is_default")]
    pub queued: u32,
    /// Estimated tokens of prompts that its engine has still to read, if the worker counts them.
    #[serde(rename = "p", default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<u32>,
}
