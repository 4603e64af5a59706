//! What an engine's refusals and failures mean to the cluster.

use std::time::{Duration, SystemTime};

use http::StatusCode;
use serde::Deserialize;
use serde_json::Value;
use tokenbus_protocol::{EngineError, ErrorCode};

use super::limits::MAX_ERROR_MESSAGE;

/// What must never stand in a message to a client: keys, and where the engine lives.
#[derive(Debug, Clone, Default)]
pub(super) struct Secrets(Vec<String>);

impl Secrets {
    pub(super) fn new(secrets: impl IntoIterator<Item = String>) -> Self {
        Self(secrets.into_iter().filter(|secret| secret.len() >= 4).collect())
    }

    /// `text` without them, cut to [`MAX_ERROR_MESSAGE`] characters.
    fn clean(&self, text: &str) -> String {
        let mut clean: String = text.chars().take(MAX_ERROR_MESSAGE).collect();
        for secret in &self.0 {
            if clean.contains(secret.as_str()) {
                clean = clean.replace(secret.as_str(), "[hidden]");
            }
        }
        clean
    }
}

/// What an error object says, in whichever of the forms in use.
#[derive(Debug, Default)]
struct Said {
    message: Option<String>,
    kind: Option<String>,
    param: Option<String>,
    code: Option<String>,
    status: Option<u16>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ErrorObject {
    message: Option<Value>,
    #[serde(rename = "type")]
    kind: Option<Value>,
    param: Option<Value>,
    code: Option<Value>,
    /// FastAPI's own errors.
    detail: Option<Value>,
    error: Option<Value>,
}

/// An answer with a status other than 2xx. `retry_after` is that header's text, `now` the time of
/// day against which a date in it is measured.
pub(super) fn from_response(
    status: StatusCode,
    retry_after: Option<&str>,
    body: &[u8],
    now: SystemTime,
    secrets: &Secrets,
) -> EngineError {
    let said = serde_json::from_slice(body).map(read).unwrap_or_default();
    let mut error = classify(status.as_u16(), said, secrets);
    error.retry_after_ms = retry_after.and_then(|text| retry_after_ms(text, now));
    error
}

/// An error object in the middle of a stream that began well.
pub(super) fn from_stream(json: &str, secrets: &Secrets) -> EngineError {
    let said = match serde_json::from_str(json) {
        Ok(object) => read(object),
        Err(_) => Said {
            message: Some(json.to_owned()),
            ..Said::default()
        },
    };
    let status = said.status.or_else(|| said.kind.as_deref().and_then(status_of_type));
    classify(status.unwrap_or(500), said, secrets)
}

/// The server cannot be reached, or closed the connection before it answered.
pub(super) fn unreachable() -> EngineError {
    plain(ErrorCode::EngineUnavailable, "the engine cannot be reached", true)
}

/// The stream ended, or its connection broke, before the engine said that the answer is complete.
pub(super) fn truncated() -> EngineError {
    plain(
        ErrorCode::EngineUnavailable,
        "the engine's answer ended without a finish",
        true,
    )
}

/// The engine sent what no OpenAI server sends.
pub(super) fn nonsense(what: &str) -> EngineError {
    plain(ErrorCode::Internal, what, true)
}

/// The client's time is over.
pub(super) fn timeout() -> EngineError {
    plain(ErrorCode::Timeout, "the engine did not answer in time", false)
}

/// The request cannot be served as it is; another worker of this kind would say the same.
pub(super) fn unsupported(message: impl Into<String>, param: &'static str) -> EngineError {
    EngineError {
        param: Some(param.to_owned()),
        engine_code: Some("unsupported_feature".to_owned()),
        ..plain(ErrorCode::BadRequest, message, false)
    }
}

/// The engine cannot go on from what the client has already.
pub(super) fn not_continuable(message: &str, retryable: bool) -> EngineError {
    EngineError {
        engine_code: Some("not_continuable".to_owned()),
        ..plain(ErrorCode::EngineUnavailable, message, retryable)
    }
}

/// Whether the engine cannot go on from what the client has already.
pub(super) fn is_not_continuable(error: &EngineError) -> bool {
    error.engine_code.as_deref() == Some("not_continuable")
}

/// Whether the engine refuses a request whose prompt ends with the client's answer. The same request
/// without it was taken before, so it is the answer that the engine or its template does not take.
pub(super) fn refuses_continuation(error: &EngineError) -> bool {
    // Older llama-servers tell the errors of a template as their own.
    let template = || {
        let message = error.message.to_ascii_lowercase();
        ["prefill", "final message", "last message", "assistant"]
            .iter()
            .any(|word| message.contains(word))
    };
    !is_not_continuable(error)
        && match error.code {
            ErrorCode::BadRequest => true,
            ErrorCode::Internal => template(),
            _ => false,
        }
}

/// The engine's refusal, told as what it is: the client's request is not at fault.
pub(super) fn continuation_refused(error: &EngineError) -> EngineError {
    not_continuable(
        &format!("the engine refuses to continue a partial answer: {}", error.message),
        true,
    )
}

/// A deterministic answer was generated again, and is another one.
pub(super) fn came_out_otherwise(retryable: bool) -> EngineError {
    not_continuable("the answer came out differently when it was generated again", retryable)
}

/// An error with nothing but a code and a sentence.
pub(super) fn plain(code: ErrorCode, message: impl Into<String>, retryable: bool) -> EngineError {
    EngineError {
        code,
        message: message.into(),
        param: None,
        engine_code: None,
        retryable,
        retry_after_ms: None,
    }
}

/// Whether this failure speaks against the server rather than against the request.
pub(super) fn is_fault(error: &EngineError) -> bool {
    matches!(
        error.code,
        ErrorCode::EngineUnavailable | ErrorCode::Internal | ErrorCode::Timeout
    ) && error.retryable
        && !is_not_continuable(error)
}

fn classify(status: u16, said: Said, secrets: &Secrets) -> EngineError {
    let code = code_of(status, &said);
    // Providers quote the key that they refuse: these two say nothing of theirs.
    let message = match code {
        ErrorCode::UpstreamUnauthorized => "the engine did not accept this worker's credentials".to_owned(),
        ErrorCode::UpstreamForbidden => "the engine does not allow this worker to do that".to_owned(),
        _ => match &said.message {
            Some(message) if !message.trim().is_empty() => secrets.clean(message.trim()),
            _ => format!("the engine answered with status {status}"),
        },
    };
    let retryable = match code {
        ErrorCode::Internal => status != 501,
        ErrorCode::BadRequest
        | ErrorCode::ContextLengthExceeded
        | ErrorCode::ContentFilter
        | ErrorCode::TooLarge
        | ErrorCode::Cancelled => false,
        _ => true,
    };
    let clean = |text: String| secrets.clean(&text);
    EngineError {
        code,
        message,
        param: said.param.map(clean),
        engine_code: said.code.or(said.kind).map(clean),
        retryable,
        retry_after_ms: None,
    }
}

fn code_of(status: u16, said: &Said) -> ErrorCode {
    let names = [said.code.as_deref(), said.kind.as_deref()];
    let named = |wanted: &[&str]| names.iter().flatten().any(|name| wanted.contains(name));
    match status {
        400 | 413 | 422 | 500 if named(&["context_length_exceeded", "exceed_context_size_error"]) => {
            ErrorCode::ContextLengthExceeded
        }
        400 | 422 if said.message.as_deref().is_some_and(speaks_of_context) => ErrorCode::ContextLengthExceeded,
        400 | 403 | 422
            if named(&[
                "content_filter",
                "content_policy_violation",
                "ResponsibleAIPolicyViolation",
            ]) =>
        {
            ErrorCode::ContentFilter
        }
        401 => ErrorCode::UpstreamUnauthorized,
        403 => ErrorCode::UpstreamForbidden,
        404 => ErrorCode::ModelNotFound,
        408 | 504 => ErrorCode::Timeout,
        413 => ErrorCode::TooLarge,
        429 => ErrorCode::RateLimited,
        // 529 is "overloaded" at some providers.
        502 | 503 | 529 => ErrorCode::EngineUnavailable,
        409 | 425 => ErrorCode::Internal,
        // llama-server says so of what it was not started for.
        501 => ErrorCode::BadRequest,
        400..=499 => ErrorCode::BadRequest,
        _ => ErrorCode::Internal,
    }
}

/// vLLM and SGLang have no code for it, only their sentence.
fn speaks_of_context(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    [
        "maximum context length",
        "model's context length",
        "exceeds the available context size",
        "maximum model length",
    ]
    .iter()
    .any(|text| message.contains(text))
}

fn status_of_type(kind: &str) -> Option<u16> {
    Some(match kind {
        "exceed_context_size_error" | "invalid_request_error" | "BadRequestError" => 400,
        "authentication_error" => 401,
        "permission_error" => 403,
        "not_found_error" | "NotFoundError" => 404,
        "rate_limit_error" | "rate_limit_exceeded" | "insufficient_quota" => 429,
        "unavailable_error" | "overloaded_error" => 503,
        _ => return None,
    })
}

fn read(object: ErrorObject) -> Said {
    match object.error {
        Some(Value::String(message)) => {
            return Said {
                message: Some(message),
                ..Said::default()
            };
        }
        Some(inner @ Value::Object(_)) => {
            if let Ok(inner) = serde_json::from_value::<ErrorObject>(inner) {
                return read(ErrorObject { error: None, ..inner });
            }
        }
        _ => {}
    }
    let text = |value: Option<Value>| match value {
        Some(Value::String(text)) if !text.is_empty() => Some(text),
        _ => None,
    };
    let status = match &object.code {
        Some(Value::Number(number)) => number.as_u64().and_then(|n| u16::try_from(n).ok()),
        Some(Value::String(text)) => text.parse().ok(),
        _ => None,
    };
    let (detail, detail_param) = object.detail.map(read_detail).unwrap_or_default();
    Said {
        message: text(object.message).or(detail),
        kind: text(object.kind),
        param: text(object.param).or(detail_param),
        code: text(object.code).filter(|code| code.parse::<u16>().is_err()),
        status: status.filter(|status| (400..=599).contains(status)),
    }
}

/// FastAPI: a text, or `[{"loc": ["body", "messages", 0], "msg": "…"}]`.
fn read_detail(detail: Value) -> (Option<String>, Option<String>) {
    let first = match detail {
        Value::String(text) => return (Some(text), None),
        Value::Array(list) => list.into_iter().next(),
        other => Some(other),
    };
    let first = first.unwrap_or_default();
    let message = first.get("msg").and_then(Value::as_str).map(str::to_owned);
    let path: Vec<String> = first
        .get("loc")
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default()
        .iter()
        .filter(|part| part.as_str() != Some("body"))
        .map(|part| part.as_str().map_or_else(|| part.to_string(), str::to_owned))
        .collect();
    (message, (!path.is_empty()).then(|| path.join(".")))
}

/// Seconds or an HTTP date, as milliseconds from `now`; at most a day, for clocks differ.
fn retry_after_ms(text: &str, now: SystemTime) -> Option<u64> {
    const DAY: Duration = Duration::from_secs(24 * 3600);
    let text = text.trim();
    let pause = match text.parse::<f64>() {
        Ok(seconds) if seconds.is_finite() && seconds >= 0.0 => Duration::from_secs_f64(seconds.min(DAY.as_secs_f64())),
        Ok(_) => return None,
        Err(_) => httpdate::parse_http_date(text)
            .ok()?
            .duration_since(now)
            .unwrap_or_default(),
    };
    u64::try_from(pause.min(DAY).as_millis()).ok()
}

#[cfg(test)]
#[path = "error_tests.rs"]
mod tests;
