//! A request as a gateway publishes it.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::feature::{Family, Feature, Features};
use crate::labels::Labels;
use crate::name::Name;
use crate::wire::{is_default, wire_enum};

wire_enum! {
    /// The kind of a request; the engine must support it.
    RequestKind, other = Other, {
        /// OpenAI chat completion.
        Chat = "chat",
        /// OpenAI text completion.
        Completion = "completion",
        /// Embeddings.
        Embeddings = "embeddings",
        /// Sorting documents by relevance to a query.
        Rerank = "rerank",
        /// Scoring pairs of texts.
        Score = "score",
        /// Turning text into token ids.
        Tokenize = "tokenize",
        /// Turning token ids into text.
        Detokenize = "detokenize",
        /// A kind that only a newer version knows; a worker rejects it as unsupported.
        Other = "other",
    }
}

impl RequestKind {
    /// The family whose subjects it travels on.
    pub const fn family(self) -> Family {
        match self {
            Self::Chat | Self::Completion | Self::Other => Family::Generate,
            Self::Embeddings => Family::Embed,
            Self::Rerank | Self::Score => Family::Rank,
            Self::Tokenize | Self::Detokenize => Family::Tokens,
        }
    }

    /// Whether the engine generates tokens for it one after the other. Other kinds are answered in one piece, which
    /// travels as text.
    pub const fn is_generated(self) -> bool {
        matches!(self, Self::Chat | Self::Completion)
    }

    /// The feature that an engine needs for this kind.
    pub const fn feature(self) -> Feature {
        match self {
            Self::Chat => Feature::Chat,
            Self::Completion => Feature::Completion,
            Self::Embeddings => Feature::Embeddings,
            Self::Rerank => Feature::Rerank,
            Self::Score => Feature::Score,
            Self::Tokenize | Self::Detokenize => Feature::Tokenize,
            Self::Other => Feature::Other,
        }
    }
}

/// One attempt at a client request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Request<'a> {
    /// UUID v7; the same in all attempts. A worker never runs an id twice at once.
    pub id: Uuid,
    /// The gateway that receives the frames, on `{ns}.v1.out.{gateway}.{worker}`.
    pub gateway: Name,
    /// The gateway's number for the stream. Never 0, and never reused in the life of a gateway.
    pub stream: u64,
    /// 0 for the first publish, one more for each further one.
    pub attempt: u32,
    /// The lowest attempt whose frames the gateway still accepts. A worker that runs an older attempt of this id
    /// stops it; one that runs this or a newer attempt answers `Duplicate`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub floor: u32,
    /// The kind of request.
    pub kind: RequestKind,
    /// The model, by the name under which the worker announced it.
    pub model: String,
    /// Features that the request needs besides its kind, as far as the gateway can tell.
    #[serde(default, skip_serializing_if = "is_default")]
    pub needs: Features,
    /// Labels that the worker must have, whatever else it can do.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
    /// Milliseconds left until the client's deadline, at the moment of publishing. A duration rather than a time of
    /// day, because the clocks of machines differ.
    pub budget_ms: u64,
    /// Higher is served earlier.
    #[serde(default, skip_serializing_if = "is_default")]
    pub priority: i32,
    /// The tenant, for fair queueing and accounting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// The client's `x-request-id`, for logs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// W3C trace context.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<TraceContext>,
    /// The output that earlier attempts have delivered to the client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume: Option<Resume>,
    /// Set when the body comes in parts; `body` is then the first of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parts: Option<Parts>,
    /// The cuts of the prompt, by which the worker knows what of it its engine has in its cache. Empty where there is no
    /// prompt to continue, and in requests of older gateways.
    #[serde(default, borrow, with = "body_bytes", skip_serializing_if = "<[u8]>::is_empty")]
    pub prompt: Cow<'a, [u8]>,
    /// The OpenAI request: JSON, byte for byte as the client sent it.
    #[serde(borrow, with = "body_bytes")]
    pub body: Cow<'a, [u8]>,
}

/// A body larger than the server's `max_payload`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parts {
    /// Number of parts, including the one in the request; at least 2.
    pub count: u32,
    /// Bytes of the whole body.
    pub bytes: u64,
}

/// W3C trace context headers, received or made by the gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceContext {
    /// `traceparent`.
    pub parent: String,
    /// `tracestate`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
}

/// What the client has already: the engine continues from there.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Resume {
    /// One entry for each choice that has begun, by index.
    pub choices: Vec<ResumeChoice>,
}

/// What the client has of one choice.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ResumeChoice {
    /// The choice's index.
    pub index: u32,
    /// Text delivered.
    pub text: String,
    /// Completion tokens delivered: counted, or estimated as one per delta.
    pub tokens: u64,
    /// Their ids, if all of them are known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub token_ids: Vec<u32>,
    /// Reasoning text delivered.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reasoning: String,
    /// Set when this choice is complete and must not be generated again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finish_reason: Option<String>,
}

/// A body as MessagePack `bin`, borrowed when decoded.
mod body_bytes {
    use std::borrow::Cow;

    use serde::{Deserialize, Deserializer, Serializer};

    // serde passes the type of the field to a `with` module.
    #[allow(clippy::ptr_arg)]
    pub(super) fn serialize<S: Serializer>(body: &Cow<'_, [u8]>, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_bytes(body)
    }

    pub(super) fn deserialize<'de: 'a, 'a, D: Deserializer<'de>>(d: D) -> Result<Cow<'a, [u8]>, D::Error> {
        <&'de serde_bytes::Bytes>::deserialize(d).map(|bytes| Cow::Borrowed(&**bytes))
    }
}
