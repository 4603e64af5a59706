//! Tool calls in whatever pieces an engine sends them: clients of all APIs get them as OpenAI and Anthropic document.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use serde_json::{Value, json};
use tokenbus_tests::{Cluster, Role, Script, Upstream};

/// A call of `read` for the file `p`, as one chunk.
fn call(index: &Value, id: &str, arguments: Value) -> Value {
    let mut call = json!({"id": id, "type": "function", "function": {"name": "read", "arguments": arguments}});
    if *index != json!("absent") {
        call["index"] = index.clone();
    }
    json!({"tool_calls": [call]})
}

/// Name and arguments of the calls in an answer of any of the APIs.
fn calls(answer: &Value) -> Vec<(String, Value)> {
    let chat = answer["choices"][0]["message"]["tool_calls"]
        .as_array()
        .into_iter()
        .flatten();
    let chat = chat.map(|call| (&call["function"]["name"], &call["function"]["arguments"]));
    let blocks = answer["content"].as_array().into_iter().flatten();
    let blocks = blocks.map(|block| (&block["name"], &block["input"]));
    let items = answer["output"].as_array().into_iter().flatten();
    let items = items.map(|item| (&item["name"], &item["arguments"]));
    let parsed = |value: &Value| {
        value
            .as_str()
            .map_or(value.clone(), |text| serde_json::from_str(text).unwrap())
    };
    let all = chat.chain(blocks).chain(items);
    all.map(|(name, input)| (name.as_str().unwrap().to_owned(), parsed(input)))
        .collect()
}

#[tokio::test]
async fn calls_that_an_engine_numbers_alike_or_not_at_all_are_several_in_every_api() {
    let upstream = Upstream::start(&["m"]).await;
    let cluster = Cluster::plan().worker(Role::proxy(&upstream, 4)).start().await;
    let client = cluster.client();
    let hi = json!([{"role": "user", "content": "hi"}]);
    let function = json!({"name": "read", "parameters": {"type": "object"}});
    let chat = json!({"model": "m", "messages": hi, "tools": [{"type": "function", "function": function}]});
    let message = json!({"model": "m", "max_tokens": 99, "messages": hi, "tools": [{"name": "read", "input_schema": {"type": "object"}}]});
    let response = json!({"model": "m", "input": "hi", "tools": [{"type": "function", "name": "read", "parameters": {"type": "object"}}]});
    let want: Vec<(String, Value)> = ["a", "b"].map(|p| ("read".to_owned(), json!({ "p": p }))).into();
    for index in [json!(0), json!("absent"), Value::Null, json!("0")] {
        for arguments in [
            |p: &str| json!(format!(r#"{{"p":"{p}"}}"#)),
            |p: &str| json!({ "p": p }),
        ] {
            upstream.always(
                Script::stream()
                    .role()
                    .delta(&call(&index, "call_a", arguments("a")))
                    .delta(&call(&index, "call_b", arguments("b")))
                    .finish("tool_calls")
                    .done(),
            );
            for (path, request) in [
                ("/v1/chat/completions", &chat),
                ("/v1/messages", &message),
                ("/v1/responses", &response),
            ] {
                let answer = client.post(path, &[], request).await.collect().await.ok();
                assert_eq!(calls(&answer), want, "{path}, index {index}");
            }
            let mut streamed = chat.clone();
            streamed["stream"] = json!(true);
            let mut stream = client.stream_at("/v1/chat/completions", &[], &streamed).await;
            let mut told = Vec::new();
            while let Some((_, event)) = stream.next().await {
                if let tokenbus_tests::sse_client::Event::Chunk(event) = event {
                    let pieces = event["choices"][0]["delta"]["tool_calls"].as_array().cloned();
                    told.extend(pieces.unwrap_or_default());
                }
            }
            assert_eq!(told.len(), 2, "{told:?}");
            for (n, piece) in told.iter().enumerate() {
                assert_eq!(piece["index"], json!(n));
                assert!(piece["function"]["arguments"].is_string(), "{piece}");
            }
        }
    }
}

#[tokio::test]
async fn halves_of_a_character_in_two_chunks_are_one_in_every_member() {
    let upstream = Upstream::start(&["m"]).await;
    let cluster = Cluster::plan().worker(Role::proxy(&upstream, 4)).start().await;
    let chunk = |delta: &str| format!(r#"{{"choices":[{{"index":0,"delta":{delta},"finish_reason":null}}]}}"#);
    let begin = r#"{"tool_calls":[{"index":0,"id":"c","type":"function","function":{"name":"f","arguments":"{\"a\":\"ok \ud83d"}}]}"#;
    let end = r#"{"tool_calls":[{"index":0,"function":{"arguments":"\ude00\"}"}}]}"#;
    upstream.always(
        Script::stream()
            .role()
            .data(&chunk(r#"{"reasoning_content":"so \ud83d"}"#))
            .data(&chunk(r#"{"reasoning_content":"\ude00 it is"}"#))
            .data(&chunk(begin))
            .data(&chunk(end))
            .finish("tool_calls")
            .done(),
    );
    let request = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}],
        "tools": [{"type": "function", "function": {"name": "f"}}]});
    let answer = cluster.client().post("/v1/chat/completions", &[], &request).await;
    let message = answer.collect().await.ok()["choices"][0]["message"].clone();
    assert_eq!(message["reasoning_content"], "so 😀 it is");
    assert_eq!(message["tool_calls"][0]["function"]["arguments"], "{\"a\":\"ok 😀\"}");
}
