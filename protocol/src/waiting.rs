//! The requests that wait at a gateway. No worker knows of them.

use serde::{Deserialize, Serialize};

use crate::name::Name;

/// The requests that wait at one gateway for a free slot. The gateway publishes it on `capacity.get` without a
/// reply subject: once a second while requests wait, and once when none waits any more. It holds until the next
/// one, or until the gateway falls silent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// The gateway.
    pub gateway: Name,
    /// The models that requests wait for.
    #[serde(default)]
    pub models: Vec<ModelWaiting>,
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
