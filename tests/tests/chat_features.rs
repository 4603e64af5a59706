//! All that a chat may ask for, from the client to the engine and back.
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

/// Members as a client may send them, spelled with care: numbers and the order of members matter.
const MEMBERS: &str = r#""tools":[{"type":"function","function":{"name":"f","strict":true,"parameters":{"type":"object",
    "properties":{"z":{"type":"number","minimum":0.50},"a":{"type":"string"}},"required":["z","a"]}}},
    {"type":"custom","custom":{"name":"g"}}],"tool_choice":{"type":"function","function":{"name":"f"}},
    "parallel_tool_calls":false,"response_format":{"type":"json_schema","json_schema":{"name":"x","strict":true,
    "schema":{"type":"object","properties":{"b":{"type":"integer"},"a":{"type":"string"}}}}},"stop":["x","y"],
    "seed":-3,"max_completion_tokens":9,"logprobs":true,"top_logprobs":5,"metadata":{"k":"v"},"user":"u","store":true,
    "service_tier":"auto","reasoning_effort":"high","verbosity":"low","prediction":{"type":"content","content":"p"},
    "modalities":["text","audio"],"audio":{"voice":"alloy","format":"wav"},"web_search_options":{},"top_k":40,"min_p":0.050,
    "guided_json":{"type":"object"},"chat_template_kwargs":{"enable_thinking":false},"add_generation_prompt":true,
    "mm_processor_kwargs":{"x":[1e3]},"stream_options":{"include_usage":true,"continuous_usage_stats":false}"#;

#[tokio::test]
async fn all_that_a_chat_may_ask_for_reaches_the_engine_as_it_was_written() {
    let upstream = Upstream::start(&["m"]).await;
    let plan = Cluster::plan().worker(Role::proxy(&upstream, 4));
    let cluster = plan
        .gateway_args(&["--engine-member", "mm_processor_kwargs"])
        .start()
        .await;
    let messages = r#"[{"role":"user","content":"Hi"}]"#;
    let sent = format!(r#"{{"model":"m","messages":{messages},{MEMBERS}}}"#);
    for stream in [false, true] {
        let body = sent.replacen('{', &format!(r#"{{"stream":{stream},"#), 1);
        let answer = cluster
            .client()
            .request(Method::POST, CHAT, &[], Bytes::from(body))
            .await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    let expected: Value = serde_json::from_str(&sent).unwrap();
    for number in 0..2 {
        let exchange = upstream.request(number).await;
        let got = exchange.json();
        for (name, value) in expected.as_object().unwrap() {
            assert_eq!(got.get(name), Some(value), "{name}");
        }
        let text = String::from_utf8(exchange.body.to_vec()).unwrap();
        for spelled in [
            r#""minimum":0.50}"#,
            r#""min_p":0.050"#,
            r#"[1e3]"#,
            r#"{"b":{"type":"integer"},"a":"#,
        ] {
            assert!(text.contains(spelled), "{spelled} is not in {text}");
        }
    }
}

#[tokio::test]
async fn images_and_sounds_of_several_megabytes_reach_the_engine() {
    let upstream = Upstream::start(&["m"]).await;
    let plan = Cluster::plan().worker(Role::proxy(&upstream, 4));
    let cluster = plan.gateway_args(&["--media-urls", "example.org"]).start().await;
    let data: String = (0..600_000_u32).map(|number| format!("{number:09x}+")).collect();
    assert!(data.len() > 5_900_000);
    let content = json!([
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": format!("data:image/png;base64,{data}"), "detail": "high"}},
        {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
        {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}},
        {"type": "video_url", "video_url": {"url": "https://example.org/a.mp4"}},
    ]);
    let body = json!({"model": "m", "messages": [{"role": "user", "content": content}]});
    assert_eq!(cluster.client().chat(&body).await.content(), "Hello world");
    assert_eq!(cluster.client().transcript(&body).await.text(), "Hello world");
    for number in 0..2 {
        let same = upstream.request(number).await.json()["messages"] == body["messages"];
        assert!(same, "it was changed on the way");
    }
}

#[tokio::test]
async fn parallel_tool_calls_stream_apart_and_are_joined_apart() {
    let upstream = Upstream::start(&["m"]).await;
    let cluster = behind(&upstream).await;
    let calls = |calls: Value| json!({ "tool_calls": calls });
    let head = |index: u32, name: &str| json!({"index": index, "id": format!("c{index}"), "type": "function", "function": {"name": name, "arguments": ""}});
    let piece = |index: u32, arguments: &str| json!({"index": index, "function": {"arguments": arguments}});
    upstream.always(
        Script::stream()
            .role()
            .text("I will look. ")
            .delta(&calls(json!([head(0, "f")])))
            .delta(&calls(json!([piece(0, "{\"a\":")])))
            .delta(&calls(json!([head(1, "g")])))
            .delta(&calls(json!([piece(1, "{\"b\""), piece(0, "1}")])))
            .delta(&calls(json!([piece(1, ":[2]}")])))
            .finish("tool_calls")
            .usage(3, 9)
            .done(),
    );
    let body = with(
        ask("m"),
        "tools",
        json!([{"type": "function", "function": {"name": "f"}}]),
    );
    let answer = cluster.client().chat(&body).await.ok();
    let message = &answer["choices"][0]["message"];
    assert_eq!(message["content"], "I will look. ");
    let call = |n: usize| &message["tool_calls"][n];
    assert_eq!(
        (&call(0)["id"], &call(0)["function"]["arguments"]),
        (&json!("c0"), &json!("{\"a\":1}"))
    );
    assert_eq!(
        (&call(1)["id"], &call(1)["function"]["arguments"]),
        (&json!("c1"), &json!("{\"b\":[2]}"))
    );
    let stream = cluster.client().transcript(&body).await;
    let mut arguments = [String::new(), String::new()];
    for chunk in stream.chunks() {
        for call in chunk["choices"][0]["delta"]["tool_calls"]
            .as_array()
            .into_iter()
            .flatten()
        {
            let index = usize::try_from(call["index"].as_u64().unwrap()).unwrap();
            arguments[index].push_str(call["function"]["arguments"].as_str().unwrap());
        }
    }
    assert_eq!(arguments, ["{\"a\":1}", "{\"b\":[2]}"]);
    assert_eq!(stream.finish_reasons(0), ["tool_calls"]);
}

#[tokio::test]
async fn an_agents_loop_ends_with_the_simulated_engine() {
    let cluster = Cluster::plan().worker(Role::sim("m", 4)).start().await;
    let tools = json!([{"type": "function", "function": {"name": "look", "parameters": a_city()}}]);
    let mut body = with(ask_for("m", 100), "tools", tools);
    let answer = cluster.client().chat(&body).await.ok();
    let choice = &answer["choices"][0];
    assert_eq!(
        (&choice["finish_reason"], &choice["message"]["content"]),
        (&json!("tool_calls"), &Value::Null)
    );
    let call = &choice["message"]["tool_calls"][0];
    let arguments: Value = serde_json::from_str(call["function"]["arguments"].as_str().unwrap()).unwrap();
    assert!(arguments["city"].is_string());
    let result = json!({"role": "tool", "tool_call_id": call["id"], "content": "sun"});
    let messages = body["messages"].as_array_mut().unwrap();
    messages.extend([choice["message"].clone(), result]);
    body["max_tokens"] = json!(2);
    assert_eq!(cluster.client().chat(&body).await.content(), "t0 t1 ");
    let format = json!({"type": "json_schema", "json_schema": {"name": "x", "schema": a_city()}});
    let schema = with(ask("m"), "response_format", format);
    let document: Value = serde_json::from_str(&cluster.client().transcript(&schema).await.text()).unwrap();
    assert_eq!(document, json!({"city": "t0"}));
}

fn a_city() -> Value {
    json!({"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]})
}
