//! The Messages API with real processes: what reaches the engine, what comes back, and tokens counted
//! by engines that can.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use serde_json::{Value, json};
use tokenbus_tests::http::Answer;
use tokenbus_tests::{Client, Cluster, Role, Script, Upstream};

const MESSAGES: &str = "/v1/messages";
const COUNT: &str = "/v1/messages/count_tokens";
const HEADERS: [(&str, &str); 2] = [("anthropic-version", "2023-06-01"), ("x-api-key", "unused")];

async fn post(client: &Client, path: &str, request: &Value) -> Answer {
    client.post(path, &HEADERS, request).await.collect().await
}

fn ask(model: &str, members: Value) -> Value {
    let messages = json!([{"role": "user", "content": "one two three"}]);
    let mut request = json!({"model": model, "max_tokens": 9, "messages": messages});
    request
        .as_object_mut()
        .unwrap()
        .extend(members.as_object().unwrap().clone());
    request
}

#[tokio::test]
async fn a_stop_sequence_is_told_where_the_engine_tells_it() {
    let upstream = Upstream::start(&["m"]).await;
    let cluster = Cluster::plan().worker(Role::proxy(&upstream, 4)).start().await;
    let stopped = json!([{"index": 0, "delta": {}, "finish_reason": "stop", "stop_reason": "END"}]);
    let script = || Script::stream().role().text("a").choices(&stopped).usage(5, 2).done();
    upstream.next(script());
    let request = ask(
        "m",
        json!({"stop_sequences": ["END"], "system": "Be brief.", "top_k": 5, "min_p": 0.5}),
    );
    let answer = post(&cluster.client(), MESSAGES, &request).await.ok();
    assert_eq!(
        (&answer["stop_reason"], &answer["stop_sequence"]),
        (&json!("stop_sequence"), &json!("END"))
    );
    assert_eq!(answer["usage"], json!({"input_tokens": 5, "output_tokens": 2}));
    let sent = upstream.request(0).await.json();
    assert_eq!(
        (&sent["stop"], &sent["top_k"], &sent["min_p"]),
        (&json!(["END"]), &json!(5), &json!(0.5))
    );
    assert_eq!(sent["messages"][0], json!({"role": "system", "content": "Be brief."}));
    // Not asked for, it is the engine's own affair.
    upstream.next(script());
    let answer = post(&cluster.client(), MESSAGES, &ask("m", json!({}))).await.ok();
    assert_eq!(
        (&answer["stop_reason"], &answer["stop_sequence"]),
        (&json!("end_turn"), &Value::Null)
    );
}

#[tokio::test]
async fn an_engine_that_breaks_off_is_an_error_event() {
    let upstream = Upstream::start(&["m"]).await;
    let cluster = Cluster::plan().worker(Role::proxy(&upstream, 4)).start().await;
    upstream.always(Script::stream().role().text("half").cut());
    let mut stream = cluster
        .client()
        .stream_at(MESSAGES, &HEADERS, &ask("m", json!({})))
        .await;
    let mut last = Value::Null;
    while let Some((_, event)) = stream.next().await {
        if let tokenbus_tests::sse_client::Event::Chunk(event) = event {
            assert_ne!(event["type"], "message_stop");
            last = event;
        }
    }
    assert_eq!(last["type"], "error");
    assert!(
        last["error"]["type"].is_string() && last["request_id"].is_string(),
        "{last}"
    );
    let whole = post(&cluster.client(), MESSAGES, &ask("m", json!({}))).await;
    assert!(
        whole.status.is_server_error() && whole.json()["type"] == "error",
        "{whole:?}"
    );
}

#[tokio::test]
async fn tokens_are_counted_where_an_engine_can_and_else_estimated() {
    let mute = Role::sim("mute", 4).args(&["--no-capability", "tokenize"]);
    let cluster = Cluster::plan().worker(Role::sim("m", 4)).worker(mute).start().await;
    let client = cluster.client();
    let tools = json!([{"name": "f", "input_schema": {"type": "object"}}]);
    let request = json!({"model": "m", "system": "a b", "tools": tools, "tool_choice": {"type": "any"},
        "thinking": {"type": "enabled", "budget_tokens": 2000}, "messages": [{"role": "user", "content": "one two three"}]});
    assert_eq!(post(&client, COUNT, &request).await.ok(), json!({"input_tokens": 5}));
    let request = json!({"model": "m", "input": "one two three", "instructions": "a b"});
    let counted = post(&client, "/v1/responses/input_tokens", &request).await.ok();
    assert_eq!(counted, json!({"object": "response.input_tokens", "input_tokens": 5}));

    for (path, request) in [
        (COUNT, ask("mute", json!({"system": "x".repeat(4000)}))),
        (
            "/v1/responses/input_tokens",
            json!({"model": "mute", "input": "x".repeat(4000)}),
        ),
    ] {
        let estimated = post(&client, path, &request).await;
        assert_eq!(estimated.header("x-tokenbus-estimated"), Some("true"), "{estimated:?}");
        let tokens = estimated.ok()["input_tokens"].as_u64().unwrap();
        assert!((1000..1100).contains(&tokens), "{tokens}");
    }
    let unknown = post(&client, COUNT, &ask("nobody", json!({}))).await;
    assert_eq!(
        (unknown.status.as_u16(), &unknown.json()["error"]["type"]),
        (404, &json!("not_found_error"))
    );
}

#[tokio::test]
async fn a_tool_that_no_engine_can_use_is_refused_by_its_name() {
    let plain = Role::sim("plain", 4).args(&["--no-capability", "tools"]);
    let cluster = Cluster::plan().worker(plain).start().await;
    let tools = json!([{"name": "f", "input_schema": {"type": "object"}}]);
    let request = ask("plain", json!({"tools": tools, "tool_choice": {"type": "any"}}));
    let refused = post(&cluster.client(), MESSAGES, &request).await;
    assert_eq!(refused.status, 400, "{refused:?}");
    let error = refused.json();
    assert_eq!(error["error"]["type"], "invalid_request_error");
    assert!(
        error["error"]["message"].as_str().unwrap().contains("tool calls"),
        "{error}"
    );
}

#[tokio::test]
async fn what_an_agent_sends_reaches_a_strict_engine_in_its_form() {
    let upstream = Upstream::start(&["m"]).await;
    let cluster = Cluster::plan().worker(Role::proxy(&upstream, 4)).start().await;
    let client = cluster.client();
    upstream.always(Script::texts(&["hi"]));
    let own = |name: &str, deferred: bool| json!({"name": name, "input_schema": {"type": "object"}, "defer_loading": deferred});
    let tools = json!([own("find", false), own("b", true), own("c", true),
        {"type": "web_search_20250305", "name": "web_search"}]);
    for (n, changing) in ["aaaaa", "bbbbb"].into_iter().enumerate() {
        let system = json!([{"type": "text", "text": format!("x-anthropic-billing-header: cc_version=9; cch={changing};")},
            {"type": "text", "text": "You are kind."}]);
        let messages = json!([{"role": "user", "content": "hi"},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "find", "input": {}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": [
                {"type": "tool_reference", "tool_name": "b"}, {"type": "brand_new", "text": "more"}]}]},
            {"role": "system", "content": [{"type": "text", "text": "note"}]}]);
        let request = ask("m", json!({"system": system, "messages": messages, "tools": tools}));
        let answer = post(&client, MESSAGES, &request).await;
        assert_eq!(answer.header("x-tokenbus-ignored"), Some("web_search"), "{answer:?}");
        let sent = upstream.request(n).await.json();
        let roles: Vec<&str> = sent["messages"]
            .as_array()
            .unwrap()
            .iter()
            .map(|m| m["role"].as_str().unwrap())
            .collect();
        assert_eq!(roles, ["system", "user", "assistant", "tool", "user"]);
        assert_eq!(sent["messages"][0]["content"], "You are kind.");
        assert_eq!(sent["messages"][4]["content"], "<system>\nnote\n</system>");
        let offered: Vec<&str> = sent["tools"]
            .as_array()
            .unwrap()
            .iter()
            .map(|t| t["function"]["name"].as_str().unwrap())
            .collect();
        assert_eq!(offered, ["find", "b"]);
    }
    let forced = json!({"tools": tools, "tool_choice": {"type": "tool", "name": "web_search"}});
    let refused = post(&client, MESSAGES, &ask("m", forced)).await;
    assert_eq!(
        (refused.status.as_u16(), &refused.json()["error"]["type"]),
        (400, &json!("invalid_request_error"))
    );
}

#[tokio::test]
async fn a_message_that_begins_tells_the_size_of_its_prompt() {
    let cluster = Cluster::plan().worker(Role::sim("m", 4)).start().await;
    let request = ask("m", json!({"system": "x".repeat(4000)}));
    let mut stream = cluster.client().stream_at(MESSAGES, &HEADERS, &request).await;
    let Some((_, tokenbus_tests::sse_client::Event::Chunk(start))) = stream.next().await else {
        panic!("no event");
    };
    let told = start["message"]["usage"]["input_tokens"].as_u64().unwrap();
    assert!((1000..1100).contains(&told), "{start}");
}
