//! Why a worker's output cannot be an answer.

use crate::limits::MAX_ANSWER;

/// Why the output of a worker is no answer of the OpenAI API.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// A choice beyond the largest number that a request can ask for.
    #[error("the engine answered with choice {0}, which no request can ask for")]
    TooManyChoices(u32),
    /// The stream finished without a single choice.
    #[error("the engine finished without an answer")]
    NoAnswer,
    /// More than the gateway keeps in memory for a client that does not stream.
    #[error("the answer is larger than {} MiB; ask for a stream instead", MAX_ANSWER / (1024 * 1024))]
    TooLarge,
}
