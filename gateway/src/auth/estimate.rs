//! Estimates how many tokens a request will use, from its body. The real number replaces the estimate when the request
//! ends.

use memchr::memmem;
use serde::Deserialize;

use super::limits::{ASSUMED_ATTACHMENT, ASSUMED_COMPLETION, BYTES_PER_TOKEN, MAX_ASSUMED_COMPLETION};
use tokenbus_protocol::RequestKind;

/// The text before base64 data: in a data URL, or in an attachment's own member.
const ENCODED: [&[u8]; 2] = [b";base64,", b"\"data\":\""];

/// Tokens of the prompt in `body`, by its bytes. Encoded data (images, sounds) counts as an attachment, not by its
/// length.
pub(crate) fn prompt(body: &[u8]) -> u64 {
    let mut text = body.len() as u64;
    let mut attachments = 0;
    for mark in ENCODED {
        let mut rest = body;
        while let Some(at) = memmem::find(rest, mark) {
            let encoded = rest.get(at + mark.len()..).unwrap_or_default();
            let end = memchr::memchr(b'"', encoded).unwrap_or(encoded.len());
            // Short data counts as text.
            if end as u64 > ASSUMED_ATTACHMENT * BYTES_PER_TOKEN {
                text = text.saturating_sub(end as u64);
                attachments += 1;
            }
            rest = encoded.get(end..).unwrap_or_default();
        }
    }
    text / BYTES_PER_TOKEN + attachments * ASSUMED_ATTACHMENT
}

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

    #[test]
    fn a_prompt_counts_by_its_text_and_not_by_its_images() {
        assert_eq!(prompt(&[b'x'; 4000]), 1000);
        assert_eq!(prompt(b"{}"), 0);
        let image = format!(r#"{{"url":"data:image/png;base64,{}"}}"#, "A".repeat(1_000_000));
        let counted = prompt(format!("[{image},{image}]").as_bytes());
        assert!((2000..2030).contains(&counted), "{counted}");
        let sound = format!(r#"{{"input_audio":{{"data":"{}"}}}}"#, "A".repeat(1_000_000));
        assert!((1000..1020).contains(&prompt(sound.as_bytes())));
        assert_eq!(prompt(br#"the header says ;base64, and "data":"x" is short"#), 12);
    }
}
