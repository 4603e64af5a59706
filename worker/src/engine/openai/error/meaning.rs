//! What an engine's refusal means: a status and an error object become an error of the cluster.

use std::time::{Duration, SystemTime};

use http::StatusCode;
use tokenbus_protocol::{EngineError, ErrorCode};

use super::object::Said;
use super::secrets::Secrets;

/// An answer with a status other than 2xx. `retry_after` is that header's text, `now` the time of
/// day against which a date in it is measured.
pub(crate) fn from_response(
    status: StatusCode,
    retry_after: Option<&str>,
    body: &[u8],
    now: SystemTime,
    secrets: &Secrets,
) -> EngineError {
    let said = Said::parse(body).unwrap_or_default();
    let mut error = classify(status.as_u16(), said, secrets);
    error.retry_after_ms = retry_after.and_then(|text| retry_after_ms(text, now));
    error
}

/// An error object in the middle of a stream that began well.
pub(crate) fn from_stream(json: &str, secrets: &Secrets) -> EngineError {
    let said = Said::parse(json.as_bytes()).unwrap_or_else(|| Said {
        message: Some(serde_json::from_str(json).unwrap_or_else(|_| json.to_owned())),
        ..Said::default()
    });
    let names = [said.kind.as_deref(), said.code.as_deref()].into_iter().flatten();
    let status = said.status.or_else(|| names.filter_map(status_of_name).next());
    classify(status.unwrap_or(500), said, secrets)
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

/// Seconds or an HTTP date, as milliseconds from `now`; at most a day, for clocks differ.
pub(super) fn retry_after_ms(text: &str, now: SystemTime) -> Option<u64> {
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
