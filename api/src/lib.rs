//! The public APIs of tokenbus, each as a translation: what a client sent is checked and becomes the one internal
//! request that goes through the cluster, and the deltas that come back become what the client reads. Pure: nothing
//! here waits, reads a clock or decides a status.
//!
//! An API's `check` makes a [`request::Checked`] of a body, or says with a [`request::RequestError`] what is wrong and
//! where. The [`answer::Form`] in it writes the answer: event by event, or in one piece. Each API has a module of its
//! own: [`chat`], [`completions`], [`embeddings`], [`rank`], [`tokens`], and [`responses`] and [`messages`], which
//! become chat and come back from it; [`models`] is the list of models.

pub mod answer;
pub mod chat;
pub mod completions;
pub mod embeddings;
mod generation;
pub mod limits;
pub mod messages;
pub mod models;
pub mod rank;
pub mod request;
pub mod responses;
#[cfg(test)]
mod sample_tests;
pub mod tokens;
mod translation;

use uuid::Uuid;

/// The members that are the same in every chunk and in the collected answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// `chatcmpl-…`, or as another API calls it.
    pub id: String,
    /// Unix time in seconds.
    pub created: u64,
    /// The model as the client asked for it.
    pub model: String,
}

impl Identity {
    /// Names the answer to the chat call `id`.
    pub fn new(id: Uuid, created: u64, model: &str) -> Self {
        Self::prefixed("chatcmpl-", id, created, model)
    }

    /// Names the answer to the call `id` in an API whose ids begin with `prefix`.
    pub fn prefixed(prefix: &str, id: Uuid, created: u64, model: &str) -> Self {
        Self {
            id: format!("{prefix}{}", id.simple()),
            created,
            model: model.to_owned(),
        }
    }
}

/// Why what a worker sent is no answer of the OpenAI API.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// A choice beyond what any request can ask for.
    #[error("the engine answered with choice {0}, which no request can ask for")]
    TooManyChoices(u32),
    /// The stream finished without a single choice.
    #[error("the engine finished without an answer")]
    NoAnswer,
    /// Larger than is kept in memory for a client that does not stream.
    #[error("the answer is larger than {} MiB; ask for a stream instead", limits::MAX_ANSWER / (1024 * 1024))]
    TooLarge,
}
