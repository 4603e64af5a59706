//! What a job asks of the server: its calls, and how the answer to each joins what the client has.

use bytes::Bytes;
use tokenbus_protocol::Finish;

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
    /// The client's answer is part of the prompt. An engine that refuses that does not refuse the
    /// client's request.
    pub(crate) continues: bool,
    /// How the answer joins what the client has.
    pub(crate) seam: Seam,
    /// Where the answer tells its tokens.
    pub(crate) counting: Counting,
    /// What of the answer the client asked for by itself.
    pub(crate) asked: Asked,
    /// What is asked instead where the engine refuses this, or answers otherwise than before.
    pub(crate) otherwise: Option<Box<Call>>,
}

impl Call {
    /// The end of an answer that passed `seam`, with the tokens that are new. An answer that was
    /// generated again has tokens that the client was told of before. White space that came again
    /// was not in the prompt.
    pub(crate) fn joined(&self, mut finish: Finish, seam: &Seam) -> Finish {
        let repeated = if self.again == 0 { seam.repeated() } else { 0 };
        if self.again + repeated > 0 {
            let had = self.again + repeated;
            finish.completion_tokens = finish.completion_tokens.map(|tokens| tokens.saturating_sub(had));
            finish.prompt_tokens = finish.prompt_tokens.map(|tokens| tokens + repeated);
        }
        finish
    }
}

/// What of an answer the client asked for by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Asked {
    /// The usage in each chunk.
    pub(crate) usage_in_chunks: bool,
    /// No chunk for the usage: what engines tell beside it belongs to the end of the choice.
    pub(crate) no_usage_chunk: bool,
    /// No stream: tool calls are checked before any output is sent on.
    pub(crate) check_calls: bool,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_count_once() {
        let finish = Finish {
            prompt_tokens: Some(9),
            completion_tokens: Some(5),
            ..Finish::default()
        };
        let counts = |again| {
            let call = Call {
                body: Bytes::new(),
                choice: None,
                choices: 1,
                each: 1,
                echoes: Vec::new(),
                delivered: 0,
                again,
                continues: false,
                seam: Seam::Open,
                counting: Counting::Chunks,
                asked: Asked::default(),
                otherwise: None,
            };
            let finish = call.joined(finish.clone(), &Seam::Open);
            (finish.prompt_tokens, finish.completion_tokens)
        };
        assert_eq!(counts(3), (Some(9), Some(2)));
        assert_eq!(counts(0), (Some(9), Some(5)));
        assert_eq!(counts(9), (Some(9), Some(0)));
    }
}
