//! The Messages API at the edge.

use std::time::Duration;

use serde_json::{Value, json};
use tokenbus_api::ListedModel;
use tokenbus_bus::task::spawn;
use tokenbus_gateway::testing::{CallError, HttpOptions, Stage};
use tokenbus_protocol::{Capabilities, EngineError, ErrorCode, RequestKind};
use tokio::task::JoinHandle;

use crate::support::{Answer, Events, Gateway, counted, reason, soon};

const PATH: &str = "/v1/messages";

fn ask(members: Value) -> Value {
    let messages = json!([{"role": "user", "content": "hi"}]);
    let mut request = json!({"model": "org/m:7b", "max_tokens": 9, "messages": messages});
    request
        .as_object_mut()
        .unwrap()
        .extend(members.as_object().unwrap().clone());
    request
}

fn post(gateway: &Gateway, body: &Value) -> JoinHandle<Answer> {
    let request = gateway
        .client
        .post(gateway.url(PATH))
        .header("anthropic-version", "2023-06-01")
        .header("x-api-key", "unused")
        .body(body.to_string());
    spawn("client", async move {
        Answer::of(soon(request.send()).await.unwrap()).await
    })
}

/// The error, checked to have Anthropic's members and no others.
fn error(answer: &Answer) -> (u16, String) {
    assert_eq!(answer.header("content-type"), "application/json");
    let body = answer.json();
    let members: Vec<&String> = body.as_object().unwrap().keys().collect();
    assert_eq!(members, ["error", "request_id", "type"], "{body}");
    assert_eq!(body["type"], "error");
    assert_eq!(body["request_id"], answer.header("request-id"));
    assert_eq!(answer.header("request-id"), answer.header("x-request-id"));
    let members: Vec<&String> = body["error"].as_object().unwrap().keys().collect();
    assert_eq!(members, ["message", "type"]);
    assert_ne!(body["error"]["message"], "");
    (answer.status, body["error"]["type"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn a_message_is_a_chat_call() {
    let mut gateway = Gateway::start().await;
    let answer = post(&gateway, &ask(json!({"system": "Be kind.", "stop_sequences": ["x"]})));
    let call = gateway.call().await;
    assert_eq!(
        (call.call.kind, call.call.model.as_str()),
        (RequestKind::Chat, "org/m:7b")
    );
    let body: Value = serde_json::from_slice(&call.call.body).unwrap();
    assert_eq!((&body["max_tokens"], &body["stop"]), (&json!(9), &json!(["x"])));
    call.say("Hel").await;
    call.say("lo").await;
    call.say(reason("length")).await;
    call.say(counted(3, 2)).await;
    let answer = answer.await.unwrap();
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (200, "application/json")
    );
    assert!(!answer.header("request-id").is_empty());
    let want = json!({"id": format!("msg_{}", call.call.id.simple()), "type": "message", "role": "assistant",
        "model": "org/m:7b", "content": [{"type": "text", "text": "Hello"}], "stop_reason": "max_tokens",
        "stop_sequence": null, "usage": {"input_tokens": 3, "output_tokens": 2}});
    assert_eq!(answer.json(), want);
}

#[tokio::test]
async fn a_stream_begins_with_its_message_and_is_kept_alive_by_pings() {
    let options = HttpOptions {
        commit_after: Duration::from_millis(50),
        keep_alive: Duration::from_millis(50),
        ..HttpOptions::default()
    };
    let mut gateway = Gateway::with(options).await;
    let request = gateway
        .client
        .post(gateway.url(PATH))
        .body(ask(json!({"stream": true})).to_string());
    let response = spawn("client", async move { soon(request.send()).await.unwrap() });
    let call = gateway.call().await;
    let mut events = Events::of(response.await.unwrap());
    let first = events.next().await.unwrap().unwrap();
    assert!(first.starts_with("event: message_start\n"), "{first}");
    for _ in 0..3 {
        assert_eq!(
            events.next().await.unwrap().unwrap(),
            "event: ping\ndata: {\"type\":\"ping\"}"
        );
    }
    call.say("a").await;
    call.say(CallError::WorkerLost {
        reason: "killed".to_owned(),
    })
    .await;
    let mut names = Vec::new();
    while let Some(event) = events.next().await {
        names.push(event.unwrap().lines().next().unwrap().to_owned());
    }
    names.retain(|name| name != "event: ping");
    assert_eq!(
        names,
        [
            "event: content_block_start",
            "event: content_block_delta",
            "event: error"
        ]
    );
}

#[tokio::test]
async fn errors_are_anthropics_whenever_they_come() {
    let mut gateway = Gateway::start().await;
    let send = async |body: &'static str, header: Option<(&'static str, &'static str)>| {
        let mut request = gateway.client.post(gateway.url(PATH)).body(body);
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        Answer::of(soon(request.send()).await.unwrap()).await
    };
    let invalid = (400, "invalid_request_error".to_owned());
    assert_eq!(error(&send("{", None).await), invalid);
    assert_eq!(error(&send(r#"{"model":"m","messages":[]}"#, None).await), invalid);
    assert_eq!(error(&send("{}", Some(("x-request-timeout", "soon"))).await), invalid);
    let compressed = send("{}", Some(("content-encoding", "br"))).await;
    assert_eq!(error(&compressed), (415, "invalid_request_error".to_owned()));
    let get = gateway.get(PATH).await;
    assert_eq!(error(&get), (405, "invalid_request_error".to_owned()));
    let unknown = gateway.get("/v1/messages/batches").await;
    assert_eq!(error(&unknown), (404, "not_found_error".to_owned()));
    assert!(gateway.untouched());
}

#[tokio::test]
async fn a_large_body_is_refused_in_the_same_form() {
    let options = HttpOptions {
        body_limit: 10,
        ..HttpOptions::default()
    };
    let gateway = Gateway::with(options).await;
    let answer = post(&gateway, &ask(json!({}))).await.unwrap();
    assert_eq!(error(&answer), (413, "request_too_large".to_owned()));
}

#[tokio::test]
async fn each_end_of_a_call_has_its_status_and_word() {
    let mut gateway = Gateway::start().await;
    let engine = |code| {
        CallError::Engine(EngineError {
            code,
            message: "engine".to_owned(),
            param: None,
            engine_code: None,
            retryable: false,
            retry_after_ms: Some(2000),
        })
    };
    let model = || "org/m:7b".to_owned();
    let after = Duration::from_secs(2);
    let ends = [
        (
            CallError::UnknownModel {
                model: model(),
                known: vec![],
            },
            404,
            "not_found_error",
        ),
        (
            CallError::NoWorker {
                model: model(),
                retry_after: after,
            },
            503,
            "overloaded_error",
        ),
        (
            CallError::Full {
                model: model(),
                retry_after: after,
            },
            429,
            "rate_limit_error",
        ),
        (CallError::Deadline { stage: Stage::Queue }, 504, "timeout_error"),
        (CallError::WorkerLost { reason: "x".to_owned() }, 502, "api_error"),
        (CallError::Internal("x".to_owned()), 500, "api_error"),
        (engine(ErrorCode::BadRequest), 400, "invalid_request_error"),
        (engine(ErrorCode::ContextLengthExceeded), 400, "invalid_request_error"),
        (engine(ErrorCode::UpstreamUnauthorized), 401, "authentication_error"),
        (engine(ErrorCode::UpstreamForbidden), 403, "permission_error"),
        (engine(ErrorCode::TooLarge), 413, "request_too_large"),
        (engine(ErrorCode::RateLimited), 429, "rate_limit_error"),
        (engine(ErrorCode::EngineUnavailable), 503, "overloaded_error"),
    ];
    for (end, status, word) in ends {
        for stream in [false, true] {
            let answer = post(&gateway, &ask(json!({ "stream": stream })));
            gateway.call().await.say(end.clone()).await;
            let answer = answer.await.unwrap();
            assert_eq!(error(&answer), (status, word.to_owned()), "{end:?}");
            assert_eq!(
                !answer.header("retry-after").is_empty(),
                matches!(status, 429 | 503),
                "{end:?}"
            );
        }
    }
}

#[tokio::test]
async fn models_are_listed_in_the_form_of_who_asks() {
    let gateway = Gateway::start().await;
    gateway.list(vec![ListedModel {
        name: "org/m:7b".to_owned(),
        created: 1_700_000_000,
        context_length: None,
        capabilities: Capabilities::default(),
        live: true,
    }]);
    let get = async |path: &str| {
        let request = gateway
            .client
            .get(gateway.url(path))
            .header("anthropic-version", "2023-06-01");
        Answer::of(soon(request.send()).await.unwrap()).await
    };
    let list = get("/v1/models").await.json();
    assert_eq!(
        (&list["first_id"], &list["has_more"]),
        (&json!("org/m:7b"), &json!(false))
    );
    let one = get("/v1/models/org/m:7b").await.json();
    assert_eq!(
        (&one["type"], &one["created_at"]),
        (&json!("model"), &json!("2023-11-14T22:13:20Z"))
    );
    assert_eq!(
        error(&get("/v1/models/other").await),
        (404, "not_found_error".to_owned())
    );
    assert_eq!(gateway.get("/v1/models").await.json()["object"], "list");
    assert_eq!(gateway.get("/v1/models/other").await.error()["code"], "model_not_found");
}

#[tokio::test]
async fn a_message_with_large_images_is_translated_too() {
    let mut gateway = Gateway::start().await;
    let data = "A".repeat(1024 * 1024);
    let source = json!({"type": "base64", "media_type": "image/png", "data": data});
    let messages = json!([{"role": "user", "content": [{"type": "image", "source": source}]}]);
    let answer = post(&gateway, &ask(json!({ "messages": messages })));
    let call = gateway.call().await;
    let body: Value = serde_json::from_slice(&call.call.body).unwrap();
    let url = body["messages"][0]["content"][0]["image_url"]["url"].as_str().unwrap();
    assert_eq!(url, format!("data:image/png;base64,{data}"));
    call.say("a").await;
    call.say(counted(1, 1)).await;
    assert_eq!(answer.await.unwrap().status, 200);
}
