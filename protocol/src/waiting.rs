//! What waits at a gateway, which no worker can tell of.

use serde::{Deserialize, Serialize};

use crate::name::Name;

/// The requests that wait at one gateway for a worker with room. Told on `capacity.get` without a reply
/// subject, once a second while there are any and once when there are none any more; what was told holds
/// until the next, or until the gateway is silent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// Which gateway.
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
    /// How many.
    #[serde(rename = "n", default)]
    pub requests: u32,
}
