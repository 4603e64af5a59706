//! Requests that many tests send.

use serde_json::{Value, json};

/// A chat request for `model` with one short message.
pub fn ask(model: &str) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": "Hello?"}]})
}

/// Like [`ask`], for at most `tokens` tokens.
pub fn ask_for(model: &str, tokens: u64) -> Value {
    with(ask(model), "max_tokens", json!(tokens))
}

/// `request` with one more member.
#[must_use]
pub fn with(mut request: Value, member: &str, value: Value) -> Value {
    request[member] = value;
    request
}

/// The simulated engine's first `tokens` tokens.
pub fn sim_text(tokens: u64) -> String {
    (0..tokens).map(|number| format!("t{number} ")).collect()
}
