//! The shapes of all APIs: checking what a client sent, translating it into the call that goes through
//! the cluster, encoding what it gets. Pure: nothing here waits, reads a clock or decides a status.

mod blocks;
pub mod chat;
mod chat_body;
pub mod chunk;
pub mod collect;
pub mod completion;
pub mod completion_chunk;
mod content;
mod conversation;
mod count;
pub mod embeddings;
mod fields;
pub mod form;
pub mod json;
pub mod limits;
mod merge;
pub mod messages;
pub mod models;
mod pieces;
mod prompt;
pub mod rank;
pub mod request;
pub mod responses;
#[cfg(test)]
mod sample_tests;
mod taken;
mod text_logprobs;
pub mod tokens;
pub mod usage;
pub mod whole;

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
