//! The Responses API with real processes: conversations that any gateway goes on with, while
//! JetStream is there and when it is not.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};
use tokenbus_tests::http::Answer;
use tokenbus_tests::sse_client::Event;
use tokenbus_tests::{Client, Cluster, NatsOptions, Role, Script, Upstream, eventually};

const RESPONSES: &str = "/v1/responses";

fn jetstream() -> NatsOptions {
    NatsOptions {
        jetstream: true,
        ..NatsOptions::default()
    }
}

async fn behind(upstream: &Upstream, nats: NatsOptions, args: &[&str]) -> Cluster {
    let plan = Cluster::plan().nats(nats).gateways(2).gateway_args(args);
    plan.worker(Role::proxy(upstream, 8)).start().await
}

async fn post_as(client: &Client, tenant: &str, request: &Value) -> Answer {
    let headers = [("x-tokenbus-tenant", tenant)];
    client.post(RESPONSES, &headers, request).await.collect().await
}

async fn post(client: &Client, request: &Value) -> Answer {
    client.post(RESPONSES, &[], request).await.collect().await
}

async fn delete(client: &Client, id: &str) -> Answer {
    let path = format!("{RESPONSES}/{id}");
    client.request(Method::DELETE, &path, &[], Bytes::new()).await
}

fn ask(input: &Value) -> Value {
    json!({"model": "m", "input": input})
}

fn after(id: &Value, input: &str) -> Value {
    json!({"model": "m", "input": input, "previous_response_id": id})
}

#[tokio::test]
async fn a_conversation_that_one_gateway_kept_is_gone_on_with_by_another() {
    let upstream = Upstream::start(&["m"]).await;
    let cluster = behind(&upstream, jetstream(), &[]).await;
    let (a, b) = (cluster.gateways[0].client(), cluster.gateways[1].client());
    upstream.next(Script::texts(&["Blue", "."]));
    let mut request = ask(&json!("Which colour?"));
    request["instructions"] = json!("Be brief.");
    let first = post(&a, &request).await.ok();
    assert_eq!(first["store"], true, "{first}");
    let id = &first["id"];
    let path = format!("{RESPONSES}/{}", id.as_str().unwrap());
    assert_eq!(b.get(&path).await.ok(), first, "any gateway has it, as it was told");

    upstream.next(Script::texts(&["Sky", "."]));
    let second = post(&b, &after(id, "Why?")).await.ok();
    assert_eq!(second["previous_response_id"], *id);
    // Instructions are of one response only.
    let want = json!([{"role": "user", "content": "Which colour?"}, {"role": "assistant", "content": "Blue."},
        {"role": "user", "content": "Why?"}]);
    assert_eq!(upstream.request(1).await.json()["messages"], want);

    let path = format!("{RESPONSES}/{}/input_items?order=asc", second["id"].as_str().unwrap());
    let items = a.get(&path).await.ok();
    let texts: Vec<&Value> = items["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| &item["content"][0]["text"])
        .collect();
    assert_eq!(texts, ["Which colour?", "Blue.", "Why?"]);

    // What came before may go: each has all that it needs.
    let gone = delete(&b, id.as_str().unwrap()).await.ok();
    assert_eq!(gone, json!({"id": id, "object": "response", "deleted": true}));
    assert_eq!(
        post(&a, &after(&second["id"], "And?")).await.ok()["status"],
        "completed"
    );
    assert_eq!(
        delete(&a, id.as_str().unwrap()).await.error(404)["code"],
        "response_not_found"
    );
    let refused = post(&a, &after(id, "And?")).await.error(400);
    assert_eq!(refused["code"], "previous_response_not_found");
    assert_eq!(refused["param"], "previous_response_id");
}

#[tokio::test]
async fn what_a_client_has_heard_to_its_end_every_gateway_knows() {
    let upstream = Upstream::start(&["m"]).await;
    let cluster = behind(&upstream, jetstream(), &[]).await;
    let clients = [cluster.gateways[0].client(), cluster.gateways[1].client()];
    let mut previous = Value::Null;
    for turn in 0..20 {
        let request = after(&previous, "next");
        let mut events = clients[turn % 2].stream_at(RESPONSES, &[], &request).await;
        // Not a moment later than the event itself.
        previous = loop {
            let event = events.chunk().await;
            if event["type"] == "response.completed" {
                assert_eq!(event["response"]["store"], true);
                break event["response"]["id"].clone();
            }
        };
    }
    let last = upstream.request(19).await.json();
    assert_eq!(last["messages"].as_array().unwrap().len(), 19 * 2 + 1);
}

#[tokio::test]
async fn responses_of_one_tenant_are_those_of_no_other() {
    let upstream = Upstream::start(&["m"]).await;
    let cluster = behind(&upstream, jetstream(), &[]).await;
    let client = cluster.client();
    let kept = post_as(&client, "red", &ask(&json!("hi"))).await.ok();
    let path = format!("{RESPONSES}/{}", kept["id"].as_str().unwrap());
    let read =
        async |path: String, headers: &[(&str, &str)]| client.request(Method::GET, &path, headers, Bytes::new()).await;
    read(path.clone(), &[("x-tokenbus-tenant", "red")]).await.ok();
    let blue = [("x-tokenbus-tenant", "blue")];
    for other in [&blue[..], &[]] {
        read(path.clone(), other).await.error(404);
        read(format!("{path}/input_items"), other).await.error(404);
        client
            .request(Method::DELETE, &path, other, Bytes::new())
            .await
            .error(404);
    }
    let refused = post_as(&client, "blue", &after(&kept["id"], "go on")).await.error(400);
    assert_eq!(refused["code"], "previous_response_not_found");
    post_as(&client, "red", &after(&kept["id"], "go on")).await.ok();
}

#[tokio::test]
async fn items_are_referred_to_by_their_ids() {
    let upstream = Upstream::start(&["m"]).await;
    let cluster = behind(&upstream, jetstream(), &[]).await;
    let (a, b) = (cluster.gateways[0].client(), cluster.gateways[1].client());
    let function = json!({"name": "weather", "arguments": "{}"});
    let call = json!({"tool_calls": [{"index": 0, "id": "c0", "type": "function", "function": function}]});
    upstream.next(
        Script::stream()
            .role()
            .delta(&call)
            .finish("tool_calls")
            .usage(3, 4)
            .done(),
    );
    let mut request = ask(&json!("Weather?"));
    request["tools"] = json!([{"type": "function", "name": "weather", "parameters": {"type": "object"}}]);
    let first = post(&a, &request).await.ok();
    let item = &first["output"][0];
    assert_eq!(
        (&item["type"], &item["call_id"]),
        (&json!("function_call"), &json!("c0"))
    );
    request["input"] = json!([{"role": "user", "content": "Weather?"}, {"type": "item_reference", "id": item["id"]},
        {"type": "function_call_output", "call_id": "c0", "output": "sunny"}]);
    post(&b, &request).await.ok();
    let messages = upstream.request(1).await.json()["messages"].clone();
    assert_eq!(messages[1]["tool_calls"][0]["function"], function);
    assert_eq!(
        messages[2],
        json!({"role": "tool", "content": "sunny", "tool_call_id": "c0"})
    );
}

#[tokio::test]
async fn a_response_larger_than_a_message_is_kept_in_parts() {
    let upstream = Upstream::start(&["m"]).await;
    let nats = NatsOptions {
        max_payload: 64 * 1024,
        ..jetstream()
    };
    let cluster = behind(&upstream, nats, &[]).await;
    let (a, b) = (cluster.gateways[0].client(), cluster.gateways[1].client());
    let long = "wörld ".repeat(50_000);
    let first = post(&a, &ask(&json!(long))).await.ok();
    assert_eq!(first["store"], true);
    post(&b, &after(&first["id"], "go on")).await.ok();
    let messages = upstream.request(1).await.json()["messages"].clone();
    assert_eq!(messages[0]["content"], long);
    delete(&b, first["id"].as_str().unwrap()).await.ok();
    delete(&a, first["id"].as_str().unwrap()).await.error(404);
}

#[tokio::test]
async fn kept_responses_survive_nats_and_run_out() {
    let upstream = Upstream::start(&["m"]).await;
    let mut cluster = behind(&upstream, jetstream(), &["--responses-ttl", "20s"]).await;
    let kept = post(&cluster.client(), &ask(&json!("hi"))).await.ok();
    let path = format!("{RESPONSES}/{}", kept["id"].as_str().unwrap());
    cluster.nats.restart().await;
    eventually("the response after a restart of NATS", async || {
        let answer = cluster.gateways[1].client().get(&path).await;
        if answer.status == 200 { Ok(()) } else { Err(answer) }
    })
    .await;
    eventually("the end of its time", async || {
        let answer = cluster.gateways[0].client().get(&path).await;
        if answer.status == 404 { Ok(()) } else { Err(answer) }
    })
    .await;
}

#[tokio::test]
async fn the_oldest_kept_response_goes_first_where_there_is_little_room() {
    let upstream = Upstream::start(&["m"]).await;
    let cluster = behind(&upstream, jetstream(), &["--responses-bytes", "256KiB"]).await;
    let client = cluster.client();
    let mut ids = Vec::new();
    for _ in 0..4 {
        let kept = post(&client, &ask(&json!("x".repeat(100_000)))).await.ok();
        assert_eq!(kept["store"], true, "there is always room for the newest");
        ids.push(kept["id"].as_str().unwrap().to_owned());
    }
    client.get(&format!("{RESPONSES}/{}", ids[0])).await.error(404);
    client.get(&format!("{RESPONSES}/{}", ids[3])).await.ok();
}

#[tokio::test]
async fn without_jetstream_responses_are_answered_and_not_kept() {
    let upstream = Upstream::start(&["m"]).await;
    let cluster = behind(&upstream, NatsOptions::default(), &[]).await;
    let client = cluster.client();
    let answer = post(&client, &ask(&json!("hi"))).await.ok();
    assert_eq!(
        (&answer["status"], &answer["store"]),
        (&json!("completed"), &json!(false))
    );
    let mut explicit = ask(&json!("hi"));
    explicit["store"] = json!(true);
    for (request, param) in [
        (explicit, "store"),
        (after(&answer["id"], "hi"), "previous_response_id"),
    ] {
        let error = post(&client, &request).await.error(400);
        assert_eq!(
            (&error["param"], &error["code"]),
            (&json!(param), &json!("responses_not_kept"))
        );
        assert!(error["message"].as_str().unwrap().contains("JetStream"), "{error}");
    }
    let path = format!("{RESPONSES}/{}", answer["id"].as_str().unwrap());
    client.get(&path).await.error(404);
    assert_eq!(upstream.requests().len(), 1, "what is refused reaches no engine");
}

#[tokio::test]
async fn responses_that_are_switched_off_are_answered_and_not_kept() {
    let upstream = Upstream::start(&["m"]).await;
    let cluster = behind(&upstream, jetstream(), &["--responses-ttl", "0"]).await;
    assert_eq!(post(&cluster.client(), &ask(&json!("hi"))).await.ok()["store"], false);
    let mut explicit = ask(&json!("hi"));
    explicit["store"] = json!(true);
    post(&cluster.client(), &explicit).await.error(400);
}

#[tokio::test]
async fn an_engine_that_breaks_off_fails_the_response_and_keeps_nothing() {
    let upstream = Upstream::start(&["m"]).await;
    let cluster = behind(&upstream, jetstream(), &[]).await;
    upstream.always(Script::stream().role().text("half").cut());
    let mut events = cluster.client().stream_at(RESPONSES, &[], &ask(&json!("hi"))).await;
    let mut told = Vec::new();
    while let Some((_, event)) = events.next().await {
        let Event::Chunk(event) = event else { continue };
        told.push(event);
    }
    let types: Vec<&str> = told.iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!(&types[types.len() - 2..], ["error", "response.failed"]);
    let failed = &told.last().unwrap()["response"];
    assert_eq!((&failed["status"], &failed["store"]), (&json!("failed"), &json!(false)));
    assert_eq!(failed["output"][0]["content"][0]["text"], "half");
    let path = format!("{RESPONSES}/{}", failed["id"].as_str().unwrap());
    cluster.client().get(&path).await.error(404);
    // In one piece it is a real status.
    let whole = post(&cluster.client(), &ask(&json!("hi"))).await;
    assert!(whole.status.is_server_error(), "{whole:?}");
}
