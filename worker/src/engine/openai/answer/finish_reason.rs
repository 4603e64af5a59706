//! What an engine's finish reasons mean. Only the reasons of this table end an answer well. Pure.

/// How a choice ended, by the words of its engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// The answer is whole, for the reason that OpenAI has for it.
    Whole(&'static str),
    /// The engine gave the answer up: it was shut down, put to sleep, or it failed.
    GivenUp,
}

/// The finish reasons of OpenAI, and the words that engines and providers have for the same.
/// Compared without regard to case.
///
/// Sources: OpenAI's reference (the first of each row). TGI: `eos_token`, `stop_sequence`. Anthropic:
/// `end_turn`, `max_tokens`, `tool_use`, `refusal`, `model_context_window_exceeded`. Mistral: `model_length`.
/// Cohere: `COMPLETE`, `MAX_TOKENS`, `TOOL_CALL`. Gemini: `STOP`, `SAFETY`, `RECITATION`, `LANGUAGE`, `BLOCKLIST`,
/// `PROHIBITED_CONTENT`, `SPII`. Bedrock: `content_filtered`, `guardrail_intervened`. Zhipu: `sensitive`. Older
/// llama.cpp: `eos`, `word`, `limit`. vLLM: `repetition`, which the client itself asked to stop at.
/// Older Together and Fireworks: `eos`. OpenAI's Responses: `max_output_tokens`. TensorRT-LLM: `end_id`, `stop_words`.
/// watsonx: `TOKEN_LIMIT`. Cohere before version 2: `ERROR_LIMIT`, `ERROR_TOXIC`. Gemini through OpenAI's API says why
/// behind a colon: `content_filter: PROHIBITED_CONTENT`. The AI SDK and what is built on it write `tool-calls`.
const KNOWN: [(&str, &[&str]); 5] = [
    (
        "stop",
        &[
            "eos",
            "eos_token",
            "stop_sequence",
            "stop_token",
            "stop_str",
            "stop_words",
            "end_id",
            "end_turn",
            "end",
            "complete",
            "completed",
            "word",
            "repetition",
        ],
    ),
    (
        "length",
        &[
            "max_tokens",
            "max_output_tokens",
            "max_length",
            "model_length",
            "token_limit",
            "error_limit",
            "model_context_window_exceeded",
            "limit",
        ],
    ),
    ("tool_calls", &["tool_call", "tool_use"]),
    (
        "content_filter",
        &[
            "content_filtered",
            "guardrail_intervened",
            "refusal",
            "safety",
            "sensitive",
            "image_safety",
            "error_toxic",
            "recitation",
            "language",
            "blocklist",
            "prohibited_content",
            "spii",
        ],
    ),
    ("function_call", &[]),
];

/// What the finish reason `said` means.
pub(super) fn ending(said: &str) -> Ending {
    let word = said.split_once(':').map_or(said, |(word, _)| word).replace('-', "_");
    let is = |name: &str| name.eq_ignore_ascii_case(&word);
    let known = KNOWN
        .iter()
        .find(|(name, others)| is(name) || others.iter().any(|other| is(other)));
    known.map_or(Ending::GivenUp, |(name, _)| Ending::Whole(name))
}

/// The calls that a choice has made. They tell what its finish reason would be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Calls {
    #[default]
    None,
    Tools,
    Function,
}

impl Calls {
    /// What they are with the member `name` of a delta.
    pub(super) fn and(self, name: &str) -> Self {
        match name {
            "tool_calls" => Self::Tools,
            "function_call" => Self::Function,
            _ => self,
        }
    }

    /// The finish reason of a choice whose engine said that all is done, but not why.
    pub(super) fn finish_reason(self) -> &'static str {
        match self {
            Self::None => "stop",
            Self::Tools => "tool_calls",
            Self::Function => "function_call",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openais_reasons_stay_what_they_are() {
        for reason in ["stop", "length", "tool_calls", "content_filter", "function_call"] {
            assert_eq!(ending(reason), Ending::Whole(reason));
        }
    }

    #[test]
    fn other_words_for_the_same_are_translated() {
        let table = [
            ("eos", "stop"),
            ("end_turn", "stop"),
            ("stop_sequence", "stop"),
            ("STOP", "stop"),
            ("COMPLETE", "stop"),
            ("max_tokens", "length"),
            ("MAX_TOKENS", "length"),
            ("model_length", "length"),
            ("tool_use", "tool_calls"),
            ("SAFETY", "content_filter"),
            ("content_filter: PROHIBITED_CONTENT", "content_filter"),
            ("content-filter", "content_filter"),
            ("tool-calls", "tool_calls"),
            ("end_id", "stop"),
            ("TOKEN_LIMIT", "length"),
        ];
        for (said, means) in table {
            assert_eq!(ending(said), Ending::Whole(means), "{said}");
        }
    }

    #[test]
    fn any_other_word_is_an_answer_given_up() {
        for said in [
            "abort",
            "aborted",
            "cancelled",
            "canceled",
            "error",
            "insufficient_system_resource",
            "network_error",
            "OTHER",
            "preempted",
            "function_call_filter: MALFORMED_FUNCTION_CALL",
            "time_limit",
            "timed_out",
            "not-finished",
            " ",
        ] {
            assert_eq!(ending(said), Ending::GivenUp, "{said}");
        }
    }

    #[test]
    fn calls_decide_what_was_left_unsaid() {
        let of = |names: &[&str]| {
            names
                .iter()
                .fold(Calls::None, |calls, name| calls.and(name))
                .finish_reason()
        };
        assert_eq!(of(&["content", "reasoning"]), "stop");
        assert_eq!(of(&["tool_calls", "reasoning"]), "tool_calls");
        assert_eq!(of(&["function_call"]), "function_call");
    }
}
