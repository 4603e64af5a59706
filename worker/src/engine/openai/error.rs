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
    /// Where others than OpenAI put the status.
    status: Option<Value>,
    #[serde(alias = "statusCode", alias = "error_code")]
    status_code: Option<Value>,
    /// FastAPI's own errors.
    detail: Option<Value>,
    error: Option<Value>,
    /// Cloudflare's: a list of objects.
    errors: Option<Value>,
    /// What Baidu, Zhipu and others call the message.
    #[serde(alias = "error_msg", alias = "error_message", alias = "errorMessage")]
    msg: Option<Value>,
}

impl ErrorObject {
    /// Reads an object, or the first of a list (Gemini's streams).
    fn parse(json: &[u8]) -> Option<Self> {
        let value = match serde_json::from_slice(json).ok()? {
            Value::Array(list) => list.into_iter().next()?,
            value => value,
        };
        value.is_object().then(|| serde_json::from_value(value).ok()).flatten()
    }

    /// Whether it tells of an error. `message` alone is a member that any object may have.
    fn is_error(&self) -> bool {
        let is_there = |value: &Option<Value>| value.as_ref().is_some_and(|value| !value.is_null());
        // A list of no errors and a code for success are none.
        let has_some = |value: &Option<Value>| is_there(value) && *value != Some(Value::Array(Vec::new()));
        let fails = |value: &Option<Value>| {
            let good = [Value::from(0), Value::from(200), Value::from("0"), Value::from("200")];
            value
                .as_ref()
                .is_some_and(|value| !value.is_null() && !good.contains(value))
        };
        let says = (is_there(&self.message) || is_there(&self.msg))
            && [&self.kind, &self.code, &self.status, &self.status_code]
                .into_iter()
                .any(fails);
        is_there(&self.error) || has_some(&self.errors) || is_there(&self.detail) || says
    }
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
    let said = ErrorObject::parse(body).map(read).unwrap_or_default();
    let mut error = classify(status.as_u16(), said, secrets);
    error.retry_after_ms = retry_after.and_then(|text| retry_after_ms(text, now));
    error
}

/// An error object in the middle of a stream that began well.
pub(super) fn from_stream(json: &str, secrets: &Secrets) -> EngineError {
    let said = match ErrorObject::parse(json.as_bytes()) {
        Some(object) => read(object),
        None => Said {
            message: Some(serde_json::from_str(json).unwrap_or_else(|_| json.to_owned())),
            ..Said::default()
        },
    };
    let names = [said.kind.as_deref(), said.code.as_deref()].into_iter().flatten();
    let status = said.status.or_else(|| names.filter_map(status_of_name).next());
    classify(status.unwrap_or(500), said, secrets)
}

/// Whether `json`, an event that has neither choices nor a usage, tells of an error.
pub(super) fn is_error_object(json: &str) -> bool {
    ErrorObject::parse(json.as_bytes()).is_some_and(|object| object.is_error())
}

/// The server cannot be reached, or closed the connection before it answered.
pub(super) fn unreachable() -> EngineError {
    plain(ErrorCode::EngineUnavailable, "the engine cannot be reached", true)
}

/// Marks that the engine closed the connection of a request that it had taken: its process may have died of that request.
const DIED: &str = "engine_died";

/// The server took the request and closed the connection before it answered, or in the middle of its answer.
pub(super) fn died() -> EngineError {
    EngineError {
        engine_code: Some(DIED.to_owned()),
        ..plain(
            ErrorCode::EngineUnavailable,
            "the engine closed the connection before its answer was complete",
            true,
        )
    }
}

/// The server listens no more, and its open streams are silent.
pub(super) fn lost() -> EngineError {
    plain(
        ErrorCode::EngineUnavailable,
        "the engine takes no connections any more and left the answer silent",
        true,
    )
}

/// The server says that it is healthy, and generates nothing.
pub(super) fn hung() -> EngineError {
    plain(
        ErrorCode::EngineUnavailable,
        "the engine is up but generates nothing any more",
        true,
    )
}

/// The stream ended, or its connection broke, before the engine said that the answer is complete.
pub(super) fn truncated() -> EngineError {
    plain(
        ErrorCode::EngineUnavailable,
        "the engine's answer ended without a finish",
        true,
    )
}

/// Marks an answer that the engine gave up, which it does on purpose: it is paused, scaled down or short of memory.
const GAVE_UP: &str = "engine_gave_up";

/// The engine ended the answer with the finish reason `said`, which is none of a whole answer.
pub(super) fn given_up(said: &str, secrets: &Secrets) -> EngineError {
    let message = format!("the engine gave the answer up (finish_reason {said:?})");
    EngineError {
        engine_code: Some(GAVE_UP.to_owned()),
        ..plain(ErrorCode::EngineUnavailable, secrets.clean(&message), true)
    }
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

/// Whether this failure speaks against the server rather than against the request. An answer that the engine gave up
/// does not: the engine is well enough to say so, and its health tells whether it ends.
pub(super) fn is_fault(error: &EngineError) -> bool {
    matches!(
        error.code,
        ErrorCode::EngineUnavailable | ErrorCode::Internal | ErrorCode::Timeout
    ) && error.retryable
        && !is_not_continuable(error)
        && error.engine_code.as_deref() != Some(GAVE_UP)
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

/// Most servers have no code for it, only their sentence.
fn speaks_of_context(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    [
        "maximum context length",
        "model's context length",
        "exceeds the available context size",
        "maximum model length",
        // Ollama, LM Studio, TGI, MLC, Groq, Anthropic, Gemini.
        "exceeds the context length",
        "loaded with context length of only",
        "`inputs` tokens + `max_new_tokens` must be <=",
        "larger than the model input length limit",
        "reduce the length of the messages",
        "prompt is too long",
        "exceeds the maximum number of tokens allowed",
    ]
    .iter()
    .any(|text| message.contains(text))
}

/// The status that the `type` or the `code` of an error stands for, by the names in use: OpenAI's, vLLM's and
/// SGLang's (Python's classes), llama.cpp's, Anthropic's, Google's.
fn status_of_name(name: &str) -> Option<u16> {
    let name: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
    let name = name.to_ascii_lowercase();
    Some(match name.strip_suffix("error").unwrap_or(&name) {
        "badrequest"
        | "contentfilter"
        | "contentpolicyviolation"
        | "contextlengthexceeded"
        | "exceedcontextsize"
        | "failedprecondition"
        | "invalidargument"
        | "invalidgrammar"
        | "invalidjsonschema"
        | "invalidrequest"
        | "invalidschema"
        | "invalidvalue"
        | "outofrange"
        | "requestvalidation"
        | "unsupportedparameter"
        | "unsupportedvalue"
        | "validation"
        | "value" => 400,
        "authentication" | "invalidapikey" | "unauthenticated" | "unauthorized" => 401,
        "forbidden" | "permission" | "permissiondenied" => 403,
        "modelnotfound" | "notfound" => 404,
        "requesttoolarge" => 413,
        "unprocessableentity" => 422,
        "insufficientquota" | "ratelimit" | "ratelimitexceeded" | "resourceexhausted" | "toomanyrequests" => 429,
        "notimplemented" | "notsupported" | "unimplemented" => 501,
        "overloaded" | "serviceunavailable" | "unavailable" => 503,
        "deadlineexceeded" | "timeout" => 504,
        _ => return None,
    })
}

fn read(object: ErrorObject) -> Said {
    let first = match object.errors {
        Some(Value::Array(list)) => list.into_iter().next(),
        _ => None,
    };
    match object.error.or(first) {
        Some(Value::String(message)) => {
            return Said {
                message: Some(message),
                ..Said::default()
            };
        }
        Some(inner @ Value::Object(_)) => {
            if let Ok(inner) = serde_json::from_value::<ErrorObject>(inner) {
                // Some put the status beside the error.
                return read(ErrorObject {
                    error: None,
                    errors: None,
                    status: inner.status.or(object.status),
                    status_code: inner.status_code.or(object.status_code),
                    code: inner.code.or(object.code),
                    ..inner
                });
            }
        }
        _ => {}
    }
    let text = |value: Option<Value>| match value {
        Some(Value::String(text)) if !text.is_empty() => Some(text),
        _ => None,
    };
    let status = [&object.code, &object.status, &object.status_code]
        .into_iter()
        .find_map(|said| {
            let status = match said.as_ref()? {
                Value::Number(number) => number.as_u64().and_then(|n| u16::try_from(n).ok()),
                Value::String(text) => text.parse().ok(),
                _ => None,
            };
            status.filter(|status| (400..=599).contains(status))
        });
    // Google's: a number as the code, a name as the status.
    let code = [object.code, object.status]
        .into_iter()
        .find_map(|said| text(said).filter(|name| name.parse::<u32>().is_err()));
    let (detail, detail_param) = object.detail.map(read_detail).unwrap_or_default();
    Said {
        message: text(object.message).or(text(object.msg)).or(detail),
        kind: text(object.kind),
        param: text(object.param).or(detail_param),
        code,
        status,
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
