//! Ollama's API at the edge.

use serde_json::{Value, json};
use tokenbus_api::ListedModel;
use tokenbus_bus::task::spawn;
use tokenbus_gateway::testing::{CallError, Stage};
use tokenbus_protocol::{Capabilities, EngineError, ErrorCode, RequestKind};
use tokio::task::JoinHandle;

use crate::support::{Answer, Gateway, counted, reason, soon};

fn post(gateway: &Gateway, path: &str, body: &Value) -> JoinHandle<Answer> {
    let request = gateway.client.post(gateway.url(path)).body(body.to_string());
    spawn("client", async move {
        Answer::of(soon(request.send()).await.unwrap()).await
    })
}

fn lines(answer: &Answer) -> Vec<Value> {
    assert_eq!(answer.header("content-type"), "application/x-ndjson");
    let lines = answer.text.lines();
    lines.map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn model(name: &str) -> ListedModel {
    ListedModel {
        name: name.to_owned(),
        created: 1_700_000_000,
        context_length: Some(8192),
        capabilities: Capabilities {
            chat: true,
            tools: true,
            ..Capabilities::default()
        },
        live: true,
    }
}

#[tokio::test]
async fn a_chat_is_streamed_as_lines_unless_it_says_otherwise() {
    let mut gateway = Gateway::start().await;
    let hi = json!([{"role": "user", "content": "hi"}]);
    for stream in [None, Some(false)] {
        let ask = json!({"model": "org/m:7b", "messages": hi, "stream": stream, "options": {"num_predict": 9}});
        let answer = post(&gateway, "/api/chat", &ask);
        let call = gateway.call().await;
        assert_eq!(
            (call.call.kind, call.call.model.as_str()),
            (RequestKind::Chat, "org/m:7b")
        );
        let body: Value = serde_json::from_slice(&call.call.body).unwrap();
        assert_eq!(
            (&body["max_tokens"], &body["stream"]),
            (&json!(9), &json!(stream.is_none()))
        );
        call.say("Hel").await;
        call.say("lo").await;
        call.say(reason("length")).await;
        call.say(counted(3, 2)).await;
        let answer = answer.await.unwrap();
        assert_eq!(answer.status, 200);
        let lines = match stream {
            None => lines(&answer),
            Some(_) => vec![answer.json()],
        };
        let text: String = lines
            .iter()
            .map(|line| line["message"]["content"].as_str().unwrap())
            .collect();
        assert_eq!(text, "Hello");
        let end = lines.last().unwrap();
        assert_eq!((&end["done"], &end["done_reason"]), (&json!(true), &json!("length")));
        assert_eq!((&end["prompt_eval_count"], &end["eval_count"]), (&json!(3), &json!(2)));
        assert!(end["total_duration"].as_u64().unwrap() >= end["prompt_eval_duration"].as_u64().unwrap());
    }
}

#[tokio::test]
async fn a_raw_generation_is_a_text_completion() {
    let mut gateway = Gateway::start().await;
    let ask = json!({"model": "m", "prompt": "Once", "raw": true, "stream": false});
    let answer = post(&gateway, "/api/generate", &ask);
    let call = gateway.call().await;
    assert_eq!(call.call.kind, RequestKind::Completion);
    call.say(" upon").await;
    call.say(reason("stop")).await;
    call.say(counted(1, 1)).await;
    let answer = answer.await.unwrap().json();
    assert_eq!(
        (&answer["response"], &answer["done_reason"]),
        (&json!(" upon"), &json!("stop"))
    );
}

#[tokio::test]
async fn embeddings_come_in_both_forms() {
    let mut gateway = Gateway::start().await;
    let told = r#"{"data":[{"index":1,"embedding":[2.5]},{"index":0,"embedding":[1.50]}],"usage":{"prompt_tokens":4}}"#;
    for (path, ask, want) in [
        (
            "/api/embed",
            json!({"model": "m", "input": ["a", "b"]}),
            "[[1.50],[2.5]]",
        ),
        ("/api/embeddings", json!({"model": "m", "prompt": "a"}), "[1.50]"),
    ] {
        let answer = post(&gateway, path, &ask);
        let call = gateway.call().await;
        assert_eq!(call.call.kind, RequestKind::Embeddings);
        call.say(told).await;
        call.say(counted(4, 0)).await;
        let answer = answer.await.unwrap();
        assert!(answer.text.contains(want), "{}", answer.text);
        if path == "/api/embed" {
            assert_eq!(answer.json()["prompt_eval_count"], 4);
        }
    }
}

#[tokio::test]
async fn errors_are_in_ollamas_form() {
    let mut gateway = Gateway::start().await;
    let hi = json!([{"role": "user", "content": "hi"}]);
    let ask = json!({"model": "m", "messages": hi});
    let answer = post(&gateway, "/api/chat", &ask);
    gateway
        .call()
        .await
        .say(CallError::Deadline {
            stage: Stage::Generation,
        })
        .await;
    let answer = answer.await.unwrap();
    assert_eq!((answer.status, answer.json().as_object().unwrap().len()), (504, 1));
    assert!(answer.json()["error"].is_string());
    // In the middle of a stream, it is the last line.
    let answer = post(&gateway, "/api/chat", &ask);
    let call = gateway.call().await;
    call.say("half").await;
    let error = EngineError {
        code: ErrorCode::Internal,
        message: "broke".to_owned(),
        param: None,
        engine_code: None,
        retryable: false,
        retry_after_ms: None,
    };
    call.say(CallError::Engine(error)).await;
    let lines = lines(&answer.await.unwrap());
    assert_eq!(lines[0]["message"]["content"], "half");
    assert_eq!(lines[1], json!({"error": "broke"}));
    for (path, body, status) in [
        ("/api/chat", json!({"messages": hi}), 400),
        ("/api/unknown", json!({}), 404),
        ("/api/create", json!({}), 501),
        ("/api/tags", json!({}), 405),
    ] {
        let answer = post(&gateway, path, &body).await.unwrap();
        assert_eq!(answer.status, status, "{path}");
        assert!(answer.json()["error"].is_string(), "{}", answer.text);
    }
}

#[tokio::test]
async fn models_are_listed_shown_and_loaded_by_either_name() {
    let gateway = Gateway::start().await;
    gateway.list(vec![model("m"), model("org/n:7b")]);
    let tags = gateway.get("/api/tags").await.json();
    let names: Vec<&Value> = tags["models"]
        .as_array()
        .unwrap()
        .iter()
        .map(|model| &model["name"])
        .collect();
    assert_eq!(names, ["m:latest", "org/n:7b"]);
    assert_eq!(tags["models"][0]["digest"].as_str().unwrap().len(), 64);
    assert_eq!(gateway.get("/api/ps").await.json()["models"][1]["context_length"], 8192);
    for name in ["m", "m:latest", "org/n:7b"] {
        let shown = post(&gateway, "/api/show", &json!({"model": name}))
            .await
            .unwrap()
            .json();
        assert_eq!(shown["model_info"]["tokenbus.context_length"], 8192);
        assert_eq!(shown["capabilities"], json!(["completion", "tools"]));
        let pulled = post(&gateway, "/api/pull", &json!({"name": name})).await.unwrap();
        assert_eq!(lines(&pulled).last().unwrap(), &json!({"status": "success"}));
    }
    let answer = post(&gateway, "/api/show", &json!({"model": "x"})).await.unwrap();
    assert_eq!(answer.status, 404);
    let answer = post(&gateway, "/api/generate", &json!({"model": "m"})).await.unwrap();
    assert_eq!((answer.status, &answer.json()["done_reason"]), (200, &json!("load")));
    let head = soon(gateway.client.head(gateway.url("/")).send()).await.unwrap();
    assert_eq!(head.status(), 200);
}
