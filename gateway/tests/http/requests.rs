//! Requests that are answered in one piece, and those that are refused.

use std::time::Duration;

use serde_json::{Value, json};
use tokenbus_api::ListedModel;
use tokenbus_bus::task::spawn;
use tokenbus_gateway::testing::{CallError, HttpOptions, Output, Stage};
use tokenbus_protocol::{Capabilities, EngineError, ErrorCode, Name, RequestKind};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::{Gateway, ask, counted, reason, soon};

#[tokio::test]
async fn an_answer_in_one_piece() {
    let mut gateway = Gateway::start().await;
    let answer = gateway.chat(ask(false));
    let call = gateway.call().await;
    call.say(Name::new("w").unwrap()).await;
    call.say("Hello, ").await;
    call.say("wörld").await;
    call.say(reason("stop")).await;
    call.say(counted(4, 2)).await;
    let answer = answer.await.unwrap();
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (200, "application/json")
    );
    let mut json = answer.json();
    let created = json["created"].take().as_u64().unwrap();
    assert!(created > 1_700_000_000);
    assert_eq!(
        json,
        json!({
            "id": format!("chatcmpl-{}", call.call.id.simple()), "object": "chat.completion", "created": null,
            "model": "org/m:7b",
            "choices": [{
                "index": 0, "logprobs": null, "finish_reason": "stop",
                "message": {"role": "assistant", "content": "Hello, wörld", "refusal": null},
            }],
            "usage": {"prompt_tokens": 4, "completion_tokens": 2, "total_tokens": 6},
        })
    );
}

#[tokio::test]
async fn what_was_said_before_an_answer_begins_anew_is_in_no_answer() {
    let mut gateway = Gateway::start().await;
    let answer = gateway.chat(ask(false));
    let call = gateway.call().await;
    assert!(call.call.in_one_piece);
    call.say("Half an").await;
    call.say(Output::Anew).await;
    call.say("Hello, ").await;
    call.say("wörld").await;
    call.say(reason("stop")).await;
    call.say(counted(4, 2)).await;
    let answer = answer.await.unwrap().json();
    assert_eq!(answer["choices"][0]["message"]["content"], "Hello, wörld");
    let streamed = gateway.chat(ask(true));
    assert!(!gateway.call().await.call.in_one_piece);
    streamed.abort();
}

#[tokio::test]
async fn the_call_is_what_the_client_sent() {
    let mut gateway = Gateway::start().await;
    let body = "{ \"messages\":[{\"content\":\"\\u0041\",\"role\":\"user\"}],\n \"model\":\"a b\", \"top_k\": 1.0e0, \
                \"max_tokens\":5,\"x\":{\"y\":[12345678901234567890123]}, \"tools\":[{\"type\":\"function\"}]}";
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let before = tokio::time::Instant::now();
    let request = gateway
        .post(body)
        .header("x-request-id", "my id-1")
        .header("x-request-timeout", "30")
        .header("traceparent", trace)
        .header("tracestate", "v=1")
        .header("x-tokenbus-priority", "-5")
        .header("x-tokenbus-tenant", "t");
    let response = spawn("client", request.send());
    let opened = gateway.call().await;
    let call = &opened.call;
    assert_eq!(call.body, body);
    assert_eq!((call.model.as_str(), call.kind), ("a b", RequestKind::Chat));
    assert_eq!((call.priority, call.tenant.as_deref()), (-5, Some("t")));
    assert_eq!(call.client_id, "myid-1");
    let given = call.trace.for_call(0).unwrap();
    assert_eq!((given.parent.as_str(), given.state.as_deref()), (trace, Some("v=1")));
    let left = call.deadline - before;
    assert!(
        left >= Duration::from_secs(30) && left < Duration::from_secs(40),
        "{left:?}"
    );
    assert!(call.not_resumable.is_some());
    assert_eq!(call.id.get_version_num(), 7);
    opened.say("x").await;
    opened.say(counted(1, 1)).await;
    assert_eq!(response.await.unwrap().unwrap().headers()["x-request-id"], "myid-1");
}

/// Errors of the core with the status, the code and the `Retry-After` that clients are told.
fn errors_from_below() -> Vec<(CallError, u16, &'static str, &'static str)> {
    let model = || "org/m:7b".to_owned();
    let engine = |code| {
        CallError::Engine(EngineError {
            code,
            message: "no".to_owned(),
            param: None,
            engine_code: None,
            retryable: false,
            retry_after_ms: Some(1500),
        })
    };
    vec![
        (
            CallError::UnknownModel {
                model: model(),
                known: vec!["a".to_owned()],
            },
            404,
            "model_not_found",
            "",
        ),
        (
            CallError::Full {
                model: model(),
                retry_after: Duration::from_millis(2500),
            },
            429,
            "server_busy",
            "3",
        ),
        (
            CallError::NoWorker {
                model: model(),
                retry_after: Duration::from_secs(5),
            },
            503,
            "no_worker",
            "5",
        ),
        (
            CallError::Deadline { stage: Stage::Queue },
            504,
            "deadline_exceeded",
            "",
        ),
        (
            CallError::BusDown { reason: "x".to_owned() },
            503,
            "bus_unavailable",
            "1",
        ),
        (
            engine(ErrorCode::ContextLengthExceeded),
            400,
            "context_length_exceeded",
            "",
        ),
        (engine(ErrorCode::RateLimited), 429, "rate_limit_exceeded", "2"),
        (
            engine(ErrorCode::UpstreamUnauthorized),
            401,
            "upstream_unauthorized",
            "",
        ),
        (engine(ErrorCode::Internal), 500, "engine_error", ""),
        (CallError::WorkerLost { reason: "x".to_owned() }, 502, "worker_lost", ""),
    ]
}

#[tokio::test]
async fn errors_from_below_are_statuses_streaming_or_not() {
    let mut gateway = Gateway::start().await;
    for (error, status, code, after) in errors_from_below() {
        for stream in [true, false] {
            let answer = gateway.chat(ask(stream));
            let call = gateway.call().await;
            call.say(Name::new("w").unwrap()).await;
            call.say(error.clone()).await;
            let answer = answer.await.unwrap();
            assert_eq!((answer.status, answer.error()["code"].as_str()), (status, Some(code)));
            assert_eq!(answer.header("retry-after"), after, "{code}");
        }
    }
}

#[tokio::test]
async fn an_error_in_the_middle_of_a_collected_answer_is_a_status() {
    let mut gateway = Gateway::start().await;
    let answer = gateway.chat(ask(false));
    let call = gateway.call().await;
    call.say("half an ans").await;
    call.say(CallError::WorkerLost {
        reason: "killed".to_owned(),
    })
    .await;
    let answer = answer.await.unwrap();
    assert_eq!(
        (answer.status, answer.error()["code"].as_str()),
        (502, Some("worker_lost"))
    );
    let answer = gateway.chat(ask(false));
    let mut call = gateway.call().await;
    call.say("half an ans").await;
    call.break_off();
    assert_eq!(
        answer.await.unwrap().status,
        500,
        "a stream without its finish is no answer"
    );
}

#[tokio::test]
async fn a_core_that_never_answers_does_not_hang_the_client() {
    let options = HttpOptions {
        request_timeout: Duration::from_millis(10),
        ..HttpOptions::default()
    };
    let mut gateway = Gateway::with(options).await;
    let answers = [gateway.chat(ask(true)), gateway.chat(ask(false))];
    let calls = [gateway.call().await, gateway.call().await];
    for (answer, call) in answers.into_iter().zip(calls) {
        let answer = answer.await.unwrap();
        assert_eq!(
            (answer.status, answer.error()["code"].as_str()),
            (504, Some("deadline_exceeded"))
        );
        soon(call.dropped.cancelled()).await;
    }
}

#[tokio::test]
async fn a_stream_that_the_core_forgets_ends_with_an_error() {
    let options = HttpOptions {
        request_timeout: Duration::from_millis(10),
        ..HttpOptions::default()
    };
    let mut gateway = Gateway::with(options).await;
    let (mut events, call) = gateway.stream("a").await;
    events.chunk().await;
    assert_eq!(events.text().await, "a");
    assert_eq!(events.chunk().await["error"]["code"], "deadline_exceeded");
    assert!(events.next().await.is_none());
    soon(call.dropped.cancelled()).await;
}

#[tokio::test]
async fn wrong_requests_are_refused_with_the_field() {
    let mut gateway = Gateway::start().await;
    let cases = [
        (json!({"model": "m"}), "messages", "missing_required_parameter"),
        (
            json!({"model": "m", "messages": [{"content": ""}]}),
            "messages[0].role",
            "missing_required_parameter",
        ),
        (
            json!({"model": "m", "messages": [{"role": "user", "content": 1}]}),
            "messages[0].content",
            "invalid_type",
        ),
        (json!({"messages": []}), "model", "missing_required_parameter"),
    ];
    for (body, param, code) in cases {
        let answer = gateway.chat(&body).await.unwrap();
        assert_eq!(answer.status, 400, "{body}");
        let error = answer.error();
        assert_eq!(
            (&error["param"], &error["code"]),
            (&json!(param), &json!(code)),
            "{body}"
        );
        assert_eq!(error["type"], "invalid_request_error");
    }
    for bad in ["", "{", "[]", "{\"model\": \n nope}"] {
        let answer = gateway.chat(bad).await.unwrap();
        assert_eq!(
            (answer.status, answer.error()["code"].as_str()),
            (400, Some("invalid_json")),
            "{bad}"
        );
    }
    let late = soon(gateway.post(ask(false)).header("x-request-timeout", "soon").send())
        .await
        .unwrap();
    assert_eq!(late.status(), 400);
    assert!(gateway.untouched(), "nothing wrong may reach the core");
}

#[tokio::test]
async fn any_content_type_is_taken_but_no_compression() {
    let mut gateway = Gateway::start().await;
    for kind in ["application/x-www-form-urlencoded", "text/plain", "application/json"] {
        let request = gateway.post(ask(false)).header("content-type", kind);
        let response = spawn("client", request.send());
        let call = gateway.call().await;
        call.say("x").await;
        call.say(counted(1, 1)).await;
        assert_eq!(response.await.unwrap().unwrap().status(), 200, "{kind}");
    }
    let request = gateway.post("\x1f\u{8b}").header("content-encoding", "br");
    assert_eq!(soon(request.send()).await.unwrap().status(), 415);
}

#[tokio::test]
async fn a_body_over_the_limit_is_413_announced_or_not() {
    let options = HttpOptions {
        body_limit: 1000,
        ..HttpOptions::default()
    };
    let mut gateway = Gateway::with(options).await;
    // Announced, and never sent: the client waits for "100 Continue".
    let head =
        "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\ncontent-length: 1001\r\n\r\n";
    let answer = gateway.exchange(head.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert!(answer.contains("\"code\":\"request_too_large\""), "{answer}");

    // Endless: the answer comes while the client is still sending.
    let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n";
    let mut tcp = gateway.raw(head.as_bytes()).await;
    let chunk = format!("400\r\n{}\r\n", "x".repeat(0x400));
    let (mut reader, mut writer) = tcp.split();
    let endless = async {
        while writer.write_all(chunk.as_bytes()).await.is_ok() {}
        std::future::pending::<()>().await;
    };
    let mut answer = [0; 12];
    tokio::select! {
        () = endless => {}
        read = soon(reader.read_exact(&mut answer)) => { read.unwrap(); }
    }
    assert_eq!(&answer, b"HTTP/1.1 413");

    // The limit itself is fine.
    let mut body = ask(false);
    let room = 1000 - body.to_string().len() + "hi".len();
    body["messages"][0]["content"] = Value::String("x".repeat(room));
    assert_eq!(body.to_string().len(), 1000);
    let answer = gateway.chat(&body);
    let call = gateway.call().await;
    assert_eq!(call.call.body.len(), 1000);
    call.say("x").await;
    call.say(counted(1, 1)).await;
    assert_eq!(answer.await.unwrap().status, 200);
}

#[tokio::test]
async fn unknown_urls_and_methods_have_the_envelope() {
    let gateway = Gateway::start().await;
    for path in ["/page", "/v1", "/v2/models", "/%ff"] {
        let answer = gateway.get(path).await;
        assert_eq!(
            (answer.status, answer.error()["code"].as_str()),
            (404, Some("unknown_url")),
            "{path}"
        );
    }
    let answer = gateway.get("/v1/chat/completions").await;
    assert_eq!((answer.status, answer.header("allow")), (405, "POST"));
    assert_eq!(answer.error()["code"], "method_not_allowed");
    let delete = soon(gateway.client.delete(gateway.url("/v1/models/a/b")).send())
        .await
        .unwrap();
    assert_eq!(
        (delete.status().as_u16(), &delete.headers()["allow"] == "GET,HEAD"),
        (405, true)
    );
}

#[tokio::test]
async fn models_are_found_by_any_id() {
    let gateway = Gateway::start().await;
    let names = ["org/m:7b", "a b.c", "a*>?x", "модель", "100%", "..a", "a//b"];
    let model = |name: &&str| ListedModel {
        name: (*name).to_owned(),
        created: 1_700_000_000,
        context_length: Some(4096),
        capabilities: Capabilities::default(),
        live: true,
    };
    gateway.list(names.iter().map(model).collect());
    let list = gateway.get("/v1/models").await.json();
    assert_eq!(list["object"], "list");
    assert_eq!(list["data"].as_array().unwrap().len(), names.len());
    for name in names {
        let encode_all: String = name.bytes().map(|b| format!("%{b:02X}")).collect();
        let answer = gateway.get(&format!("/v1/models/{encode_all}")).await;
        assert_eq!((answer.status, &answer.json()["id"]), (200, &json!(name)), "{name}");
    }
    assert_eq!(gateway.get("/v1/models/org/m:7b").await.json()["object"], "model");
    let missing = gateway.get("/v1/models/none%20such").await;
    assert_eq!(missing.status, 404);
    let error = missing.error();
    assert_eq!(
        (&error["code"], &error["param"]),
        (&json!("model_not_found"), &json!("model"))
    );
    assert!(
        error["message"]
            .as_str()
            .unwrap()
            .contains("\"none such\" does not exist"),
        "{error}"
    );
    assert_eq!(gateway.get("/v1/models/%ff").await.status, 404);
}

#[tokio::test]
async fn health_readiness_and_metrics() {
    let mut gateway = Gateway::start().await;
    assert_eq!(gateway.get("/healthz").await.status, 200);
    assert_eq!(gateway.get("/readyz").await.status, 200);
    gateway.not_ready("NATS is away");
    assert_eq!(gateway.get("/healthz").await.status, 200);
    let answer = gateway.get("/readyz").await;
    assert_eq!(answer.status, 503);
    assert!(answer.error()["message"].as_str().unwrap().contains("NATS is away"));

    let chat = gateway.chat(ask(false));
    let call = gateway.call().await;
    call.say("a").await;
    call.say(counted(7, 1)).await;
    chat.await.unwrap();
    gateway.chat("{}").await.unwrap();
    let metrics = gateway.get("/metrics").await;
    assert!(
        metrics
            .header("content-type")
            .starts_with("application/openmetrics-text")
    );
    for line in [
        r#"tokenbus_requests_total{model="org/m:7b",outcome="succeeded",status="200"} 1"#,
        r#"tokenbus_requests_total{model="(unknown)",outcome="rejected",status="400"} 1"#,
        r#"tokenbus_prompt_tokens_total{model="org/m:7b"} 7"#,
        r#"tokenbus_time_to_first_token_seconds_count{model="org/m:7b"} 1"#,
        "tokenbus_requests_in_flight 0",
        "# EOF",
    ] {
        assert!(metrics.text.lines().any(|l| l == line), "{line} in\n{}", metrics.text);
    }
}

#[tokio::test]
async fn every_response_has_a_request_id() {
    let gateway = Gateway::start().await;
    for path in ["/healthz", "/v1/models", "/nowhere", "/metrics"] {
        assert!(
            gateway.get(path).await.header("x-request-id").starts_with("req_"),
            "{path}"
        );
    }
    let own = soon(
        gateway
            .client
            .get(gateway.url("/nowhere"))
            .header("x-request-id", "abc")
            .send(),
    )
    .await;
    assert_eq!(own.unwrap().headers()["x-request-id"], "abc");
}
