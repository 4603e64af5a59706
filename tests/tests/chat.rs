//! Chat completions that are not streamed: what reaches the engine, and what comes back.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};
use tokenbus_tests::ask::{ask, ask_for, with};
use tokenbus_tests::http::CHAT;
use tokenbus_tests::{Cluster, Role, Script, Upstream};

async fn behind(upstream: &Upstream) -> Cluster {
    Cluster::plan().worker(Role::proxy(upstream, 4)).start().await
}

#[tokio::test]
async fn an_answer_in_one_piece_joins_the_chunks_and_reports_finish_usage_and_created() {
    let upstream = Upstream::start(&["m"]).await;
    let cluster = behind(&upstream).await;
    upstream.next(Script::texts(&["Hel", "lo ", "wörld"]));
    let before = now();
    let answer = cluster.client().chat(&ask("m")).await.ok();
    assert_eq!(answer["object"], "chat.completion");
    assert_eq!(answer["model"], "m");
    assert!(answer["id"].as_str().unwrap().starts_with("chatcmpl-"), "{answer}");
    let created = answer["created"].as_u64().unwrap();
    assert!((before.saturating_sub(1)..=now()).contains(&created), "{created}");
    assert_eq!(answer["system_fingerprint"], "fp_upstream");
    let choices = answer["choices"].as_array().unwrap();
    assert_eq!(choices.len(), 1);
    assert_eq!(choices[0]["index"], 0);
    assert_eq!(choices[0]["message"]["role"], "assistant");
    assert_eq!(choices[0]["message"]["content"], "Hello wörld");
    assert_eq!(choices[0]["finish_reason"], "stop");
    assert_eq!(answer["usage"]["prompt_tokens"], 7);
    assert_eq!(answer["usage"]["completion_tokens"], 3);
    assert_eq!(answer["usage"]["total_tokens"], 10);
}

fn now() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

/// The sampling fields that tokenbus knows, and others that tokenbus does not read, spelled as JSON numbers
/// may be.
const SAMPLING: &str = r#""temperature":0.70,"top_p":1e-1,"top_k":40,"max_tokens":5,"max_completion_tokens":6,
    "stop":["a","\u0000b"],"presence_penalty":-0.5,"frequency_penalty":2,"repetition_penalty":1.10,
    "seed":9007199254740993,"logit_bias":{"50256":-100,"1":0.25},"min_p":0.05,"logprobs":true,"top_logprobs":2,
    "user":"u","metadata":{"k":"v"},"x_engine_option":{"nested":[1,null,{"deep":"ü"}]}"#;

#[tokio::test]
async fn every_sampling_field_reaches_the_engine_unchanged_and_absent_ones_stay_absent() {
    let upstream = Upstream::start(&["m"]).await;
    let cluster = behind(&upstream).await;
    let sent = format!(r#"{{"model":"m","messages":[{{"role":"user","content":"Hi"}}],{SAMPLING}}}"#);
    let answer = cluster
        .client()
        .request(Method::POST, CHAT, &[], Bytes::from(sent.clone()))
        .await;
    assert_eq!(answer.content(), "Hello world");

    let received = upstream.request(0).await;
    let (sent, got): (Value, Value) = (serde_json::from_str(&sent).unwrap(), received.json());
    for (field, value) in sent.as_object().unwrap() {
        assert_eq!(got.get(field), Some(value), "{field}");
    }
    let added: Vec<_> = got
        .as_object()
        .unwrap()
        .keys()
        .filter(|key| sent.get(key.as_str()).is_none())
        .collect();
    assert!(
        added
            .iter()
            .all(|key| ["stream", "stream_options"].contains(&key.as_str())),
        "made up: {added:?}"
    );
    // Numbers are not re-spelled on the way: an engine that parses them in another way than we
    // would must see what the client wrote.
    let text = String::from_utf8(received.body.to_vec()).unwrap();
    for spelled in ["0.70", "1e-1", "1.10", "9007199254740993", "\\u0000b"] {
        assert!(text.contains(spelled), "{spelled} is not in {text}");
    }
}

#[tokio::test]
async fn a_request_without_options_reaches_the_engine_without_them() {
    let upstream = Upstream::start(&["m"]).await;
    let cluster = behind(&upstream).await;
    cluster.client().chat(&ask("m")).await.ok();
    let received = upstream.request(0).await.json();
    let fields: Vec<_> = received.as_object().unwrap().keys().map(String::as_str).collect();
    assert!(
        fields
            .iter()
            .all(|field| ["model", "messages", "stream", "stream_options"].contains(field)),
        "made up: {fields:?}"
    );
}

#[tokio::test]
async fn content_as_string_and_as_parts_and_all_roles_reach_the_engine() {
    let upstream = Upstream::start(&["m"]).await;
    let plan = Cluster::plan().worker(Role::proxy(&upstream, 4));
    let cluster = plan.gateway_args(&["--media-urls", "example.org"]).start().await;
    let image = "data:image/png;base64,iVBORw0KGgo=";
    let messages = json!([
        {"role": "system", "content": "Be brief."},
        {"role": "developer", "content": [{"type": "text", "text": "Be kind."}]},
        {"role": "user", "name": "ann", "content": [
            {"type": "text", "text": "What is this? \u{2028} é"},
            {"type": "image_url", "image_url": {"url": image, "detail": "low"}},
            {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
            {"type": "a_part_of_tomorrow", "x": 1},
        ]},
        {"role": "assistant", "content": null, "tool_calls": [
            {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": "{\"a\":1}"}},
        ]},
        {"role": "tool", "tool_call_id": "call_1", "content": "a dot"},
        {"role": "assistant", "content": "A dot."},
        {"role": "user", "content": "Sure?"},
    ]);
    let request = json!({"model": "m", "messages": messages, "tools": [
        {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}},
    ], "tool_choice": "auto"});
    cluster.client().chat(&request).await.ok();
    let received = upstream.request(0).await.json();
    assert_eq!(received["messages"], messages);
    assert_eq!(received["tools"], request["tools"]);
    assert_eq!(received["tool_choice"], "auto");
}

#[tokio::test]
async fn a_missing_role_and_malformed_parts_are_refused_by_name() {
    let cluster = Cluster::plan().worker(Role::sim("m", 1)).start().await;
    let client = cluster.client();
    let cases = [
        (json!([{"role": 7, "content": "x"}]), "messages[0].role"),
        (json!([{"content": "x"}]), "messages[0].role"),
        (
            json!([{"role": "user", "content": "x"}, {"role": "user", "content": 7}]),
            "messages[1].content",
        ),
        (
            json!([{"role": "user", "content": [{"type": "text", "text": 7}]}]),
            "messages[0].content[0].text",
        ),
        (
            json!([{"role": "user", "content": [{"text": "no type"}]}]),
            "messages[0].content[0]",
        ),
        (json!([]), "messages"),
        (json!("hello"), "messages"),
    ];
    for (messages, field) in cases {
        let error = client
            .chat(&json!({"model": "m", "messages": messages}))
            .await
            .error(400);
        assert_eq!(error["type"], "invalid_request_error");
        let param = error["param"].as_str().unwrap_or_else(|| panic!("no param in {error}"));
        assert!(param.starts_with(field), "{field} is to blame, not {param}");
    }
}

#[tokio::test]
async fn tool_calls_reasoning_logprobs_and_unknown_members_come_back_unchanged() {
    let upstream = Upstream::start(&["m"]).await;
    let cluster = behind(&upstream).await;
    let call = |delta: Value| json!([{"index": 0, "delta": {"tool_calls": [delta]}, "finish_reason": null}]);
    let script = Script::stream()
        .role()
        .delta(&json!({"reasoning_content": "Let me "}))
        .delta(&json!({"reasoning_content": "think."}))
        .choices(&call(
            json!({"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": ""}}),
        ))
        .choices(&call(json!({"index": 0, "function": {"arguments": "{\"a\":"}})))
        .choices(&call(json!({"index": 0, "function": {"arguments": "1}"}})))
        .chunk(json!({"x_chunk": {"kept": true}, "choices": [
            {"index": 0, "delta": {}, "finish_reason": "tool_calls", "x_choice": "kept",
             "logprobs": {"content": [{"token": "a", "logprob": -0.5, "top_logprobs": []}]}},
        ]}))
        .usage(1, 3)
        .done();
    upstream.always(script);
    let answer = cluster.client().chat(&ask("m")).await.ok();
    let choice = &answer["choices"][0];
    assert_eq!(choice["message"]["content"], Value::Null);
    assert_eq!(choice["message"]["reasoning_content"], "Let me think.");
    let expected = json!([{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{\"a\":1}"}}]);
    let mut calls = choice["message"]["tool_calls"].clone();
    calls[0].as_object_mut().unwrap().remove("index");
    assert_eq!(calls, expected);
    assert_eq!(choice["finish_reason"], "tool_calls");
    assert_eq!(choice["logprobs"]["content"][0]["logprob"], -0.5);
    assert_eq!(choice["x_choice"], "kept");
    assert_eq!(answer["x_chunk"], json!({"kept": true}));

    let streamed = cluster.client().transcript(&ask("m")).await;
    let deltas: Vec<&Value> = streamed.chunks().map(|chunk| &chunk["choices"][0]["delta"]).collect();
    let arguments = deltas
        .iter()
        .filter_map(|delta| delta["tool_calls"][0]["function"]["arguments"].as_str());
    assert_eq!(arguments.collect::<String>(), "{\"a\":1}");
    let reasoning = deltas.iter().filter_map(|delta| delta["reasoning_content"].as_str());
    assert_eq!(reasoning.collect::<String>(), "Let me think.");
    assert!(
        streamed.chunks().any(|chunk| chunk["x_chunk"]["kept"] == true),
        "{streamed:#?}"
    );
    assert!(
        streamed.chunks().any(|chunk| chunk["choices"][0]["x_choice"] == "kept"),
        "{streamed:#?}"
    );
}

#[tokio::test]
async fn several_choices_come_back_apart() {
    let cluster = Cluster::plan().worker(Role::sim("m", 1)).start().await;
    let request = with(ask_for("m", 3), "n", json!(3));
    let answer = cluster.client().chat(&request).await.ok();
    let choices = answer["choices"].as_array().unwrap();
    assert_eq!(
        choices
            .iter()
            .map(|choice| choice["index"].as_u64().unwrap())
            .collect::<Vec<_>>(),
        [0, 1, 2]
    );
    for choice in choices {
        assert_eq!(choice["message"]["content"], "t0 t1 t2 ");
        assert_eq!(choice["finish_reason"], "length");
    }
    let streamed = cluster.client().transcript(&request).await;
    for index in 0..3 {
        assert_eq!(streamed.text_of(index), "t0 t1 t2 ");
        assert_eq!(streamed.finish_reasons(index), ["length"]);
    }
}

#[tokio::test]
async fn the_clients_request_id_comes_back_and_one_is_made_where_there_is_none() {
    let cluster = Cluster::plan().worker(Role::sim("m", 1)).start().await;
    let client = cluster.client();
    let answer = client.chat_with(&[("x-request-id", "abc-123")], &ask_for("m", 1)).await;
    assert_eq!(answer.header("x-request-id"), Some("abc-123"));
    let refused = client
        .chat_with(&[("x-request-id", "abc-124")], &json!({"model": "m"}))
        .await;
    refused.error(400);
    assert_eq!(refused.header("x-request-id"), Some("abc-124"));
    let made = client.chat(&ask_for("m", 1)).await;
    assert!(made.header("x-request-id").is_some_and(|id| id.len() >= 16), "{made:?}");
}
