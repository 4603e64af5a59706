//! What a job asks of the server: its calls, and how the answer to each joins what the client has.

use bytes::Bytes;

use super::count::Counting;
use super::seam::Seam;
use crate::engine::openai::manner::Sent;

/// One request to the server.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Call {
    /// The JSON to send.
    pub(crate) body: Bytes,
    /// Set when the answer is one choice only and this is its index for the client.
    pub(crate) choice: Option<u32>,
    /// Choices that the answer will have.
    pub(crate) choices: u32,
    /// Choices of each prompt.
    pub(crate) each: u32,
    /// Texts before the first token of their choices: the prompts, for a server that has no echo.
    pub(crate) echoes: Vec<String>,
    /// Tokens of the prompt that are no prompt but an answer delivered earlier.
    pub(crate) delivered: u64,
    /// Tokens of the answer that the client has: it is generated again from the start.
    pub(crate) again: u64,
    /// How the answer joins what the client has.
    pub(crate) seam: Seam,
    /// Where the answer tells its tokens.
    pub(crate) counting: Counting,
    /// What of the answer the client asked for by itself.
    pub(crate) asked: Asked,
}

/// What of an answer the client asked for by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Asked {
    /// The usage in each chunk.
    pub(crate) usage_in_chunks: bool,
    /// No chunk for the usage: what engines tell beside it belongs to the end of the choice.
    pub(crate) no_usage_chunk: bool,
}

/// All that a job asks of the server.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Plan {
    /// Requests to send, at once. More than one only after a failover with `n > 1`.
    pub(crate) calls: Vec<Call>,
    /// Choices that reached their token limit before they were handed over.
    pub(crate) exhausted: Vec<u32>,
    /// What the requests are, for what the server may say of them.
    pub(crate) sent: Sent,
}
