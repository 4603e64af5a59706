//! The Responses API at the edge.

use std::time::Duration;

use serde_json::{Value, json};
use tokenbus_bus::task::spawn;
use tokenbus_gateway::testing::{CallError, HttpOptions};
use tokenbus_protocol::RequestKind;
use tokio::task::JoinHandle;

use crate::support::{Answer, Events, Gateway, counted, reason, soon};

const PATH: &str = "/v1/responses";

fn ask(members: Value) -> Value {
    let mut request = json!({"model": "org/m:7b", "input": "hi"});
    request
        .as_object_mut()
        .unwrap()
        .extend(members.as_object().unwrap().clone());
    request
}

fn post(gateway: &Gateway, body: &Value) -> JoinHandle<Answer> {
    let request = gateway.client.post(gateway.url(PATH)).body(body.to_string());
    spawn("client", async move {
        Answer::of(soon(request.send()).await.unwrap()).await
    })
}

#[tokio::test]
async fn a_response_is_a_chat_call() {
    let mut gateway = Gateway::start().await;
    let answer = post(
        &gateway,
        &ask(json!({"instructions": "Be kind.", "metadata": {"a": "b"}})),
    );
    let call = gateway.call().await;
    assert_eq!(
        (call.call.kind, call.call.model.as_str()),
        (RequestKind::Chat, "org/m:7b")
    );
    let body: Value = serde_json::from_slice(&call.call.body).unwrap();
    assert_eq!(body["messages"][0], json!({"role": "system", "content": "Be kind."}));
    call.say("Hel").await;
    call.say("lo").await;
    call.say(reason("stop")).await;
    call.say(counted(3, 2)).await;
    let answer = answer.await.unwrap();
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (200, "application/json")
    );
    let response = answer.json();
    assert_eq!(response["id"], format!("resp_{}", call.call.id.simple()));
    assert_eq!(
        (&response["object"], &response["status"]),
        (&json!("response"), &json!("completed"))
    );
    assert_eq!(response["output"][0]["content"][0]["text"], "Hello");
    assert_eq!(response["usage"]["total_tokens"], 5);
    assert_eq!(response["metadata"], json!({"a": "b"}));
    // Nobody said that it is to be kept, and there is no place for it.
    assert_eq!(response["store"], false);
}

#[tokio::test]
async fn a_stream_begins_with_its_response_and_is_kept_alive() {
    let options = HttpOptions {
        commit_after: Duration::from_millis(50),
        keep_alive: Duration::from_millis(50),
        ..HttpOptions::default()
    };
    let mut gateway = Gateway::with(options).await;
    let request = gateway
        .client
        .post(gateway.url(PATH))
        .body(ask(json!({"stream": true})).to_string());
    let response = spawn("client", async move { soon(request.send()).await.unwrap() });
    let call = gateway.call().await;
    let response = response.await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream; charset=utf-8");
    let mut events = Events::of(response);
    let mut names = Vec::new();
    while names.len() < 5 {
        let event = events.next().await.unwrap().unwrap();
        names.push(event.lines().next().unwrap().to_owned());
    }
    assert_eq!(&names[..2], ["event: response.created", "event: response.in_progress"]);
    assert!(names[2..].iter().all(|name| name == ": keep-alive"), "{names:?}");
    call.say("a").await;
    call.say(CallError::WorkerLost {
        reason: "killed".to_owned(),
    })
    .await;
    let mut last = Vec::new();
    while let Some(event) = events.next().await {
        last.push(event.unwrap().lines().next().unwrap().to_owned());
    }
    let last: Vec<&str> = last
        .iter()
        .map(String::as_str)
        .filter(|name| *name != ": keep-alive")
        .collect();
    let want = [
        "event: response.output_item.added",
        "event: response.content_part.added",
        "event: response.output_text.delta",
        "event: error",
        "event: response.failed",
    ];
    assert_eq!(last, want);
}

#[tokio::test]
async fn what_is_to_be_kept_is_refused_where_nothing_is() {
    let mut gateway = Gateway::start().await;
    for (members, param) in [
        (json!({"store": true}), "store"),
        (json!({"previous_response_id": "resp_1"}), "previous_response_id"),
        (
            json!({"input": [{"type": "item_reference", "id": format!("msg_{}0000", "a".repeat(32))}]}),
            "input",
        ),
    ] {
        let answer = post(&gateway, &ask(members)).await.unwrap();
        assert_eq!(answer.status, 400, "{answer:?}");
        let error = answer.error();
        assert_eq!(
            (&error["param"], &error["code"]),
            (&json!(param), &json!("responses_not_kept"))
        );
    }
    assert!(gateway.untouched());
    let answer = post(&gateway, &ask(json!({"store": false})));
    let call = gateway.call().await;
    call.say("a").await;
    call.say(counted(1, 1)).await;
    assert_eq!(answer.await.unwrap().json()["store"], false);
    for path in ["/v1/responses/resp_1", "/v1/responses/resp_1/input_items"] {
        let answer = gateway.get(path).await;
        assert_eq!(
            (answer.status, &answer.error()["code"]),
            (404, &json!("response_not_found"))
        );
    }
    let request = gateway.client.delete(gateway.url("/v1/responses/resp_1")).send();
    let answer = Answer::of(soon(request).await.unwrap()).await;
    assert_eq!(answer.status, 404);
}

#[tokio::test]
async fn errors_are_openais() {
    let mut gateway = Gateway::start().await;
    for (body, status, code) in [
        ("{", 400, "invalid_json"),
        (r#"{"model":"m"}"#, 400, "missing_required_parameter"),
        (
            r#"{"model":"m","input":"x","tools":[{"type":"web_search"}]}"#,
            400,
            "unsupported_value",
        ),
        (r#"{"model":"m","messages":[]}"#, 400, "unsupported_parameter"),
    ] {
        let answer = gateway.client.post(gateway.url(PATH)).body(body).send();
        let answer = Answer::of(soon(answer).await.unwrap()).await;
        assert_eq!(
            (answer.status, &answer.error()["code"]),
            (status, &json!(code)),
            "{body}"
        );
    }
    assert!(gateway.untouched());
    let answer = post(&gateway, &ask(json!({"stream": true})));
    let call = gateway.call().await;
    call.say(CallError::UnknownModel {
        model: "org/m:7b".to_owned(),
        known: vec![],
    })
    .await;
    let answer = answer.await.unwrap();
    assert_eq!(
        (answer.status, &answer.error()["code"]),
        (404, &json!("model_not_found"))
    );
    let answer = gateway.get(PATH).await;
    assert_eq!(
        (answer.status, &answer.error()["code"]),
        (405, &json!("method_not_allowed"))
    );
    for query in ["limit=0", "limit=x", "order=up"] {
        let answer = gateway.get(&format!("/v1/responses/resp_1/input_items?{query}")).await;
        assert_eq!(
            (answer.status, &answer.error()["code"]),
            (400, &json!("invalid_value")),
            "{query}"
        );
    }
    let answer = gateway.get("/v1/responses/resp_1?stream=true").await;
    assert_eq!((answer.status, &answer.error()["param"]), (400, &json!("stream")));
    for query in ["stream=maybe", "stream=false&stream=false"] {
        let answer = gateway.get(&format!("/v1/responses/resp_1?{query}")).await;
        assert_eq!(
            (answer.status, &answer.error()["code"]),
            (400, &json!("invalid_value")),
            "{query}"
        );
    }
}

#[tokio::test]
async fn what_is_left_out_stands_in_the_head_and_compaction_is_refused_by_its_name() {
    let mut gateway = Gateway::start().await;
    for stream in [false, true] {
        let tools = json!([{"type": "function", "name": "f"}, {"type": "web_search"}, {"type": "image_generation"}]);
        let answer = post(&gateway, &ask(json!({"tools": tools, "stream": stream})));
        let call = gateway.call().await;
        let body: Value = serde_json::from_slice(&call.call.body).unwrap();
        assert_eq!(body["tools"].as_array().unwrap().len(), 1);
        call.say("x").await;
        call.say(reason("stop")).await;
        call.say(counted(3, 2)).await;
        let answer = answer.await.unwrap();
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("x-tokenbus-ignored"), "web_search, image_generation");
    }
    let refused = |path: &'static str| {
        let request = gateway.client.post(gateway.url(path)).body(ask(json!({})).to_string());
        async move { Answer::of(soon(request.send()).await.unwrap()).await }
    };
    let answer = refused("/v1/responses/compact").await;
    assert_eq!(
        (answer.status, &answer.json()["error"]["code"]),
        (400, &json!("unsupported_endpoint"))
    );
    assert_eq!(refused("/v1/responses/resp_1").await.status, 405);
    assert_eq!(refused("/v1/responses/resp_1/cancel").await.status, 404);
}
