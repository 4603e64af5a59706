//! In which form a server is asked, and what becomes of its answer.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod openai_support;

use serde_json::{Value, json};
use tokenbus_protocol::{ErrorCode, RequestKind};
use tokenbus_worker::engine::Job;

use openai_support::server::{Pages, Reply, Seen, Server, answer, vllm};
use openai_support::{Whole, engine, job, start};

const WHOLE: &str = concat!(
    r#"{"id":"c","object":"chat.completion","model":"m","prompt_logprobs":[null,{"5":{"logprob":-1.5}}],"#,
    r#""system_fingerprint":"fp","choices":[{"index":0,"message":{"role":"assistant","content":"hi"},"finish_reason":"stop"}],"#,
    r#""usage":{"prompt_tokens":3,"completion_tokens":1,"total_tokens":4}}"#
);

fn plain(status: u16, body: &str) -> Reply {
    Reply::Plain(
        status,
        vec![("content-type", "application/json".to_owned())],
        body.to_owned(),
    )
}

fn unknown() -> Pages {
    vec![(
        "/v1/models",
        r#"{"data":[{"id":"m","owned_by":"somebody"}]}"#.to_owned(),
    )]
}

fn streams(seen: &Seen) -> bool {
    body(seen)["stream"] == json!(true)
}

fn body(seen: &Seen) -> Value {
    serde_json::from_str(&seen.body).unwrap()
}

fn chat(members: Value) -> Job {
    let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "x"}]});
    for (name, value) in members.as_object().unwrap() {
        body[name] = value.clone();
    }
    job("m", &body)
}

fn text(whole: &Whole) -> String {
    whole.deltas.iter().map(|delta| delta.text.as_ref()).collect()
}

fn one_piece_or_refused(status: u16, refusal: &'static str) -> impl Fn(Seen) -> Reply + Send + Sync {
    move |seen| {
        if streams(&seen) {
            plain(status, refusal)
        } else {
            plain(200, WHOLE)
        }
    }
}

#[tokio::test]
async fn what_engines_refuse_as_a_stream_is_asked_in_one_piece() {
    let mut server = Server::start(vllm("m"), one_piece_or_refused(400, r#"{"message":"no"}"#)).await;
    let engine = engine(&server).await;
    for members in [json!({"prompt_logprobs": 1})] {
        let whole = start(&engine, chat(members)).whole().await;
        assert_eq!(text(&whole), "hi");
        let finish = whole.finish();
        assert_eq!((finish.prompt_tokens, finish.completion_tokens), (Some(3), Some(1)));
        let last = whole.deltas.last().unwrap();
        assert_eq!(last.finish_reason.as_deref(), Some("stop"));
        let rest = last.extra.as_ref().unwrap().chunk.as_ref().unwrap();
        assert!(rest.get().contains("prompt_logprobs"), "{rest:?}");
        let seen = body(&server.next_seen().await);
        assert!(
            seen.get("stream").is_none() && seen.get("stream_options").is_none(),
            "{seen}"
        );
    }
    let job = chat(json!({"prompt": "x", "echo": true, "logprobs": 1}));
    let kind = RequestKind::Completion;
    assert_eq!(text(&start(&engine, Job { kind, ..job }).whole().await), "hi");
    let streamed = start(&engine, chat(json!({"prompt_logprobs": 1, "stream": true})))
        .whole()
        .await;
    assert_eq!(streamed.error().code, ErrorCode::BadRequest, "the engine's own refusal");
}

#[tokio::test]
async fn streamed_calls_that_are_no_json_are_asked_in_one_piece_and_that_is_remembered() {
    let piece = |arguments: &str| {
        let call = json!({"index": 0, "id": "c", "function": {"name": "f", "arguments": arguments}});
        json!({"choices": [{"index": 0, "delta": {"tool_calls": [call]}, "finish_reason": null}]}).to_string()
    };
    let end = r#"{"choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}]}"#.to_owned();
    for (twice, asked) in [(false, [1, 1]), (true, [2, 1])] {
        let mut events = vec![piece("{\"a\":1}")];
        events.extend(twice.then(|| piece("{\"a\":1}")));
        events.extend([end.clone(), "[DONE]".to_owned()]);
        let sent: String = events.iter().map(|event| format!("data: {event}\n\n")).collect();
        let mut server = Server::start(vllm("m"), move |seen| match streams(&seen) {
            true => Reply::Plain(
                200,
                vec![("content-type", "text/event-stream".to_owned())],
                sent.clone(),
            ),
            false => plain(200, WHOLE),
        })
        .await;
        let engine = engine(&server).await;
        for times in asked {
            let tools = json!({"tools": [{"type": "function", "function": {"name": "f"}}]});
            let whole = start(&engine, chat(tools)).whole().await;
            let reason = if twice { "stop" } else { "tool_calls" };
            assert_eq!(whole.deltas.last().unwrap().finish_reason.as_deref(), Some(reason));
            for _ in 0..times {
                server.next_seen().await;
            }
            assert!(server.seen.try_recv().is_err(), "asked {times} times");
        }
    }
}

#[tokio::test]
async fn a_refused_stream_is_asked_in_one_piece_and_that_is_remembered() {
    let refusal = r#"{"error":{"message":"not enabled for you","param":"stream"}}"#;
    let mut server = Server::start(unknown(), one_piece_or_refused(400, refusal)).await;
    let engine = engine(&server).await;
    for (streamed, asked) in [(false, 2), (true, 1), (false, 1)] {
        let whole = start(&engine, chat(json!({"stream": streamed}))).whole().await;
        assert_eq!(text(&whole), "hi");
        assert_eq!(whole.deltas.last().unwrap().finish_reason.as_deref(), Some("stop"));
        for _ in 0..asked {
            server.next_seen().await;
        }
        assert!(server.seen.try_recv().is_err(), "asked {asked} times");
    }
}

#[tokio::test]
async fn an_engine_that_answers_json_to_a_stream_is_understood() {
    let server = Server::start(unknown(), |_| plain(200, WHOLE)).await;
    let engine = engine(&server).await;
    assert_eq!(text(&start(&engine, chat(json!({"stream": true}))).whole().await), "hi");
}

#[tokio::test]
async fn what_tokenbus_adds_is_never_the_reason_of_a_refusal() {
    for (status, refusal) in [
        (422, r#"{"detail":[{"loc":["body","stream_options"],"msg":"extra"}]}"#),
        (400, r#"{"error":{"message":"a member is not known"}}"#),
    ] {
        let reply = move |seen: Seen| {
            let asked = body(&seen);
            if asked.get("stream_options").is_some() || asked.get("reasoning_effort").is_some() {
                plain(status, refusal)
            } else {
                answer(&["hi"])
            }
        };
        let mut server = Server::start(unknown(), reply).await;
        let engine = engine(&server).await;
        let added = json!({"reasoning_effort": "high", "thinking_budget_tokens": 5,
            "tokenbus_added": ["reasoning_effort", "thinking_budget_tokens"]});
        for round in 0..2 {
            let whole = start(&engine, chat(added.clone())).whole().await;
            assert_eq!(text(&whole), "hi", "{refusal}");
            let mut seen = body(&server.next_seen().await);
            if round == 0 {
                assert!(seen.get("reasoning_effort").is_some());
                while let Ok(next) = server.seen.try_recv() {
                    seen = body(&next);
                }
            }
            for name in [
                "stream_options",
                "reasoning_effort",
                "thinking_budget_tokens",
                "tokenbus_added",
            ] {
                let gone = name != "reasoning_effort" || status == 400;
                assert!(!gone || seen.get(name).is_none(), "{name} in {seen}");
            }
            assert!(server.seen.try_recv().is_err(), "the second request is asked once");
        }
        let own = start(&engine, chat(json!({"reasoning_effort": "high"}))).whole().await;
        assert_eq!(own.error().code, ErrorCode::BadRequest, "the client wrote that itself");
    }
}

#[tokio::test]
async fn usage_in_each_chunk_goes_to_those_who_ask() {
    let chunk = |n: u32, reason: Value| {
        openai_support::server::event(
            json!({"choices": [{"index": 0, "delta": {"content": "x"}, "finish_reason": reason}],
            "usage": {"prompt_tokens": 3, "completion_tokens": n}}),
        )
    };
    let reply = move |_| {
        Reply::Stream(vec![
            chunk(1, Value::Null),
            chunk(2, json!("stop")),
            openai_support::server::usage(3, 2),
            openai_support::server::done(),
        ])
    };
    let server = Server::start(vllm("m"), reply).await;
    let engine = engine(&server).await;
    for (options, told) in [
        (json!({"include_usage": true}), 0),
        (json!({"include_usage": true, "continuous_usage_stats": true}), 2),
    ] {
        let whole = start(&engine, chat(json!({"stream": true, "stream_options": options})))
            .whole()
            .await;
        let usages = whole.deltas.iter().filter(|delta| {
            let chunk = delta.extra.as_ref().and_then(|extra| extra.chunk.as_ref());
            chunk.is_some_and(|chunk| chunk.get().contains("\"usage\""))
        });
        assert_eq!(usages.count(), told);
    }
}

#[tokio::test]
async fn what_comes_beside_the_usage_is_told_with_the_finish() {
    let reply = |_| {
        let mut pieces = vec![
            openai_support::server::text("x"),
            openai_support::server::finish("stop"),
        ];
        let usage = json!({"choices": [], "system_fingerprint": "fp", "timings": {"n": 1},
            "usage": {"prompt_tokens": 3, "completion_tokens": 1}});
        pieces.extend([openai_support::server::event(usage), openai_support::server::done()]);
        Reply::Stream(pieces)
    };
    let server = Server::start(vllm("m"), reply).await;
    let engine = engine(&server).await;
    let whole = start(&engine, chat(json!({"stream": true}))).whole().await;
    let end = whole.deltas.last().unwrap();
    let extra = end.extra.as_ref().unwrap();
    assert_eq!(end.finish_reason.as_deref(), Some("stop"));
    assert_eq!(extra.fingerprint.as_deref(), Some("fp"));
    assert_eq!(extra.chunk.as_ref().unwrap().get(), r#"{"timings":{"n":1}}"#);
    assert!(whole.finish().chunk.is_none());
    let asked = json!({"stream": true, "stream_options": {"include_usage": true}});
    let whole = start(&engine, chat(asked)).whole().await;
    assert!(whole.deltas.last().unwrap().extra.is_none());
    let beside = whole.finish().chunk.as_ref().unwrap().get().to_owned();
    assert_eq!(beside, r#"{"timings":{"n":1},"system_fingerprint":"fp"}"#);
}
