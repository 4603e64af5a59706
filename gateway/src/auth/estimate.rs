//! Estimates how many tokens a request and its answers will have. The real number replaces the estimate when the
//! request ends.

use serde::Deserialize;

use super::limits::{ASSUMED_COMPLETION, MAX_ASSUMED_COMPLETION};
use tokenbus_api::{PromptEstimate, estimate};
use tokenbus_protocol::RequestKind;

/// The members that bound an answer's length.
#[derive(Deserialize)]
struct AnswerBounds {
    #[serde(default)]
    max_tokens: Option<f64>,
    #[serde(default)]
    max_completion_tokens: Option<f64>,
    #[serde(default)]
    n: Option<f64>,
    // Choices that are generated, of which only the best are answered.
    #[serde(default)]
    best_of: Option<f64>,
}

/// Estimated tokens of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Estimate {
    /// Of its prompts.
    pub prompt: u64,
    /// Of all its answers.
    pub completion: u64,
}

/// Tokens of the request `body`. `filled` is the body with the members that its model's defaults add.
pub(crate) fn request(kind: RequestKind, body: &[u8], filled: Option<&[u8]>) -> Estimate {
    let PromptEstimate { tokens, prompts } = estimate(body);
    Estimate {
        prompt: tokens,
        completion: completion(kind, filled.unwrap_or(body)).saturating_mul(prompts),
    }
}

/// Tokens of the answer to one prompt of `body`, over all choices.
fn completion(kind: RequestKind, body: &[u8]) -> u64 {
    if !kind.is_generated() {
        return 0;
    }
    // The body was checked before. The engine refuses what is still not a number.
    let bounds: Option<AnswerBounds> = serde_json::from_slice(body).ok();
    let asked = |bounds: &AnswerBounds| bounds.max_completion_tokens.or(bounds.max_tokens);
    let (each, choices) = match &bounds {
        Some(bounds) => (
            asked(bounds),
            bounds.n.unwrap_or(1.0).max(bounds.best_of.unwrap_or(1.0)),
        ),
        None => (None, 1.0),
    };
    // A cast from a float saturates, and turns NaN into 0.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let each = each
        // Less than 0 is "no limit" to llama.cpp and others.
        .filter(|each| *each >= 0.0)
        .map_or(ASSUMED_COMPLETION, |each| each as u64)
        .min(MAX_ASSUMED_COMPLETION);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let choices = (choices as u64).clamp(1, 128);
    each * choices
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chat(body: &str) -> u64 {
        completion(RequestKind::Chat, body.as_bytes())
    }

    #[test]
    fn an_answer_is_as_long_as_it_may_be_within_reason() {
        assert_eq!(chat(r#"{"max_tokens":7}"#), 7);
        assert_eq!(chat(r#"{"max_tokens":7,"max_completion_tokens":9,"n":3}"#), 27);
        assert_eq!(
            chat(r#"{"max_tokens":null,"messages":[{"max_tokens":1}]}"#),
            ASSUMED_COMPLETION
        );
        assert_eq!(chat(r#"{"max_tokens":1000000}"#), MAX_ASSUMED_COMPLETION);
        for odd in [r#"{"max_tokens":"x"}"#, "[]", ""] {
            assert_eq!(chat(odd), ASSUMED_COMPLETION, "{odd}");
        }
        assert_eq!(chat(r#"{"max_tokens":-1}"#), ASSUMED_COMPLETION);
        assert_eq!(chat(r#"{"max_tokens":0,"n":1e99}"#), 0);
        assert_eq!(chat(r#"{"max_tokens":7,"n":2,"best_of":5}"#), 35);
        assert_eq!(completion(RequestKind::Embeddings, b"{}"), 0);
    }

    #[test]
    fn each_prompt_of_a_list_is_answered() {
        let body = br#"{"prompt":["a","b","c"],"n":2}"#;
        let defaults = br#"{"prompt":["a","b","c"],"n":2,"max_tokens":10}"#;
        let counted = |filled| request(RequestKind::Completion, body, filled).completion;
        assert_eq!(counted(None), 6 * ASSUMED_COMPLETION);
        assert_eq!(counted(Some(defaults)), 60);
        assert_eq!(request(RequestKind::Embeddings, body, None).completion, 0);
    }
}
