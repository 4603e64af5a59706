//! The HTTP engine against a real server on loopback: what goes out and what comes back.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod openai_support;

use openai_support::server::{Piece, Reply, Server, answer, done, event, finish, text, usage, vllm};
use openai_support::{Told, engine, info, job, once, question, ready, resumed, start};
use serde_json::{Value, json};
use std::time::Duration;
use tokenbus_protocol::{ErrorCode, RequestKind, Resume, ResumeChoice, TraceContext};
use tokenbus_worker::engine::openai::{OpenAiEngine, OpenAiOptions, ServerKind};
use tokenbus_worker::engine::{Engine as _, Health, Job};
use tokio::sync::oneshot;

#[tokio::test]
async fn an_answer_is_streamed_and_the_first_delta_comes_before_the_last_is_made() {
    let (go, gate) = oneshot::channel();
    let gate = std::sync::Mutex::new(Some(gate));
    let server = Server::start(vllm("m"), move |_| {
        let gate = gate.lock().unwrap().take().unwrap();
        Reply::Stream(vec![
            text("Be"),
            Piece::Wait(gate),
            text("cause"),
            finish("stop"),
            usage(3, 2),
            done(),
        ])
    })
    .await;
    let mut stream = start(&engine(&server).await, job("m", &question()));
    let Told::Delta(first) = stream.next().await else {
        panic!("no delta")
    };
    assert_eq!((first.text.as_ref(), first.tokens), ("Be", 1));
    go.send(()).unwrap();
    let rest = stream.whole().await;
    assert_eq!(rest.text(), "cause");
    assert_eq!(rest.deltas.last().unwrap().finish_reason.as_deref(), Some("stop"));
    assert_eq!(
        (rest.finish().prompt_tokens, rest.finish().completion_tokens),
        (Some(3), Some(2))
    );
}

#[tokio::test]
async fn the_server_gets_the_clients_body_but_for_three_members() {
    let mut server = Server::start(vllm("m"), |_| answer(&["x"])).await;
    let options = OpenAiOptions {
        url: Some(server.url()),
        models: vec!["mine=m".parse().unwrap()],
        ..OpenAiOptions::default()
    };
    let engine = OpenAiEngine::start(options).await.unwrap();
    assert_eq!(ready(engine.as_ref()).await.models[0].name, "mine");
    let body = r#"{"model":"mine","messages":[ {"role":"user","content":"\u0041"} ],"temperature":0.10,"top_p":1e-1,"unknown":{"b":1,"a":[null]},"seed":18446744073709551616}"#;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let job = Job {
        body: body.into(),
        trace: Some(TraceContext {
            parent: trace.to_owned(),
            state: Some("v=1".to_owned()),
        }),
        ..job("mine", &Value::Null)
    };
    start(&engine, job).whole().await.finish();
    let seen = server.next_seen().await;
    assert_eq!(seen.path, "/v1/chat/completions");
    assert_eq!(
        seen.body,
        r#"{"model":"m","messages":[ {"role":"user","content":"\u0041"} ],"temperature":0.10,"top_p":1e-1,"unknown":{"b":1,"a":[null]},"seed":18446744073709551616,"stream":true,"stream_options":{"include_usage":true,"continuous_usage_stats":true}}"#
    );
    assert_eq!(seen.headers["traceparent"], trace);
    assert_eq!(seen.headers["tracestate"], "v=1");
    assert_eq!(seen.headers["content-type"], "application/json");
    assert!(!seen.headers.contains_key("authorization"));
}

#[tokio::test]
async fn unknown_fields_of_the_server_pass() {
    let whole = once(|_| {
        Reply::Stream(vec![
            event(r#"{"x_chunk":{"a":1.50},"system_fingerprint":"fp","choices":[{"index":0,"delta":{"role":"assistant","content":"","x_delta":[1]},"x_choice":true}]}"#),
            finish("stop"),
            event(r#"{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1,"x_usage":7},"timings":{"ms":1}}"#),
            done(),
        ])
    })
    .await;
    let extra = whole.deltas[0].extra.as_ref().unwrap();
    assert_eq!(extra.chunk.as_ref().unwrap().get(), r#"{"x_chunk":{"a":1.50}}"#);
    assert_eq!(extra.delta.as_ref().unwrap().get(), r#"{"x_delta":[1]}"#);
    assert_eq!(extra.choice.as_ref().unwrap().get(), r#"{"x_choice":true}"#);
    assert_eq!(extra.fingerprint.as_deref(), Some("fp"));
    assert!(whole.finish().usage.as_ref().unwrap().get().contains(r#""x_usage":7"#));
    let end = whole.deltas.last().unwrap().extra.as_ref().unwrap();
    assert_eq!(end.chunk.as_ref().unwrap().get(), r#"{"timings":{"ms":1}}"#);
}

#[tokio::test]
async fn a_stream_in_splinters_is_the_same_stream() {
    let stream = "\u{feff}: hello\r\n\r\ndata: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Grüße 😀\"}}]}\r\n\r\n\
        data: {\"choices\":[{\"index\":0,\r\ndata: \"delta\":{},\"finish_reason\":\"stop\"}]}\r\n\r\ndata: [DONE]\r\n\r\n";
    // Each character by itself; HTTP chunks cut the events wherever they like.
    let whole = once(move |_| Reply::Stream(stream.chars().map(|c| Piece::Bytes(c.to_string())).collect())).await;
    assert_eq!(whole.text(), "Grüße 😀");
    whole.finish();
}

#[tokio::test]
async fn slow_headers_are_waited_for() {
    let (go, gate) = oneshot::channel();
    let gate = std::sync::Mutex::new(Some(gate));
    let mut server = Server::start(vllm("m"), move |_| {
        Reply::After(
            gate.lock().unwrap().take().unwrap(),
            vec![text("late"), finish("stop"), done()],
        )
    })
    .await;
    let stream = start(&engine(&server).await, job("m", &question()));
    server.next_seen().await;
    // The promise is about time: nothing happens that could be awaited.
    tokio::time::sleep(Duration::from_millis(300)).await;
    go.send(()).unwrap();
    assert_eq!(stream.whole().await.text(), "late");
}

#[tokio::test]
async fn what_a_server_is_and_can_is_discovered() {
    let models = |owner: &str| format!(r#"{{"data":[{{"id":"m","owned_by":"{owner}","max_model_len":512}}]}}"#);
    let props = r#"{"total_slots":6,"default_generation_settings":{"n_ctx":2048},"chat_template_caps":{"supports_tools":false},"modalities":{"vision":false}}"#;
    let cases = [
        (
            vec![
                ("/v1/models", models("llamacpp")),
                ("/props", props.to_owned()),
                ("/health", String::new()),
            ],
            ServerKind::LlamaServer,
            6,
            2048,
            true,
        ),
        (vllm("m"), ServerKind::Vllm, 256, 4096, true),
        (
            vec![
                ("/v1/models", models("sglang")),
                ("/get_server_info", r#"{"max_running_requests":32}"#.to_owned()),
                ("/health", String::new()),
            ],
            ServerKind::Sglang,
            32,
            512,
            true,
        ),
        (
            vec![("/v1/models", models("acme"))],
            ServerKind::Unknown,
            16,
            512,
            false,
        ),
    ];
    for (pages, kind, slots, context, continuation) in cases {
        let server = Server::start(pages, |_| answer(&["x"])).await;
        let engine = engine(&server).await;
        let info = engine.info().borrow().clone();
        assert_eq!((engine.server_kind(), info.slots), (kind, slots));
        assert_eq!(info.models[0].context_length, Some(context));
        assert_eq!(info.models[0].capabilities.continuation, continuation);
        assert_eq!(info.models[0].capabilities.tools, kind != ServerKind::LlamaServer);
    }
}

#[tokio::test]
async fn models_that_appear_are_served() {
    let server = Server::start(vllm("a"), |_| Reply::Plain(404, Vec::new(), "{}".to_owned())).await;
    let engine = engine(&server).await;
    server.set_pages(vllm("b"));
    // The 404 says that what was discovered is no longer true.
    assert_eq!(
        start(&engine, job("a", &question())).whole().await.error().code,
        ErrorCode::ModelNotFound
    );
    info(engine.as_ref(), |info| {
        info.models.iter().any(|model| model.name == "b")
    })
    .await;
    assert_eq!(
        start(&engine, job("a", &question())).whole().await.error().code,
        ErrorCode::ModelNotFound
    );
}

#[tokio::test]
async fn a_partial_answer_is_continued_as_the_server_wants_it() {
    let mut server = Server::start(vllm("m"), |_| {
        Reply::Stream(vec![text("cause"), finish("stop"), usage(13, 1), done()])
    })
    .await;
    let engine = engine(&server).await;
    let choice = ResumeChoice {
        text: "Be".to_owned(),
        tokens: 2,
        ..ResumeChoice::default()
    };
    let mut body = question();
    body["max_tokens"] = json!(10);
    let whole = start(&engine, resumed(job("m", &body), Resume { choices: vec![choice] }))
        .whole()
        .await;
    assert_eq!(whole.text(), "cause");
    assert_eq!(
        (whole.finish().prompt_tokens, whole.finish().completion_tokens),
        (Some(11), Some(1))
    );
    let sent: Value = serde_json::from_str(&server.next_seen().await.body).unwrap();
    assert_eq!(sent["messages"][1], json!({"role": "assistant", "content": "Be"}));
    assert_eq!(
        (&sent["continue_final_message"], &sent["max_tokens"]),
        (&json!(true), &json!(8))
    );
}

#[tokio::test]
async fn choices_are_continued_each_by_itself_and_come_out_as_one_answer() {
    let mut server = Server::start(vllm("m"), |seen| {
        let body: Value = serde_json::from_str(&seen.body).unwrap();
        let begun = body["messages"][1]["content"].as_str().unwrap_or("fresh").to_owned();
        Reply::Stream(vec![text(&format!("{begun}+")), finish("stop"), usage(10, 2), done()])
    })
    .await;
    let engine = engine(&server).await;
    let choice = |index, text: &str, finish: Option<&str>| ResumeChoice {
        index,
        text: text.to_owned(),
        tokens: 1,
        finish_reason: finish.map(str::to_owned),
        ..ResumeChoice::default()
    };
    let mut body = question();
    body["n"] = json!(4);
    body["max_tokens"] = json!(5);
    let exhausted = ResumeChoice {
        tokens: 5,
        ..choice(3, "d", None)
    };
    let resume = Resume {
        choices: vec![choice(0, "a", None), choice(1, "b", Some("stop")), exhausted],
    };
    let whole = start(&engine, resumed(job("m", &body), resume)).whole().await;
    let of = |index| -> String {
        whole
            .deltas
            .iter()
            .filter(|delta| delta.choice == index)
            .map(|delta| delta.text.as_ref())
            .collect()
    };
    assert_eq!(
        (of(0).as_str(), of(1).as_str(), of(2).as_str(), of(3).as_str()),
        ("a+", "", "fresh+", "")
    );
    let reason = |index| {
        whole
            .deltas
            .iter()
            .find(|delta| delta.choice == index && delta.finish_reason.is_some())
            .and_then(|delta| delta.finish_reason.clone())
    };
    assert_eq!(
        (reason(0), reason(1), reason(2), reason(3)),
        (Some("stop".into()), None, Some("stop".into()), Some("length".into()))
    );
    assert_eq!(whole.finish().completion_tokens, Some(4));
    server.next_seen().await;
    server.next_seen().await;
    assert!(server.seen.try_recv().is_err(), "two choices were left to generate");
}

#[tokio::test]
async fn an_unknown_server_does_not_pretend_to_continue() {
    let pages = vec![("/v1/models", r#"{"data":[{"id":"m","owned_by":"acme"}]}"#.to_owned())];
    let mut server = Server::start(pages, |_| answer(&["from the start"])).await;
    let engine = engine(&server).await;
    let choice = ResumeChoice {
        text: "Be".to_owned(),
        tokens: 1,
        ..ResumeChoice::default()
    };
    let whole = start(
        &engine,
        resumed(job("m", &question()), Resume { choices: vec![choice] }),
    )
    .whole()
    .await;
    assert_eq!(whole.error().engine_code.as_deref(), Some("not_continuable"));
    assert!(server.seen.try_recv().is_err());
}

#[tokio::test]
async fn text_completions_are_served() {
    let mut server = Server::start(vllm("m"), |_| {
        Reply::Stream(vec![
            event(r#"{"choices":[{"index":0,"text":" blue","finish_reason":"length"}]}"#),
            done(),
        ])
    })
    .await;
    let engine = engine(&server).await;
    let body = json!({"model": "m", "prompt": "The sky is"});
    let whole = start(
        &engine,
        Job {
            kind: RequestKind::Completion,
            ..job("m", &body)
        },
    )
    .whole()
    .await;
    assert_eq!(whole.text(), " blue");
    assert_eq!(server.next_seen().await.path, "/v1/completions");
}

#[tokio::test]
async fn many_streams_at_once_stay_apart_and_in_order() {
    let server = Server::start(vllm("m"), |seen| {
        let body: Value = serde_json::from_str(&seen.body).unwrap();
        let name = body["user"].as_str().unwrap().to_owned();
        let mut pieces: Vec<Piece> = (0..50).map(|n| text(&format!("{name}.{n} "))).collect();
        pieces.extend([finish("stop"), usage(1, 50), done()]);
        Reply::Stream(pieces)
    })
    .await;
    let engine = engine(&server).await;
    let streams: Vec<_> = (0..200)
        .map(|name| {
            let mut body = question();
            body["user"] = json!(format!("u{name}"));
            start(&engine, job("m", &body))
        })
        .collect();
    for (name, stream) in streams.into_iter().enumerate() {
        let expected: String = (0..50).map(|n| format!("u{name}.{n} ")).collect();
        assert_eq!(stream.whole().await.text(), expected);
    }
}

#[tokio::test]
async fn a_large_body_arrives_whole() {
    let mut server = Server::start(vllm("m"), |_| answer(&["x"])).await;
    let engine = engine(&server).await;
    let mut body = question();
    body["messages"][0]["content"] = json!("x".repeat(8 * 1024 * 1024));
    start(&engine, job("m", &body)).whole().await.finish();
    let sent: Value = serde_json::from_str(&server.next_seen().await.body).unwrap();
    assert_eq!(sent["messages"], body["messages"]);
}

#[tokio::test]
async fn after_stopping_it_says_so() {
    let server = Server::start(vllm("m"), |_| answer(&["x"])).await;
    let engine = engine(&server).await;
    let info = engine.info();
    engine.stop().await;
    assert!(matches!(info.borrow().health, Health::Down(_)));
    assert!(
        info.has_changed().is_ok(),
        "the channel stays open for who still listens"
    );
}
