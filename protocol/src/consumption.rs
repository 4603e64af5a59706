//! What the gateways tell each other about API keys, so that limits hold across all of them.

use serde::{Deserialize, Serialize};

use crate::name::Name;

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// What one gateway's clients have consumed. Counts only grow (or, where an estimate was too
/// high, are taken back) over a gateway's life, so that a lost message is made good by the next.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Consumption {
    /// Whose. An id is never used twice, so the counts of one begin with 0.
    pub gateway: Name,
    /// One more in each message of this gateway, from 0. What is older than what was heard is void.
    pub seq: u64,
    /// The gateway starts: it knows nothing yet, and whoever knows something should say so.
    #[serde(default, skip_serializing_if = "is_default")]
    pub hello: bool,
    /// With this, everything that is not idle has been told.
    #[serde(default, skip_serializing_if = "is_default")]
    pub complete: bool,
    /// The keys that there is something to tell of; others are as they were.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<KeyConsumption>,
}

/// What was consumed with one key at one gateway.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KeyConsumption {
    /// The key's name.
    #[serde(rename = "k")]
    pub key: String,
    /// Requests since the gateway's start.
    #[serde(rename = "r", default, skip_serializing_if = "is_default")]
    pub requests: u64,
    /// Tokens since the gateway's start; estimates of running requests included.
    #[serde(rename = "t", default, skip_serializing_if = "is_default")]
    pub tokens: i64,
    /// Requests that run at this moment.
    #[serde(rename = "s", default, skip_serializing_if = "is_default")]
    pub streams: u32,
    /// Requests of all gateways that have not been worked off at the key's rate, as this one knows
    /// them: for a peer that has just come.
    #[serde(rename = "x", default, skip_serializing_if = "is_default")]
    pub requests_level: f64,
    /// The same of tokens.
    #[serde(rename = "y", default, skip_serializing_if = "is_default")]
    pub tokens_level: f64,
}
