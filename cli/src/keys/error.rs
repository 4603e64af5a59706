//! Errors of making, revoking and listing keys.

use tokenbus_protocol::Name;

/// Keys cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub(super) enum KeysError {
    /// The name is taken.
    #[error("there is a key {0} already: revoke it first, or choose another name")]
    Exists(Name),
    /// There is no such key.
    #[error("there is no key {0}; `tokenbus keys list` lists those that there are")]
    Unknown(Name),
    /// The file or the bucket failed.
    #[error("{place}: {reason}")]
    Place { place: String, reason: String },
}
