//! Every form of error in use, and what it becomes.
#![allow(clippy::unwrap_used)]

use std::time::SystemTime;

use http::StatusCode;
use tokenbus_protocol::{EngineError, ErrorCode};

use super::meaning::retry_after_ms;
use super::*;
use crate::engine::openai::limits::MAX_ERROR_MESSAGE;

fn answer(status: u16, body: &str) -> EngineError {
    let secrets = Secrets::new(["sk-very-secret".to_owned(), "10.1.2.3:8000".to_owned()]);
    from_response(
        StatusCode::from_u16(status).unwrap(),
        None,
        body.as_bytes(),
        SystemTime::UNIX_EPOCH,
        &secrets,
    )
}

#[test]
fn statuses_keep_their_meaning() {
    let table = [
        (400, ErrorCode::BadRequest, false),
        (401, ErrorCode::UpstreamUnauthorized, true),
        (403, ErrorCode::UpstreamForbidden, true),
        (404, ErrorCode::ModelNotFound, true),
        (408, ErrorCode::Timeout, true),
        (413, ErrorCode::TooLarge, false),
        (422, ErrorCode::BadRequest, false),
        (429, ErrorCode::RateLimited, true),
        (500, ErrorCode::Internal, true),
        (501, ErrorCode::BadRequest, false),
        (502, ErrorCode::EngineUnavailable, true),
        (503, ErrorCode::EngineUnavailable, true),
        (504, ErrorCode::Timeout, true),
        (529, ErrorCode::EngineUnavailable, true),
        (302, ErrorCode::Internal, true),
    ];
    for (status, code, retryable) in table {
        let error = answer(status, "<html>nginx</html>");
        assert_eq!((error.code, error.retryable), (code, retryable), "{status}");
        assert!(!error.message.contains("nginx"));
    }
}

#[test]
fn context_length_is_known_in_every_dialect() {
    let bodies = [
        // OpenAI
        r#"{"error":{"message":"too long","type":"invalid_request_error","param":"messages","code":"context_length_exceeded"}}"#,
        // llama-server
        r#"{"error":{"code":400,"message":"request (5031 tokens) exceeds the available context size (2048 tokens), try increasing it","type":"exceed_context_size_error","n_prompt_tokens":5031,"n_ctx":2048}}"#,
        // vLLM before and after 0.10
        r#"{"object":"error","message":"This model's maximum context length is 2048 tokens. However, you requested 9000 tokens","type":"BadRequestError","param":null,"code":400}"#,
        r#"{"error":{"message":"This model's maximum context length is 2048 tokens.","type":"BadRequestError","param":null,"code":400}}"#,
        // SGLang
        r#"{"object":"error","message":"The input (9000 tokens) is longer than the model's context length (2048 tokens).","type":"BadRequestError","param":null,"code":400}"#,
        // Ollama
        r#"{"error":{"message":"the input length exceeds the context length","type":"invalid_request_error","param":null,"code":null}}"#,
        // LM Studio
        r#"{"error":"Trying to keep the first 9000 tokens when context the overflows. However, the model is loaded with context length of only 4096 tokens"}"#,
        // TGI
        r#"{"error":"Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 9000 `inputs` tokens and 16 `max_new_tokens`","error_type":"validation"}"#,
        // Groq
        r#"{"error":{"message":"Please reduce the length of the messages or completion.","type":"invalid_request_error"}}"#,
        // Anthropic's own, Gemini's
        r#"{"type":"error","error":{"type":"invalid_request_error","message":"prompt is too long: 200001 tokens > 200000 maximum"}}"#,
        r#"[{"error":{"code":400,"message":"The input token count (9000) exceeds the maximum number of tokens allowed (4096).","status":"INVALID_ARGUMENT"}}]"#,
    ];
    for body in bodies {
        let error = answer(400, body);
        assert_eq!(error.code, ErrorCode::ContextLengthExceeded, "{body}");
        assert!(!error.retryable);
        assert!(!error.message.is_empty());
    }
}

#[test]
fn a_500_that_mentions_context_is_no_context_error() {
    let error = answer(
        500,
        r#"{"error":{"message":"maximum context length computation crashed"}}"#,
    );
    assert_eq!(error.code, ErrorCode::Internal);
}

#[test]
fn content_filters_are_known() {
    for (status, code) in [
        (400, "content_filter"),
        (400, "content_policy_violation"),
        (403, "content_filter"),
    ] {
        let body = format!(r#"{{"error":{{"message":"no","code":"{code}"}}}}"#);
        let error = answer(status, &body);
        assert_eq!(error.code, ErrorCode::ContentFilter);
        assert_eq!(error.engine_code.as_deref(), Some(code));
    }
}

#[test]
fn message_param_and_code_are_kept() {
    let error = answer(
        400,
        r#"{"error":{"message":"temperature must be below 2","type":"invalid_request_error","param":"temperature","code":"out_of_range"}}"#,
    );
    assert_eq!(error.message, "temperature must be below 2");
    assert_eq!(error.param.as_deref(), Some("temperature"));
    assert_eq!(error.engine_code.as_deref(), Some("out_of_range"));
}

#[test]
fn a_numeric_code_is_no_code() {
    let error = answer(
        400,
        r#"{"error":{"message":"x","type":"invalid_request_error","code":400}}"#,
    );
    assert_eq!(error.engine_code.as_deref(), Some("invalid_request_error"));
}

#[test]
fn fastapis_details_name_the_field() {
    let error = answer(
        422,
        r#"{"detail":[{"loc":["body","messages",0,"role"],"msg":"field required","type":"missing"}]}"#,
    );
    assert_eq!(error.message, "field required");
    assert_eq!(error.param.as_deref(), Some("messages.0.role"));
    assert_eq!(answer(400, r#"{"detail":"no such thing"}"#).message, "no such thing");
}

#[test]
fn an_error_that_is_only_a_text_is_read() {
    assert_eq!(
        answer(404, r#"{"error":"model 'x' not found"}"#).message,
        "model 'x' not found"
    );
}

#[test]
fn no_secret_and_no_address_is_told() {
    let error = answer(
        500,
        r#"{"error":{"message":"key sk-very-secret at http://10.1.2.3:8000/v1 failed"}}"#,
    );
    assert_eq!(error.message, "key [hidden] at http://[hidden]/v1 failed");
    let error = answer(
        401,
        r#"{"error":{"message":"Incorrect API key provided: sk-v***cret"}}"#,
    );
    assert!(!error.message.contains("sk-"), "{}", error.message);
}

#[test]
fn long_messages_are_cut_at_a_character() {
    let body = serde_json::json!({"error": {"message": "ü".repeat(100_000)}}).to_string();
    assert_eq!(answer(500, &body).message.chars().count(), MAX_ERROR_MESSAGE);
}

#[test]
fn retry_after_is_seconds_or_a_date() {
    let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
    assert_eq!(retry_after_ms("7", now), Some(7000));
    assert_eq!(retry_after_ms(" 0.5 ", now), Some(500));
    assert_eq!(retry_after_ms("Sun, 06 Nov 1994 08:49:40 GMT", now), Some(3000));
    assert_eq!(retry_after_ms("Sun, 06 Nov 1994 08:00:00 GMT", now), Some(0), "past");
    assert_eq!(retry_after_ms("1e300", now), Some(86_400_000), "absurd");
    for bad in ["", "soon", "-1", "NaN", "inf"] {
        assert_eq!(retry_after_ms(bad, now), None, "{bad:?}");
    }
}

#[test]
fn retry_after_reaches_the_error() {
    let status = StatusCode::TOO_MANY_REQUESTS;
    let error = from_response(status, Some("2"), b"{}", SystemTime::UNIX_EPOCH, &Secrets::default());
    assert_eq!((error.code, error.retry_after_ms), (ErrorCode::RateLimited, Some(2000)));
}

#[test]
fn errors_in_a_stream_take_their_status_from_the_object() {
    let of = |json: &str| from_stream(json, &Secrets::default());
    let error = of(r#"{"error":{"code":400,"message":"x","type":"exceed_context_size_error"}}"#);
    assert_eq!((error.code, error.retryable), (ErrorCode::ContextLengthExceeded, false));
    assert_eq!(
        of(r#"{"error":{"message":"x","type":"overloaded_error"}}"#).code,
        ErrorCode::EngineUnavailable
    );
    assert_eq!(
        of(r#"{"error":{"message":"x","type":"server_error"}}"#).code,
        ErrorCode::Internal
    );
    assert_eq!(
        of(r#"{"code":503,"message":"Loading model"}"#).code,
        ErrorCode::EngineUnavailable
    );
    assert_eq!(
        of(r#"{"object":"error","message":"x","code":400}"#).code,
        ErrorCode::BadRequest
    );
    for (json, code, message) in [
        (
            r#"{"success":false,"errors":[{"message":"x","code":5007}]}"#,
            ErrorCode::Internal,
            "x",
        ),
        (
            r#"{"errors":[{"message":"x","code":429}],"result":null}"#,
            ErrorCode::RateLimited,
            "x",
        ),
        (r#"{"error_code":336501,"error_msg":"x"}"#, ErrorCode::Internal, "x"),
        (r#"{"code":"1302","msg":"x"}"#, ErrorCode::Internal, "x"),
        (
            r#"{"status_code":503,"errorMessage":"x"}"#,
            ErrorCode::EngineUnavailable,
            "x",
        ),
    ] {
        let error = of(json);
        assert!(is_error_object(json), "{json}");
        assert_eq!((error.code, error.message.as_str()), (code, message), "{json}");
    }
    for json in [
        r#"{"code":0,"msg":"ok","data":{}}"#,
        r#"{"code":200,"message":"success"}"#,
        r#"{"errors":[]}"#,
        r#"{"message":"hello"}"#,
    ] {
        assert!(!is_error_object(json), "{json}");
    }
    let error = of("boom");
    assert_eq!(
        (error.code, error.message.as_str(), error.retryable),
        (ErrorCode::Internal, "boom", true)
    );
}

#[test]
fn only_the_servers_own_failures_count_against_it() {
    for (status, fault) in [
        (500, true),
        (503, true),
        (400, false),
        (429, false),
        (404, false),
        (501, false),
        (504, true),
    ] {
        assert_eq!(is_fault(&answer(status, "{}")), fault, "{status}");
    }
    assert!(is_fault(&unreachable()) && is_fault(&truncated()));
    assert!(!is_fault(&timeout()) && !is_fault(&not_continuable("x", true)));
}

#[test]
fn any_bytes_become_an_error() {
    for body in [
        &b""[..],
        b"null",
        b"[]",
        b"{\"error\":7}",
        b"{\"error\":{\"message\":{}}}",
        b"\xff\xfe",
        b"{\"detail\":[]}",
    ] {
        for status in [400, 404, 500, 503] {
            let status = StatusCode::from_u16(status).unwrap();
            let error = from_response(status, None, body, SystemTime::UNIX_EPOCH, &Secrets::default());
            assert!(!error.message.is_empty());
        }
    }
}

#[test]
fn an_error_in_a_stream_is_the_clients_in_every_form() {
    let forms = [
        r#"{"error":{"message":"no grammar","type":"BadRequestError","param":null,"code":400}}"#,
        r#"{"error":{"message":"no grammar","type":"BadRequestError","code":"400"}}"#,
        r#"{"error":{"message":"no grammar","type":"invalid_request_error","code":null}}"#,
        r#"{"error":{"message":"no grammar","code":"invalid_json_schema"}}"#,
        r#"{"error":{"message":"no grammar","type":"ValueError"}}"#,
        r#"{"error":{"message":"no grammar","status":"INVALID_ARGUMENT","code":400}}"#,
        r#"{"error":{"message":"no grammar","status_code":400}}"#,
        r#"{"error":{"message":"no grammar"},"statusCode":400}"#,
        r#"{"status":"error","status_code":400,"message":"no grammar"}"#,
        r#"{"error":{"message":"no grammar","type":"server_error"},"code":400}"#,
        r#"{"object":"error","message":"no grammar","type":"BadRequestError","code":400}"#,
        r#"{"message":"no grammar","type":"BadRequestError","code":400}"#,
        r#"{"type":"error","error":{"type":"invalid_request_error","message":"no grammar"}}"#,
        r#"{"detail":"no grammar","status":422}"#,
        r#"[{"error":{"message":"no grammar","code":400}}]"#,
    ];
    for form in forms {
        assert!(is_error_object(form), "{form}");
        let error = from_stream(form, &Secrets::default());
        let told = (error.code, error.retryable, error.message.as_str());
        assert_eq!(told, (ErrorCode::BadRequest, false, "no grammar"), "{form}");
        assert!(!is_fault(&error));
    }
    for form in [
        r#"{"id":"x","object":"chat.completion.chunk"}"#,
        r#"{"message":"hi"}"#,
        r#"{"error":null}"#,
        "[]",
        "7",
    ] {
        assert!(!is_error_object(form), "{form}");
    }
    let error = from_stream(r#""out of memory""#, &Secrets::default());
    assert_eq!(
        (error.code, error.message.as_str()),
        (ErrorCode::Internal, "out of memory")
    );
}
