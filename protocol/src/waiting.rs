//! What only a gateway knows: the requests that wait there, and what became of streams that left a worker.

use serde::{Deserialize, Serialize};

use crate::name::Name;

/// The requests that wait at one gateway for a free slot. The gateway publishes it on `capacity.get` without a
/// reply subject: once a second while there is something to tell, and once more when there is nothing. It holds until the next
/// one, or until the gateway falls silent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// The gateway.
    pub gateway: Name,
    /// The models that requests wait for.
    #[serde(default)]
    pub models: Vec<ModelWaiting>,
    /// What became of the streams that left a worker before their end, in the last minutes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left: Vec<StreamsLeft>,
}

/// What became of a gateway's streams that left one worker before their end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamsLeft {
    /// The worker.
    #[serde(rename = "w")]
    pub worker: Name,
    /// Another worker took them over.
    #[serde(rename = "m", default)]
    pub moved: u32,
    /// They ended with an error.
    #[serde(rename = "f", default)]
    pub failed: u32,
}

/// The requests that wait for one model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelWaiting {
    /// The model's name.
    #[serde(rename = "m")]
    pub model: String,
    /// Number of requests.
    #[serde(rename = "n", default)]
    pub requests: u32,
}
