//! Streamed answers.

use std::time::Duration;

use serde_json::{Value, json};
use tokenbus_bus::task::spawn;
use tokenbus_gateway::testing::{CallError, HttpOptions};
use tokenbus_protocol::{Delta, Name};
use tokio::io::AsyncReadExt as _;

use crate::support::{Events, Gateway, ask, counted, delta, reason, soon};

#[tokio::test]
async fn tokens_arrive_one_by_one_in_order() {
    let mut gateway = Gateway::start().await;
    let (mut events, call) = gateway.stream("t0 ").await;
    let headers = events.response.headers().clone();
    assert_eq!(headers["content-type"], "text/event-stream; charset=utf-8");
    assert_eq!(headers["cache-control"], "no-cache");
    assert_eq!(headers["x-accel-buffering"], "no");
    assert!(headers.contains_key("x-request-id"));
    let role = events.chunk().await;
    assert_eq!(role["choices"][0]["delta"], json!({"role": "assistant", "content": ""}));
    assert_eq!(role["id"], format!("chatcmpl-{}", call.call.id.simple()));
    assert_eq!(events.text().await, "t0 ");
    for n in 1..20 {
        // Each is read before the next is generated.
        let text = format!("t{n} ");
        call.say(text.as_str()).await;
        assert_eq!(events.text().await, text);
    }
    call.say(reason("length")).await;
    assert_eq!(events.chunk().await["choices"][0]["finish_reason"], "length");
    call.say(counted(1, 20)).await;
    assert_eq!(events.data().await, "[DONE]");
    assert!(events.next().await.is_none());
    soon(call.dropped.cancelled()).await;
}

#[tokio::test]
async fn usage_comes_last_when_asked_for() {
    let mut gateway = Gateway::start().await;
    let mut body = ask(true);
    body["stream_options"] = json!({"include_usage": true});
    let answer = gateway.chat(&body);
    let call = gateway.call().await;
    call.say("a").await;
    call.say(reason("stop")).await;
    call.say(counted(3, 1)).await;
    let answer = answer.await.unwrap();
    let data: Vec<&str> = answer
        .text
        .split_terminator("\n\n")
        .map(|e| e.strip_prefix("data: ").unwrap())
        .collect();
    assert_eq!(data.last(), Some(&"[DONE]"));
    let chunks: Vec<Value> = data[..data.len() - 1]
        .iter()
        .map(|c| serde_json::from_str(c).unwrap())
        .collect();
    let (last, others) = chunks.split_last().unwrap();
    assert_eq!(
        last["usage"],
        json!({"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4})
    );
    assert_eq!(last["choices"], json!([]));
    assert!(
        others
            .iter()
            .all(|c| c["usage"].is_null() && c.as_object().unwrap().contains_key("usage"))
    );
}

#[tokio::test]
async fn choices_are_told_apart() {
    let mut gateway = Gateway::start().await;
    let mut body = ask(true);
    body["n"] = json!(2);
    let answer = gateway.chat(&body);
    let call = gateway.call().await;
    for (choice, text) in [(1, "b"), (0, "a"), (1, "B")] {
        call.say(Delta { choice, ..delta(text) }).await;
    }
    for choice in [0, 1] {
        call.say(Delta {
            choice,
            ..reason("stop")
        })
        .await;
    }
    call.say(counted(1, 3)).await;
    let answer = answer.await.unwrap();
    let mut texts = [String::new(), String::new()];
    let mut reasons = 0;
    for event in answer.text.split_terminator("\n\n").filter(|e| *e != "data: [DONE]") {
        let chunk: Value = serde_json::from_str(event.strip_prefix("data: ").unwrap()).unwrap();
        let choice = &chunk["choices"][0];
        let index = usize::try_from(choice["index"].as_u64().unwrap()).unwrap();
        texts[index] += choice["delta"]["content"].as_str().unwrap_or_default();
        reasons += usize::from(choice["finish_reason"] == "stop");
    }
    assert_eq!((texts, reasons), (["a".to_owned(), "bB".to_owned()], 2));
}

#[tokio::test]
async fn an_error_after_the_first_token_is_an_event_and_never_a_finish() {
    let mut gateway = Gateway::start().await;
    for broken_core in [false, true] {
        let (mut events, mut call) = gateway.stream("half").await;
        if broken_core {
            call.break_off();
        } else {
            call.say(CallError::WorkerLost {
                reason: "killed".to_owned(),
            })
            .await;
        }
        events.chunk().await;
        assert_eq!(events.text().await, "half");
        let error = events.chunk().await;
        let code = if broken_core { "internal_error" } else { "worker_lost" };
        assert_eq!(error["error"]["code"], code);
        let mut members: Vec<&String> = error["error"].as_object().unwrap().keys().collect();
        members.sort();
        assert_eq!(members, ["code", "message", "param", "type"]);
        assert!(events.next().await.is_none(), "no [DONE], and a clean end");
        soon(call.dropped.cancelled()).await;
    }
    let metrics = gateway.get("/metrics").await.text;
    let failed = r#"tokenbus_requests_total{model="org/m:7b",outcome="failed",status="200"} 2"#;
    assert!(metrics.contains(failed), "{metrics}");
}

#[tokio::test]
async fn a_finish_without_an_answer_is_an_error() {
    let mut gateway = Gateway::start().await;
    for stream in [true, false] {
        let answer = gateway.chat(ask(stream));
        gateway.call().await.say(counted(1, 0)).await;
        let answer = answer.await.unwrap();
        assert_eq!(
            (answer.status, answer.error()["code"].as_str()),
            (500, Some("engine_error"))
        );
    }
}

#[tokio::test]
async fn what_is_ready_leaves_in_one_write() {
    let mut gateway = Gateway::start().await;
    let body = ask(true).to_string();
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let mut tcp = gateway.raw((head + &body).as_bytes()).await;
    let call = gateway.call().await;
    // One thread runs both sides: the edge wakes only when all of these are there.
    for n in 0..30 {
        call.sender()
            .try_send(Ok(tokenbus_gateway::testing::Output::Delta(delta(&format!("t{n} ")))))
            .unwrap();
    }
    call.sender()
        .try_send(Ok(tokenbus_gateway::testing::Output::Finish(counted(1, 30))))
        .unwrap();
    let mut text = Vec::new();
    while !text.ends_with(b"\r\n0\r\n\r\n") {
        assert!(soon(tcp.read_buf(&mut text)).await.unwrap() > 0);
    }
    let text = String::from_utf8(text).unwrap();
    let (_, body) = text.split_once("\r\n\r\n").unwrap();
    assert_eq!(body.matches("data: ").count(), 1 + 30 + 1, "{body}");
    // Each piece has its size on a line of its own; events themselves have no '\r'.
    assert_eq!(body.matches("\r\n").count(), 2 + 2, "one piece and the end: {body}");
}

#[tokio::test]
async fn a_long_wait_is_kept_alive_by_comments() {
    let options = HttpOptions {
        commit_after: Duration::from_millis(40),
        keep_alive: Duration::from_millis(40),
        ..HttpOptions::default()
    };
    let mut gateway = Gateway::with(options).await;
    let request = gateway.post(ask(true));
    let response = spawn("client", request.send());
    let call = gateway.call().await;
    call.say(Name::new("w").unwrap()).await;
    let mut events = Events::of(soon(response).await.unwrap().unwrap());
    for _ in 0..3 {
        assert_eq!(events.next().await.unwrap().unwrap(), ": keep-alive");
    }
    call.say("x").await;
    events.chunk().await;
    assert_eq!(events.text().await, "x");
    assert_eq!(
        events.next().await.unwrap().unwrap(),
        ": keep-alive",
        "also between tokens"
    );
    // The status is sent, so an error is an event now.
    call.say(CallError::ShuttingDown).await;
    assert_eq!(events.chunk().await["error"]["code"], "shutting_down");
    assert!(events.next().await.is_none());
}

#[tokio::test]
async fn a_client_that_leaves_cancels_its_call_at_any_moment() {
    let mut gateway = Gateway::start().await;
    // Before anything came, streaming or not; after Accepted; in the middle of the answer.
    for (stream, said) in [(true, 0), (false, 0), (true, 1), (false, 1), (true, 2), (false, 2)] {
        let body = ask(stream).to_string();
        let head = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let mut tcp = gateway.raw((head + &body).as_bytes()).await;
        let call = gateway.call().await;
        if said > 0 {
            call.say(Name::new("w").unwrap()).await;
        }
        if said > 1 {
            call.say("x").await;
        }
        if stream && said > 1 {
            let mut buffer = [0; 8];
            soon(tcp.read_exact(&mut buffer)).await.unwrap();
        }
        assert!(!call.dropped.is_cancelled());
        drop(tcp);
        soon(call.dropped.cancelled()).await;
    }
    while gateway.metrics.in_flight() > 0 {
        tokio::task::yield_now().await;
    }
    let metrics = gateway.get("/metrics").await.text;
    let cancelled = |model| format!(r#"tokenbus_requests_total{{model="{model}",outcome="cancelled",status="499"}}"#);
    assert!(metrics.contains(&(cancelled("org/m:7b") + " 4")), "{metrics}");
    assert!(metrics.contains(&(cancelled("(unknown)") + " 2")), "{metrics}");
}

#[tokio::test]
async fn a_client_that_does_not_read_is_not_read_ahead_for() {
    let mut gateway = Gateway::start().await;
    let (mut events, call) = gateway.stream("x").await;
    let say = call.sender();
    let big = "y".repeat(64 * 1024);
    let mut sent = 0;
    // The sockets and the HTTP library hold some; then the edge must stop asking for more.
    while let Ok(taken) = tokio::time::timeout(
        Duration::from_millis(500),
        say.send(Ok(tokenbus_gateway::testing::Output::Delta(delta(&big)))),
    )
    .await
    {
        taken.unwrap();
        sent += 1;
        assert!(
            sent < 2000,
            "more than 128 MB were taken for a client that reads nothing"
        );
    }
    // It goes on as soon as the client reads.
    events.chunk().await;
    assert_eq!(events.text().await, "x");
    for _ in 0..sent {
        assert_eq!(events.text().await.len(), big.len());
    }
}
