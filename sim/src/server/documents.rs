//! JSON documents and pages: whole answers, errors, the model list and the counters.

use serde_json::json;
use tokenbus_protocol::{EngineError, ErrorCode, Finish};

use super::events::{Identity, usage};

/// One choice of an answer that is not streamed.
#[derive(Debug, Clone, Default)]
pub(super) struct Choice {
    /// Its text.
    pub(super) text: String,
    /// Why it ended.
    pub(super) finish_reason: Option<String>,
}

/// An OpenAI error object.
pub(super) fn envelope(error: &EngineError) -> String {
    let kind = match status(error.code) {
        400..=428 => "invalid_request_error",
        429 => "rate_limit_error",
        _ => "server_error",
    };
    let code = error.engine_code.as_deref().unwrap_or(error.code.as_str());
    json!({"error": {"message": error.message, "type": kind, "param": error.param, "code": code}}).to_string()
}

/// HTTP status of an error before the first token.
pub(super) fn status(code: ErrorCode) -> u16 {
    match code {
        ErrorCode::BadRequest | ErrorCode::ContextLengthExceeded | ErrorCode::ContentFilter => 400,
        ErrorCode::UpstreamUnauthorized => 401,
        ErrorCode::UpstreamForbidden => 403,
        ErrorCode::ModelNotFound => 404,
        ErrorCode::TooLarge => 413,
        ErrorCode::RateLimited => 429,
        ErrorCode::EngineUnavailable | ErrorCode::WorkerOverloaded | ErrorCode::Draining => 503,
        ErrorCode::Timeout => 504,
        ErrorCode::Cancelled | ErrorCode::Internal => 500,
    }
}

/// An answer that is not streamed.
pub(super) fn completion(identity: &Identity, choices: &[Choice], finish: &Finish) -> String {
    let choices: Vec<_> = choices
        .iter()
        .enumerate()
        .map(|(index, choice)| {
            json!({"index": index, "message": {"role": "assistant", "content": choice.text},
                "logprobs": null, "finish_reason": choice.finish_reason})
        })
        .collect();
    let mut document = json!({"id": identity.id, "object": "chat.completion", "created": identity.created,
        "model": identity.model, "choices": choices});
    if let (Some(members), Ok(usage)) = (document.as_object_mut(), serde_json::from_str(&usage(finish))) {
        members.insert("usage".to_owned(), usage);
    }
    document.to_string()
}

/// The model list.
pub(super) fn models(names: &[String]) -> String {
    let models: Vec<_> = names
        .iter()
        .map(|name| json!({"id": name, "object": "model", "created": 0, "owned_by": "tokenbus-sim"}))
        .collect();
    json!({"object": "list", "data": models}).to_string()
}

/// The counters, in the text form of Prometheus.
pub(super) fn metrics(running: u64, waiting: u64, requests: u64, tokens: u64) -> String {
    let mut page = String::new();
    for (name, kind, value) in [
        ("sim_server_requests_running", "gauge", running),
        ("sim_server_requests_waiting", "gauge", waiting),
        ("sim_server_requests_total", "counter", requests),
        ("sim_server_generated_tokens_total", "counter", tokens),
    ] {
        page.push_str(&format!("# TYPE {name} {kind}\n{name} {value}\n"));
    }
    page
}
