//! Gateways tell each other of requests of which engines died, so that no client kills further engines through another
//! gateway.

use serde::{Deserialize, Serialize};

use crate::name::Name;

/// Engines died of a request. It is refused for a time, wherever it comes next.
///
/// Who has the request recognizes it, and nobody can read it from this. The salt is new for each message, so no table
/// of hashed prompts fits two of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadlyRequest {
    /// The gateway that saw it.
    pub gateway: Name,
    /// Random bytes.
    #[serde(rename = "s", with = "serde_bytes")]
    pub salt: [u8; 16],
    /// SHA-256 of the salt and of the SHA-256 of the request: the length of the model's name in eight bytes, the
    /// largest first; the name; the body.
    #[serde(rename = "d", with = "serde_bytes")]
    pub digest: [u8; 32],
}
