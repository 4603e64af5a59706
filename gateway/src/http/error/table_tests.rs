//! The whole table of errors, variant by variant.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use axum::response::IntoResponse as _;
use serde_json::{Value, json};

use tokenbus_protocol::Features;

use super::*;
use crate::call::Stage;

/// Status, type, code, param, Retry-After and outcome, as a client and the metrics see them.
type Row = (
    u16,
    &'static str,
    &'static str,
    Option<&'static str>,
    Option<u64>,
    Outcome,
);

fn row(error: impl Into<HttpError>) -> (u16, String, String, Option<String>, Option<u64>, Outcome) {
    let error = error.into();
    let verdict = error.verdict();
    let outcome = verdict.outcome;
    let envelope: Value = serde_json::from_slice(&verdict.envelope()).unwrap();
    let object = &envelope["error"];
    let text = |name: &str| object[name].as_str().map(str::to_owned);
    assert!(!text("message").unwrap().is_empty());
    assert_eq!(object.as_object().unwrap().len(), 4);
    let response = verdict.into_response();
    let after = response.headers().get("retry-after");
    (
        response.status().as_u16(),
        text("type").unwrap(),
        text("code").unwrap(),
        text("param"),
        after.map(|after| after.to_str().unwrap().parse().unwrap()),
        outcome,
    )
}

#[track_caller]
fn is(error: impl Into<HttpError>, want: Row) {
    let (status, kind, code, param, after, outcome) = row(error);
    assert_eq!(
        (status, kind.as_str(), code.as_str(), param.as_deref(), after, outcome),
        want
    );
}

use Outcome::{Cancelled, Failed, Rejected, TimedOut};

#[test]
fn errors_of_a_call() {
    let model = || "m".to_owned();
    let secs = Duration::from_secs;
    let known = vec!["a".to_owned(), "b/c".to_owned()];
    for (missing, param) in [
        (Features::from(Feature::Tools), "tools"),
        (Feature::JsonSchema.into(), "response_format"),
        (Feature::Vision.into(), "messages"),
        (Feature::Audio.into(), "messages"),
        (Feature::Logprobs.into(), "logprobs"),
        (Feature::Embeddings.into(), "model"),
    ] {
        is(
            CallError::Unsupported {
                model: model(),
                missing,
            },
            (400, INVALID, "unsupported_feature", Some(param), None, Rejected),
        );
    }
    is(
        CallError::UnknownModel { model: model(), known },
        (404, INVALID, "model_not_found", Some("model"), None, Rejected),
    );
    is(
        CallError::NoWorker {
            model: model(),
            retry_after: secs(5),
        },
        (503, SERVER, "no_worker", None, Some(5), Rejected),
    );
    is(
        CallError::Full {
            model: model(),
            retry_after: Duration::from_millis(2001),
        },
        (429, RATE, "server_busy", None, Some(3), Rejected),
    );
    is(
        CallError::WaitTooLong {
            model: model(),
            wait: Duration::from_secs(9),
            retry_after: Duration::from_secs(5),
        },
        (503, SERVER, "wait_too_long", None, Some(5), Rejected),
    );
    for stage in [Stage::Queue, Stage::Accept, Stage::FirstToken, Stage::Generation] {
        is(
            CallError::Deadline { stage },
            (504, SERVER, "deadline_exceeded", None, None, TimedOut),
        );
    }
    let reason = || "gone".to_owned();
    is(
        CallError::WorkerLost { reason: reason() },
        (502, SERVER, "worker_lost", None, None, Failed),
    );
    is(
        CallError::BusDown { reason: reason() },
        (503, SERVER, "bus_unavailable", None, Some(1), Failed),
    );
    is(CallError::Deadly, (500, SERVER, "engine_died", None, None, Failed));
    is(
        CallError::SlowClient,
        (408, INVALID, "slow_client", None, None, Cancelled),
    );
    is(
        CallError::ShuttingDown,
        (503, SERVER, "shutting_down", None, Some(1), Failed),
    );
    is(
        CallError::Internal(reason()),
        (500, SERVER, "internal_error", None, None, Failed),
    );
}

#[test]
fn errors_of_an_engine() {
    let table: &[(ErrorCode, Row)] = &[
        (
            ErrorCode::BadRequest,
            (400, INVALID, "bad_request", None, None, Rejected),
        ),
        (
            ErrorCode::ContextLengthExceeded,
            (
                400,
                INVALID,
                "context_length_exceeded",
                Some("messages"),
                None,
                Rejected,
            ),
        ),
        (
            ErrorCode::ContentFilter,
            (400, INVALID, "content_filter", None, None, Rejected),
        ),
        (
            ErrorCode::UpstreamUnauthorized,
            (401, "authentication_error", "upstream_unauthorized", None, None, Failed),
        ),
        (
            ErrorCode::UpstreamForbidden,
            (403, "permission_error", "upstream_forbidden", None, None, Failed),
        ),
        (
            ErrorCode::ModelNotFound,
            (404, INVALID, "model_not_found", Some("model"), None, Rejected),
        ),
        (
            ErrorCode::TooLarge,
            (413, INVALID, "request_too_large", None, None, Rejected),
        ),
        (
            ErrorCode::RateLimited,
            (429, RATE, "rate_limit_exceeded", None, Some(1), Rejected),
        ),
        (
            ErrorCode::EngineUnavailable,
            (503, SERVER, "engine_unavailable", None, Some(1), Failed),
        ),
        (
            ErrorCode::Timeout,
            (504, SERVER, "engine_timeout", None, None, TimedOut),
        ),
        (
            ErrorCode::WorkerOverloaded,
            (503, SERVER, "worker_overloaded", None, Some(1), Failed),
        ),
        (
            ErrorCode::Draining,
            (503, SERVER, "worker_draining", None, Some(1), Failed),
        ),
        (ErrorCode::Cancelled, (503, SERVER, "cancelled", None, Some(1), Failed)),
        (ErrorCode::Internal, (500, SERVER, "engine_error", None, None, Failed)),
    ];
    let covered: Vec<ErrorCode> = table.iter().map(|(code, _)| *code).collect();
    assert_eq!(covered, ErrorCode::ALL, "a new code needs a row");
    for (code, want) in table {
        is(CallError::Engine(told(*code)), *want);
    }
}

fn told(code: ErrorCode) -> EngineError {
    EngineError {
        code,
        message: "what the engine said".to_owned(),
        param: None,
        engine_code: None,
        retryable: false,
        retry_after_ms: None,
    }
}

#[test]
fn what_the_engine_said_is_kept() {
    let mut error = told(ErrorCode::RateLimited);
    error.engine_code = Some("insufficient_quota".to_owned());
    error.param = Some("model".to_owned());
    error.retry_after_ms = Some(12_500);
    is(
        CallError::Engine(error.clone()),
        (429, RATE, "insufficient_quota", Some("model"), Some(13), Rejected),
    );
    error.code = ErrorCode::ContextLengthExceeded;
    assert_eq!(row(CallError::Engine(error.clone())).2, "context_length_exceeded");
    assert_eq!(
        HttpError::Call(CallError::Engine(error)).verdict().message,
        "what the engine said"
    );
    let key = HttpError::Call(CallError::Engine(told(ErrorCode::UpstreamUnauthorized))).verdict();
    assert!(key.message.contains("your API key is not to blame"), "{}", key.message);
    assert!(key.message.ends_with("what the engine said"), "{}", key.message);
}

#[test]
fn errors_of_a_request() {
    is(
        RequestError::NotUtf8(3),
        (400, INVALID, "invalid_json", None, None, Rejected),
    );
    is(
        RequestError::NotAnObject,
        (400, INVALID, "invalid_json", None, None, Rejected),
    );
    let syntax = RequestError::Syntax {
        message: "x".to_owned(),
        line: 1,
        column: 2,
    };
    is(syntax, (400, INVALID, "invalid_json", None, None, Rejected));
    let field = RequestError::Field {
        param: Some("messages[3].content".to_owned()),
        code: "invalid_type",
        message: "x".to_owned(),
    };
    is(
        field,
        (
            400,
            INVALID,
            "invalid_type",
            Some("messages[3].content"),
            None,
            Rejected,
        ),
    );
    let header = HttpError::Header {
        name: "x-request-timeout",
        reason: "no".to_owned(),
    };
    is(
        header,
        (400, INVALID, "invalid_value", Some("x-request-timeout"), None, Rejected),
    );
}

#[test]
fn errors_of_the_edge() {
    is(
        HttpError::BodyTooLarge(1),
        (413, INVALID, "request_too_large", None, None, Rejected),
    );
    is(
        RequestError::TooLarge(1),
        (413, INVALID, "request_too_large", None, None, Rejected),
    );
    is(
        HttpError::BodyTimeout,
        (408, INVALID, "request_timeout", None, None, Cancelled),
    );
    is(
        HttpError::TwoLengths,
        (400, INVALID, "ambiguous_length", None, None, Rejected),
    );
    is(
        HttpError::BodiesFull,
        (503, SERVER, "server_busy", None, Some(1), Rejected),
    );
    is(
        HttpError::BodyBroken("x".to_owned()),
        (400, INVALID, "invalid_body", None, None, Cancelled),
    );
    is(
        HttpError::ContentEncoding("gzip".to_owned()),
        (
            415,
            INVALID,
            "unsupported_content_encoding",
            Some("content-encoding"),
            None,
            Rejected,
        ),
    );
}

#[test]
fn errors_of_paths_and_of_what_is_kept() {
    is(
        HttpError::Query("'limit'".to_owned()),
        (400, INVALID, "invalid_value", None, None, Rejected),
    );
    is(
        HttpError::ResponseNotFound("resp_1".to_owned()),
        (404, INVALID, "response_not_found", None, None, Rejected),
    );
    let kept = |error| HttpError::NotKept { param: "store", error };
    for error in [StoreError::Absent("x".to_owned()), StoreError::TooLarge(1)] {
        let row = (400, INVALID, "responses_not_kept", Some("store"), None, Rejected);
        is(kept(error), row);
    }
    is(
        kept(StoreError::Failed("x".to_owned())),
        (503, SERVER, "responses_unavailable", Some("store"), Some(1), Failed),
    );
    let (method, path) = (|| "PUT".to_owned(), || "/x".to_owned());
    is(
        HttpError::NotFound {
            method: method(),
            path: path(),
        },
        (404, INVALID, "unknown_url", None, None, Rejected),
    );
    is(
        HttpError::MethodNotAllowed {
            method: method(),
            path: path(),
        },
        (405, INVALID, "method_not_allowed", None, None, Rejected),
    );
    is(
        HttpError::ModelsAtWorkers("Copying a model"),
        (501, INVALID, "models_at_workers", None, None, Rejected),
    );
    is(
        HttpError::NotReady("x".to_owned()),
        (503, SERVER, "not_ready", None, Some(1), Failed),
    );
}

#[test]
fn errors_of_answers() {
    is(AnswerError::NoAnswer, (500, SERVER, "engine_error", None, None, Failed));
    is(
        AnswerError::TooManyChoices(200),
        (500, SERVER, "engine_error", None, None, Failed),
    );
    is(
        AnswerError::TooLarge,
        (500, SERVER, "answer_too_large", None, None, Failed),
    );
}

#[test]
fn retry_after_is_whole_seconds_from_one_to_an_hour() {
    let told = |after| {
        row(CallError::NoWorker {
            model: "m".to_owned(),
            retry_after: after,
        })
        .4
        .unwrap()
    };
    assert_eq!(told(Duration::ZERO), 1);
    assert_eq!(told(Duration::from_millis(1)), 1);
    assert_eq!(told(Duration::from_millis(1000)), 1);
    assert_eq!(told(Duration::from_millis(1001)), 2);
    assert_eq!(told(Duration::MAX), 3600);
}

#[test]
fn what_is_worth_another_try_is_said() {
    let said = |error: CallError| {
        let response = HttpError::Call(error).into_response();
        let said = response.headers().get("x-should-retry");
        said.map(|said| said.to_str().unwrap().to_owned())
    };
    let after = Duration::from_secs(1);
    let model = || "m".to_owned();
    let quota = EngineError {
        engine_code: Some("insufficient_quota".to_owned()),
        ..told(ErrorCode::RateLimited)
    };
    for (error, retry) in [
        (CallError::Deadline { stage: Stage::Queue }, Some("false")),
        (CallError::Engine(told(ErrorCode::Timeout)), Some("false")),
        (CallError::Deadly, Some("false")),
        (CallError::SlowClient, Some("false")),
        (CallError::Engine(quota), Some("false")),
        (CallError::Engine(told(ErrorCode::RateLimited)), Some("true")),
        (CallError::Engine(told(ErrorCode::Internal)), Some("true")),
        (CallError::ShuttingDown, Some("true")),
        (CallError::WorkerLost { reason: model() }, Some("true")),
        (
            CallError::NoWorker {
                model: model(),
                retry_after: after,
            },
            Some("true"),
        ),
        (
            CallError::Full {
                model: model(),
                retry_after: after,
            },
            Some("true"),
        ),
        (
            CallError::UnknownModel {
                model: model(),
                known: vec![],
            },
            None,
        ),
        (CallError::Engine(told(ErrorCode::BadRequest)), None),
    ] {
        assert_eq!(said(error.clone()).as_deref(), retry, "{error:?}");
    }
}

#[test]
fn requests_that_were_not_read_end_their_connection() {
    for error in [HttpError::BodyTooLarge(1), HttpError::BodyTimeout] {
        assert_eq!(error.into_response().headers()["connection"], "close");
    }
    assert!(
        HttpError::NotReady("x".to_owned())
            .into_response()
            .headers()
            .get("connection")
            .is_none()
    );
}

#[test]
fn the_envelope_is_openais() {
    let error = HttpError::Call(CallError::UnknownModel {
        model: "x\"y".to_owned(),
        known: vec!["a".to_owned()],
    });
    assert_eq!(
        serde_json::from_slice::<Value>(&error.verdict().envelope()).unwrap(),
        json!({"error": {
            "message": "The model \"x\\\"y\" does not exist. Available models: a",
            "type": "invalid_request_error", "param": "model", "code": "model_not_found",
        }})
    );
    let null = HttpError::Request(RequestError::NotAnObject).verdict().envelope();
    assert_eq!(
        serde_json::from_slice::<Value>(&null).unwrap()["error"]["param"],
        Value::Null
    );
}

#[test]
fn a_long_list_of_models_is_cut() {
    let names = (0..1000).map(|n| format!("model-{n}")).collect::<Vec<_>>();
    let text = unknown_model("x", &names);
    assert!(text.ends_with("model-49 and 950 more"), "{text}");
    assert!(unknown_model("x", &[]).ends_with("none"));
}
