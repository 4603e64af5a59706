//! Gateways share the consumption of API keys, so that limits hold across all of them.

use serde::{Deserialize, Serialize};

use crate::name::Name;
use crate::spending::{Amount, Spending};
use crate::wire::is_default;

/// The consumption of one gateway's clients. Counts accumulate from the start of the gateway, so the next message
/// makes up for a lost one. A count only falls when an estimate was too high.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Consumption {
    /// The gateway. Ids are never reused, so the counts of each id begin at 0.
    pub gateway: Name,
    /// Grows by one with each message of this gateway, from 0. Receivers drop messages that are older than the last
    /// one.
    pub seq: u64,
    /// The gateway has just started and asks its peers for what they know.
    #[serde(default, skip_serializing_if = "is_default")]
    pub hello: bool,
    /// This message completes a round: the gateway has now sent every key that is not idle.
    #[serde(default, skip_serializing_if = "is_default")]
    pub complete: bool,
    /// Keys with news; the others are unchanged.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<KeyConsumption>,
}

/// The consumption of one key at one gateway.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KeyConsumption {
    /// Name of the key.
    #[serde(rename = "k")]
    pub key: String,
    /// Requests since the gateway's start.
    #[serde(rename = "r", default, skip_serializing_if = "is_default")]
    pub requests: u64,
    /// Tokens since the gateway's start, including estimates for running requests.
    #[serde(rename = "t", default, skip_serializing_if = "is_default")]
    pub tokens: i64,
    /// Requests that are running now.
    #[serde(rename = "s", default, skip_serializing_if = "is_default")]
    pub streams: u32,
    /// Level of the request bucket over all gateways, as this gateway knows it: requests that the key's rate has
    /// not worked off yet. For a peer that has just started.
    #[serde(rename = "x", default, skip_serializing_if = "is_default")]
    pub requests_level: f64,
    /// The same for tokens.
    #[serde(rename = "y", default, skip_serializing_if = "is_default")]
    pub tokens_level: f64,
    /// What requests that run now are expected to use, for the key's budgets.
    #[serde(rename = "e", default, skip_serializing_if = "is_default")]
    pub expected: Amount,
    /// What ended requests used that is not stored yet, for the key's budgets.
    #[serde(rename = "u", default, skip_serializing_if = "is_default")]
    pub unsaved: Spending,
}
