//! What a worker tells all gateways of itself: the prefixes that its engine holds, and how fast it is.

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::wire::is_default;

/// News of one worker, on `{ns}.v1.free.-.{worker}`. Sent once a second while something changes,
/// and at once when much more or much less is to be read than gateways can know.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct WorkerNews {
    /// Changes with each life of the worker's engine, whose cache is empty then.
    pub epoch: u64,
    /// The number of changes of this epoch before these.
    pub from: u64,
    /// The cuts are all that are held, and not changes.
    #[serde(default, skip_serializing_if = "is_default")]
    pub full: bool,
    /// Cuts that the engine holds or no longer holds, 5 bytes each.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub changes: ByteBuf,
    /// Estimated tokens of accepted prompts that the engine has still to read.
    #[serde(default, skip_serializing_if = "is_default")]
    pub pending: u64,
    /// How fast it is with each model, as far as it was measured.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paces: Vec<ModelPace>,
}

/// How fast a worker is with one model. What is absent was not measured.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ModelPace {
    /// The model's name.
    pub model: String,
    /// Estimated tokens of a prompt that it reads in a millisecond.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefill: Option<f32>,
    /// Milliseconds to the first token of a prompt without tokens to read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_ms: Option<f32>,
    /// Milliseconds for which a request holds a slot from its first output on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_ms: Option<f32>,
    /// Percent of the last seconds in which it read prompts.
    #[serde(default, skip_serializing_if = "is_default")]
    pub busy: u8,
}

/// Tell all that your engine holds: somebody missed a part of it. The answer is news for all gateways.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TellPrefixes {}

fn is_empty(bytes: &ByteBuf) -> bool {
    bytes.is_empty()
}
