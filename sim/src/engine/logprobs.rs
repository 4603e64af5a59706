//! Log probabilities of the simulated engine's tokens: each token has the probability one half. Pure.

use serde_json::{Value, json};
use tokenbus_protocol::RawJson;

/// Log probability of each token.
const LOGPROB: f64 = -std::f64::consts::LN_2;

/// Log probabilities of `token` and of `top` tokens beside it, in the form of a chat, or of a text completion in which
/// `before` bytes precede the token.
pub(super) fn of(token: &str, top: usize, is_text: bool, before: usize) -> Option<RawJson> {
    let others: Vec<(String, f64)> = (0..top.min(20))
        .map(|n| {
            (
                if n == 0 { token.to_owned() } else { format!("o{n} ") },
                LOGPROB - n as f64,
            )
        })
        .collect();
    let value = if is_text {
        let others: serde_json::Map<String, Value> = others.into_iter().map(|(text, p)| (text, json!(p))).collect();
        json!({"tokens": [token], "token_logprobs": [LOGPROB], "top_logprobs": [others], "text_offset": [before]})
    } else {
        let others: Vec<Value> = others.iter().map(|(text, p)| entry(text, *p)).collect();
        let mut content = entry(token, LOGPROB);
        if let Some(content) = content.as_object_mut() {
            content.insert("top_logprobs".to_owned(), Value::Array(others));
        }
        json!({"content": [content], "refusal": null})
    };
    RawJson::from_serialize(&value).ok()
}

fn entry(token: &str, logprob: f64) -> Value {
    json!({"token": token, "logprob": logprob, "bytes": token.as_bytes()})
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_have_the_token_and_its_neighbours() {
        let chat: Value = of("t0 ", 2, false, 0).unwrap().parse().unwrap();
        assert_eq!(chat.pointer("/content/0/token"), Some(&json!("t0 ")));
        assert_eq!(
            chat.pointer("/content/0/top_logprobs")
                .unwrap()
                .as_array()
                .unwrap()
                .len(),
            2
        );
        let text: Value = of("t0 ", 1, true, 7).unwrap().parse().unwrap();
        assert_eq!(text.pointer("/text_offset/0"), Some(&json!(7)));
        assert!(text.pointer("/top_logprobs/0/t0 ").unwrap().as_f64().unwrap() < 0.0);
    }
}
