//! The members that every chunk of an answer and its whole share.

use uuid::Uuid;

/// The members that are the same in every chunk and in the collected answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The answer's id: `chatcmpl-…`, or with the prefix of another API.
    pub id: String,
    /// Unix time in seconds.
    pub created: u64,
    /// The model, by the name that the client used.
    pub model: String,
}

impl Identity {
    /// Names the answer to the call `id` in an API whose ids begin with `prefix`.
    pub fn new(prefix: &str, id: Uuid, created: u64, model: &str) -> Self {
        Self {
            id: format!("{prefix}{}", id.simple()),
            created,
            model: model.to_owned(),
        }
    }
}
