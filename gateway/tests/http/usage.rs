//! Usage records: one for each request, whatever becomes of it.

use serde_json::json;
use tokenbus_gateway::testing::CallError;
use tokenbus_protocol::{EngineError, ErrorCode, Finish, Name, RawJson, RequestKind, UsageOutcome};

use crate::support::*;

fn worker() -> Name {
    Name::new("w1").unwrap()
}

#[tokio::test]
async fn an_answer_is_recorded_with_what_it_used() {
    let mut gateway = Gateway::start().await;
    for stream in [false, true] {
        let request = gateway.post(ask(stream)).header("x-request-id", "mine");
        let client = tokenbus_bus::task::spawn("client", async move {
            Answer::of(soon(request.send()).await.unwrap()).await
        });
        let opened = gateway.call().await;
        opened.say(worker()).await;
        opened.say("hi").await;
        opened.say(reason("stop")).await;
        let usage = r#"{"prompt_tokens":10,"completion_tokens":4,"prompt_tokens_details":{"cached_tokens":8}}"#;
        opened
            .say(Finish {
                usage: Some(RawJson::new(usage).unwrap()),
                ..counted(10, 4)
            })
            .await;
        assert_eq!(client.await.unwrap().status, 200);
        let record = gateway.record().await;
        assert_eq!(record.id, opened.call.id);
        assert_eq!((record.request.as_str(), record.gateway.as_str()), ("mine", "g1"));
        assert_eq!((record.worker, record.kind), (Some(worker()), RequestKind::Chat));
        assert_eq!((record.model.as_str(), record.served), ("org/m:7b", None));
        assert_eq!((record.key, record.tenant), (None, None));
        assert_eq!(
            (record.prompt_tokens, record.completion_tokens, record.cached_tokens),
            (10, 4, 8)
        );
        assert!(!record.estimated && record.ttft_ms.is_some() && record.at_ms > 1_700_000_000_000);
        assert_eq!((record.outcome, record.status), (UsageOutcome::Succeeded, 200));
    }
}

#[tokio::test]
async fn a_stream_that_its_client_leaves_is_recorded_with_what_was_delivered() {
    let mut gateway = Gateway::start().await;
    let (mut events, opened) = gateway.stream("one ").await;
    opened.say("two ").await;
    assert_eq!(events.text().await, "", "the role");
    assert_eq!(events.text().await, "one ");
    assert_eq!(events.text().await, "two ");
    drop(events);
    let record = gateway.record().await;
    assert_eq!((record.outcome, record.status), (UsageOutcome::Cancelled, 499));
    assert_eq!(record.completion_tokens, 2);
    // The engine did not tell the prompt's tokens; a quarter of the body's bytes stands for it.
    assert!(record.estimated && record.prompt_tokens == opened.call.body.len() as u64 / 4);
}

#[tokio::test]
async fn a_stream_that_breaks_is_recorded_too_and_a_refusal_uses_nothing() {
    let mut gateway = Gateway::start().await;
    let (_events, opened) = gateway.stream("one ").await;
    let reason = "x".to_owned();
    opened.say(CallError::WorkerLost { reason }).await;
    let record = gateway.record().await;
    assert_eq!((record.outcome, record.status), (UsageOutcome::Failed, 200));
    assert_eq!((record.completion_tokens, record.estimated), (1, true));

    let refused = gateway.chat(ask(false));
    let opened = gateway.call().await;
    opened.say(worker()).await;
    let error = EngineError {
        code: ErrorCode::ContextLengthExceeded,
        message: "long".into(),
        param: None,
        engine_code: None,
        retryable: false,
        retry_after_ms: None,
    };
    opened.say(CallError::Engine(error)).await;
    assert_eq!(refused.await.unwrap().status, 400);
    let record = gateway.record().await;
    assert_eq!((record.outcome, record.status), (UsageOutcome::Rejected, 400));
    assert_eq!((record.prompt_tokens, record.completion_tokens), (0, 0));
}

#[tokio::test]
async fn what_is_no_request_is_not_recorded() {
    let mut gateway = Gateway::start().await;
    assert_eq!(gateway.chat(json!({"model": "m"})).await.unwrap().status, 400);
    let client = gateway.chat(ask(false));
    let opened = gateway.call().await;
    opened.say(worker()).await;
    opened.say("hi").await;
    opened.say(reason("stop")).await;
    opened.say(counted(10, 4)).await;
    client.await.unwrap();
    assert_eq!(gateway.record().await.prompt_tokens, 10);
}
