//! Estimates how many tokens an answer will have, from its request. The real number replaces the estimate when the
//! request ends.

use serde::Deserialize;

use super::limits::{ASSUMED_COMPLETION, MAX_ASSUMED_COMPLETION};
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
}

/// Tokens of the answer to `body`, over all choices.
pub(crate) fn completion(kind: RequestKind, body: &[u8]) -> u64 {
    if !kind.is_generated() {
        return 0;
    }
    // The body was checked before. The engine refuses what is still not a number.
    let bounds: Option<AnswerBounds> = serde_json::from_slice(body).ok();
    let asked = |bounds: &AnswerBounds| bounds.max_completion_tokens.or(bounds.max_tokens);
    let (each, choices) = match &bounds {
        Some(bounds) => (asked(bounds), bounds.n.unwrap_or(1.0)),
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
        assert_eq!(completion(RequestKind::Embeddings, b"{}"), 0);
    }
}
