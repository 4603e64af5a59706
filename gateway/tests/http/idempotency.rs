//! Requests with an `Idempotency-Key`: the same answer, from one generation.

use std::time::Duration;

use serde_json::{Value, json};
use tokenbus_bus::task::spawn;
use tokenbus_gateway::call::{CallError, Output};
use tokenbus_gateway::http::HttpOptions;
use tokenbus_gateway::idempotency::IdempotencyOptions;
use tokenbus_protocol::{EngineError, ErrorCode, Name};
use tokio::task::JoinHandle;

use crate::support::{Answer, Events, Gateway, Opened, ask, counted, reason, soon};

const KEY: &str = "idempotency-key";
const REPLAYED: &str = "idempotent-replayed";

fn keyed(gateway: &Gateway, key: &str, body: impl ToString) -> reqwest::RequestBuilder {
    gateway.post(body).header(KEY, key)
}

fn send(request: reqwest::RequestBuilder) -> JoinHandle<Answer> {
    spawn("client", async move {
        Answer::of(soon(request.send()).await.unwrap()).await
    })
}

async fn finish(call: &Opened) {
    call.say(Name::new("w").unwrap()).await;
    call.say("Hello, ").await;
    call.say("wörld").await;
    call.say(reason("stop")).await;
    call.say(counted(4, 2)).await;
}

async fn events(request: reqwest::RequestBuilder) -> Events {
    let response = soon(request.send()).await.unwrap();
    assert_eq!(response.status(), 200);
    Events::of(response)
}

/// The data of all events up to the end.
async fn rest(events: &mut Events) -> Vec<String> {
    let mut all = Vec::new();
    while let Some(event) = events.next().await {
        all.push(event.unwrap());
    }
    all
}

#[tokio::test]
async fn a_repeat_gets_the_same_bytes_from_one_generation() {
    let mut gateway = Gateway::start().await;
    let first = send(keyed(&gateway, "k", ask(false)));
    let call = gateway.call().await;
    finish(&call).await;
    let first = first.await.unwrap();
    assert_eq!((first.status, first.header(REPLAYED)), (200, ""));
    for _ in 0..3 {
        let again = send(keyed(&gateway, "k", ask(false))).await.unwrap();
        assert_eq!((again.status, again.header(REPLAYED)), (200, "true"));
        assert_eq!(again.text, first.text);
        assert_ne!(again.header("x-request-id"), first.header("x-request-id"));
    }
    assert!(gateway.untouched());
}

#[tokio::test]
async fn a_repeat_of_a_running_request_waits_for_the_same_call() {
    let mut gateway = Gateway::start().await;
    let first = send(keyed(&gateway, "k", ask(false)));
    let call = gateway.call().await;
    call.say("a").await;
    let second = send(keyed(&gateway, "k", ask(false)));
    soon(async {
        while gateway.metrics.in_flight() < 2 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    finish(&call).await;
    let (first, second) = (first.await.unwrap(), second.await.unwrap());
    assert_eq!(first.text, second.text);
    assert_eq!(first.json()["choices"][0]["message"]["content"], "aHello, wörld");
    assert!(gateway.untouched());
}

#[tokio::test]
async fn a_stream_is_replayed_from_its_start_and_goes_on_live() {
    let mut gateway = Gateway::start().await;
    let request = keyed(&gateway, "k", ask(true));
    let first = spawn("client", events(request));
    let call = gateway.call().await;
    call.say("a").await;
    let mut first = first.await.unwrap();
    let role = first.data().await;
    assert_eq!(first.text().await, "a");
    let mut second = events(keyed(&gateway, "k", ask(true))).await;
    assert_eq!(second.response.headers()[REPLAYED], "true");
    assert_eq!(
        second.response.headers()["content-type"],
        "text/event-stream; charset=utf-8"
    );
    assert_eq!(second.data().await, role, "the same id and the same time");
    assert_eq!(second.text().await, "a");
    call.say("b").await;
    assert_eq!(second.text().await, "b");
    finish(&call).await;
    assert_eq!(first.text().await, "b");
    let told = rest(&mut first).await;
    assert_eq!(told.last().unwrap(), "data: [DONE]");
    assert_eq!(rest(&mut second).await, told);
    let mut third = events(keyed(&gateway, "k", ask(true))).await;
    assert_eq!(third.data().await, role);
    assert_eq!(
        (third.text().await, third.text().await),
        ("a".to_owned(), "b".to_owned())
    );
    assert_eq!(rest(&mut third).await, told);
    assert!(gateway.untouched());
}

#[tokio::test]
async fn another_body_under_the_key_is_refused_and_another_tenant_is_not() {
    let mut gateway = Gateway::start().await;
    let first = send(keyed(&gateway, "k", ask(false)));
    let call = gateway.call().await;
    let other = json!({"model": "org/m:7b", "messages": [{"role": "user", "content": "other"}]});
    for body in [&other, &ask(true)] {
        let refused = send(keyed(&gateway, "k", body)).await.unwrap();
        assert_eq!(refused.status, 422);
        let error = refused.error();
        assert_eq!(error["code"], "idempotency_key_reused");
        assert_eq!(error["type"], "invalid_request_error");
        assert_eq!(error["param"], KEY);
    }
    assert!(gateway.untouched());
    let theirs = send(keyed(&gateway, "k", other).header("x-tokenbus-tenant", "them"));
    let their_call = gateway.call().await;
    finish(&their_call).await;
    assert_eq!(theirs.await.unwrap().status, 200);
    finish(&call).await;
    assert_eq!(first.await.unwrap().status, 200);
}

#[tokio::test]
async fn without_a_key_or_with_another_each_request_runs() {
    let mut gateway = Gateway::start().await;
    let mut answers = Vec::new();
    for request in [
        gateway.post(ask(false)),
        gateway.post(ask(false)),
        keyed(&gateway, "a", ask(false)),
        keyed(&gateway, "b", ask(false)),
    ] {
        let answer = send(request);
        finish(&gateway.call().await).await;
        let answer = answer.await.unwrap();
        assert_eq!(answer.header(REPLAYED), "");
        answers.push(answer.json()["id"].as_str().unwrap().to_owned());
    }
    answers.sort();
    answers.dedup();
    assert_eq!(answers.len(), 4);
}

#[tokio::test]
async fn a_wrong_key_is_refused() {
    let mut gateway = Gateway::start().await;
    let long = "k".repeat(256);
    for key in [&b""[..], b"  ", b"a\tb", b"\xff", long.as_bytes()] {
        let key = reqwest::header::HeaderValue::from_bytes(key).unwrap();
        let refused = send(gateway.post(ask(false)).header(KEY, key)).await.unwrap();
        assert_eq!(refused.status, 400);
        assert_eq!(refused.error()["param"], KEY);
    }
    let twice = keyed(&gateway, "a", ask(false)).header(KEY, "b");
    assert_eq!(send(twice).await.unwrap().status, 400);
    assert!(gateway.untouched());
    let answer = send(keyed(&gateway, &"k".repeat(255), ask(false)));
    finish(&gateway.call().await).await;
    assert_eq!(answer.await.unwrap().status, 200);
}

fn engine(code: ErrorCode) -> CallError {
    CallError::Engine(EngineError {
        code,
        message: "no".to_owned(),
        param: None,
        engine_code: None,
        retryable: false,
        retry_after_ms: Some(1000),
    })
}

#[tokio::test]
async fn a_failure_is_not_kept_and_a_refusal_is() {
    let mut gateway = Gateway::start().await;
    let full = CallError::Full {
        model: "m".to_owned(),
        retry_after: Duration::from_secs(2),
    };
    for (error, status) in [
        (full, 429),
        (engine(ErrorCode::RateLimited), 429),
        (engine(ErrorCode::Internal), 500),
        (engine(ErrorCode::EngineUnavailable), 503),
        (engine(ErrorCode::Timeout), 504),
    ] {
        let failed = send(keyed(&gateway, "k", ask(false)));
        gateway.call().await.say(error).await;
        assert_eq!(failed.await.unwrap().status, status);
    }
    let refused = send(keyed(&gateway, "k", ask(false)));
    gateway.call().await.say(engine(ErrorCode::ContextLengthExceeded)).await;
    let refused = refused.await.unwrap();
    assert_eq!(refused.status, 400);
    let again = send(keyed(&gateway, "k", ask(false))).await.unwrap();
    assert_eq!((again.status, again.header(REPLAYED)), (400, "true"));
    assert_eq!(again.text, refused.text);
    assert!(gateway.untouched());
}

#[tokio::test]
async fn a_stream_that_breaks_runs_anew_when_it_is_repeated() {
    let mut gateway = Gateway::start().await;
    let request = keyed(&gateway, "k", ask(true));
    let first = spawn("client", events(request));
    let call = gateway.call().await;
    call.say("a").await;
    let mut first = first.await.unwrap();
    call.say(CallError::WorkerLost {
        reason: "gone".to_owned(),
    })
    .await;
    first.chunk().await;
    assert_eq!(first.text().await, "a");
    assert_eq!(first.chunk().await["error"]["code"], "worker_lost");
    soon(call.dropped.cancelled()).await;
    let request = keyed(&gateway, "k", ask(true));
    let again = spawn("client", events(request));
    let call = gateway.call().await;
    finish(&call).await;
    let mut again = again.await.unwrap();
    again.chunk().await;
    assert_eq!(again.text().await, "Hello, ");
}

#[tokio::test]
async fn a_client_that_lost_its_connection_finds_its_answer() {
    let mut gateway = Gateway::start().await;
    for stream in [false, true] {
        let key = format!("k{stream}");
        let first = spawn("client", keyed(&gateway, &key, ask(stream)).send());
        let call = gateway.call().await;
        call.say("a").await;
        first.abort();
        soon(async {
            while gateway.metrics.in_flight() > 0 {
                tokio::task::yield_now().await;
            }
        })
        .await;
        assert!(!call.dropped.is_cancelled());
        let again = send(keyed(&gateway, &key, ask(stream)));
        finish(&call).await;
        let again = again.await.unwrap();
        assert_eq!((again.status, again.header(REPLAYED)), (200, "true"));
        let text = &again.text;
        assert!(text.contains("wörld") && (!stream || text.contains("[DONE]")), "{text}");
    }
    assert!(gateway.untouched());
}

#[tokio::test]
async fn a_client_that_does_not_come_back_frees_its_slot_after_the_linger() {
    let linger = Duration::from_millis(200);
    let mut gateway = Gateway::with(HttpOptions {
        idempotency: IdempotencyOptions {
            linger,
            ..IdempotencyOptions::default()
        },
        ..HttpOptions::default()
    })
    .await;
    let first = spawn("client", keyed(&gateway, "k", ask(false)).send());
    let call = gateway.call().await;
    let start = tokio::time::Instant::now();
    first.abort();
    soon(call.dropped.cancelled()).await;
    assert!(start.elapsed() >= linger);
    // Without a key nobody lingers: see `streams.rs`. With one, a closing gateway does not either.
    let second = spawn("client", keyed(&gateway, "k", ask(false)).send());
    let call = gateway.call().await;
    gateway.shutdown.cancel();
    second.abort();
    soon(call.dropped.cancelled()).await;
    soon(gateway.served).await.unwrap();
}

#[tokio::test]
async fn what_was_said_before_an_answer_begins_anew_is_in_no_answer() {
    let mut gateway = Gateway::start().await;
    for key in ["", "k"] {
        let request = || match key {
            "" => gateway.post(ask(false)),
            key => keyed(&gateway, key, ask(false)),
        };
        let first = send(request());
        let repeat = (!key.is_empty()).then(|| send(request()));
        let call = gateway.call().await;
        assert!(call.call.in_one_piece);
        call.say("Half an").await;
        call.say(Output::Anew).await;
        finish(&call).await;
        for answer in std::iter::once(first).chain(repeat) {
            let answer = answer.await.unwrap().json();
            assert_eq!(answer["choices"][0]["message"]["content"], "Hello, wörld");
        }
    }
    let streamed = send(gateway.post(ask(true)));
    assert!(!gateway.call().await.call.in_one_piece);
    streamed.abort();
}

#[tokio::test]
async fn many_repeats_at_once_are_one_generation() {
    let mut gateway = Gateway::start().await;
    let clients: Vec<JoinHandle<Answer>> = (0..50).map(|_| send(keyed(&gateway, "k", ask(false)))).collect();
    let call = gateway.call().await;
    finish(&call).await;
    let mut texts = Vec::new();
    let mut firsts = 0;
    for client in clients {
        let answer = client.await.unwrap();
        assert_eq!(answer.status, 200);
        firsts += usize::from(answer.header(REPLAYED).is_empty());
        texts.push(answer.text);
    }
    texts.dedup();
    assert_eq!((texts.len(), firsts), (1, 1));
    assert!(gateway.untouched());
}

#[tokio::test]
async fn replays_count_as_requests_and_not_as_tokens() {
    let mut gateway = Gateway::start().await;
    let first = send(keyed(&gateway, "k", ask(false)));
    finish(&gateway.call().await).await;
    first.await.unwrap();
    for _ in 0..2 {
        send(keyed(&gateway, "k", ask(false))).await.unwrap();
    }
    let metrics = gateway.get("/metrics").await.text;
    let value = |name: &str| {
        let line = metrics.lines().find(|line| line.starts_with(name)).expect(name);
        line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()
    };
    assert_eq!(value("tokenbus_prompt_tokens_total"), 4.0);
    assert_eq!(value("tokenbus_completion_tokens_total"), 2.0);
    assert_eq!(value("tokenbus_requests_total"), 3.0, "{metrics}");
}

#[tokio::test]
async fn a_body_that_is_wrong_is_refused_before_its_key_counts() {
    let mut gateway = Gateway::start().await;
    let wrong = send(keyed(&gateway, "k", "{}")).await.unwrap();
    assert_eq!(wrong.status, 400);
    let right = send(keyed(&gateway, "k", ask(false)));
    finish(&gateway.call().await).await;
    let right = right.await.unwrap();
    assert_eq!(
        (right.status, right.json()["object"].clone()),
        (200, Value::from("chat.completion"))
    );
}
