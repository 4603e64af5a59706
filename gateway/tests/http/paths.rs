//! Paths as clients join them, and the paths that other servers have.

use serde_json::json;
use tokenbus_bus::task::spawn;

use crate::support::{Answer, Gateway, ask, counted, reason, soon};

#[tokio::test]
async fn each_way_to_write_a_path_is_served() {
    let mut gateway = Gateway::start().await;
    for path in ["//v1/models", "/v1//models", "/v1/models/", "/models", "/api/v1/models"] {
        assert_eq!(gateway.get(path).await.json()["object"], "list", "{path}");
    }
    for path in ["/health", "/ping", "/healthz/"] {
        assert_eq!(gateway.get(path).await.text, r#"{"status":"ok"}"#, "{path}");
    }
    for path in [
        "/v1/chat/completions/",
        "//v1//chat/completions",
        "/v1/v1/chat/completions",
        "/chat/completions",
    ] {
        let request = gateway.client.post(gateway.url(path)).body(ask(false).to_string());
        let answer = spawn("client", async move {
            Answer::of(soon(request.send()).await.unwrap()).await
        });
        let call = gateway.call().await;
        assert_eq!(call.call.body, ask(false).to_string());
        call.say("hi").await;
        call.say(reason("stop")).await;
        call.say(counted(1, 1)).await;
        assert_eq!(answer.await.unwrap().status, 200, "{path}");
    }
}

#[tokio::test]
async fn azures_path_names_the_model() {
    let mut gateway = Gateway::start().await;
    let path = "/openai/deployments/org%2Fm:7b/chat/completions?api-version=2024-10-21";
    let body = json!({"messages": [{"role": "user", "content": "hi"}]});
    let request = gateway.client.post(gateway.url(path)).body(body.to_string());
    let answer = spawn("client", async move {
        Answer::of(soon(request.send()).await.unwrap()).await
    });
    let call = gateway.call().await;
    assert_eq!(call.call.model, "org/m:7b");
    call.say("hi").await;
    call.say(reason("stop")).await;
    call.say(counted(1, 1)).await;
    assert_eq!(answer.await.unwrap().json()["model"], "org/m:7b");
}

#[tokio::test]
async fn an_unknown_path_is_refused_in_the_form_of_its_api_with_the_base_url() {
    let gateway = Gateway::start().await;
    let message = gateway.get("/v1/nothing").await.error()["message"].clone();
    assert!(message.as_str().unwrap().contains("ends with /v1"), "{message}");
    let request = gateway
        .client
        .get(gateway.url("/v1/complete"))
        .header("anthropic-version", "2023-06-01");
    let answer = Answer::of(soon(request.send()).await.unwrap()).await;
    assert_eq!(
        (answer.status, &answer.json()["error"]["type"]),
        (404, &json!("not_found_error"))
    );
    assert!(!answer.header("request-id").is_empty());
}
