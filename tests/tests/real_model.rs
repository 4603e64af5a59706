//! The default engine with a real model behind the bus: what it can do it does, and what it cannot it
//! says. See `fault_real_model.rs` for what it needs.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use serde_json::{Value, json};
use tempfile::TempDir;
use tokenbus_tests::ask::with;
use tokenbus_tests::clients::Clients;
use tokenbus_tests::{Client, Cluster, Role};

fn worker(logs: &TempDir) -> Role {
    let role = Role::new("worker").model("smol").args(&[
        "--engine",
        "llama",
        "--slots",
        "2",
        "--threads",
        "1",
        "--ctx",
        "1024",
        "--embeddings",
        "--pooling",
        "mean",
        "--engine-log-dir",
        logs.path().to_str().unwrap(),
    ]);
    match std::env::var("TOKENBUS_LLAMA_MODEL") {
        Ok(model) => role.args(&["--model-path", &model]),
        Err(_) => role,
    }
}

fn chat(tokens: u64) -> Value {
    json!({"model": "smol", "temperature": 0, "max_tokens": tokens,
        "messages": [{"role": "user", "content": "Name a city and its size."}]})
}

async fn post(client: &Client, path: &str, body: &Value) -> Value {
    client.post(path, &[], body).await.collect().await.ok()
}

#[tokio::test]
async fn a_real_model_does_what_it_can_and_names_what_it_cannot() {
    let logs = tempfile::tempdir().unwrap();
    let cluster = Cluster::plan().worker(worker(&logs)).start().await;
    let client = cluster.client();
    holds_to_a_schema(&client).await;
    refuses_tools(&client).await;
    completes(&client).await;
    embeds_and_tokenizes(&client).await;
    if let Some(clients) = Clients::of("sdk").await {
        let url = format!("http://{}/v1", client.address());
        clients.run("openai_real_model.py", &[&url]).await;
    }
}

async fn holds_to_a_schema(client: &Client) {
    let schema = json!({"type": "object", "additionalProperties": false, "required": ["city", "size"],
        "properties": {"city": {"type": "string", "maxLength": 20}, "size": {"type": "integer", "minimum": 0, "maximum": 9}}});
    let format = json!({"type": "json_schema", "json_schema": {"name": "city", "strict": true, "schema": schema}});
    let body = with(chat(200), "response_format", format);
    for text in [
        client.chat(&body).await.content(),
        client.transcript(&body).await.text(),
    ] {
        let value: Value = serde_json::from_str(&text).unwrap();
        assert!(value["city"].is_string() && value["size"].is_u64(), "{value}");
    }
}

/// Its chat template has no place for them. Where they are only offered, it answers without them, and says so.
async fn refuses_tools(client: &Client) {
    let tools = json!([{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]);
    let body = with(chat(4), "tools", tools);
    let offered = client.chat(&body).await;
    assert_eq!(offered.header("x-tokenbus-ignored"), Some("tools"));
    assert!(!offered.content().is_empty());
    let demanded = with(body.clone(), "tool_choice", json!("required"));
    let error = client.chat(&demanded).await.error(400);
    assert_eq!(
        (&error["code"], &error["param"]),
        (&json!("unsupported_feature"), &json!("tools"))
    );
    assert!(
        !client
            .chat(&with(body, "tool_choice", json!("none")))
            .await
            .content()
            .is_empty()
    );
    let image = json!([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]);
    assert_eq!(
        client.chat(&with(chat(4), "messages", image)).await.error(400)["param"],
        "messages"
    );
    let reranked = json!({"model": "smol", "query": "q", "documents": ["a"]});
    let refused = client.post("/v1/rerank", &[], &reranked).await.collect().await;
    assert_eq!(refused.error(400)["code"], "unsupported_feature");
}

async fn completes(client: &Client) {
    let body = json!({"model": "smol", "prompt": "One, two, three,", "max_tokens": 4, "temperature": 0, "logprobs": 2});
    let answer = post(client, "/v1/completions", &body).await;
    let choice = &answer["choices"][0];
    assert!(choice["text"].as_str().unwrap().contains("four"), "{answer}");
    let logprobs = &choice["logprobs"];
    assert_eq!(
        logprobs["tokens"].as_array().unwrap().len(),
        logprobs["text_offset"].as_array().unwrap().len()
    );
    assert!(
        logprobs["token_logprobs"][0].as_f64().unwrap() <= 0.0,
        "OpenAI's older form: {logprobs}"
    );
    let two = json!({"model": "smol", "prompt": ["One, two, three,", "a b"], "max_tokens": 2, "echo": true});
    let answer = post(client, "/v1/completions", &two).await;
    assert!(
        answer["choices"][1]["text"].as_str().unwrap().starts_with("a b"),
        "{answer}"
    );
}

async fn embeds_and_tokenizes(client: &Client) {
    let body = json!({"model": "smol", "input": ["a cat", "a dog"]});
    let answer = post(client, "/v1/embeddings", &body).await;
    assert_eq!(
        (&answer["model"], answer["data"].as_array().unwrap().len()),
        (&json!("smol"), 2)
    );
    let tokens = post(client, "/tokenize", &json!({"model": "smol", "prompt": "Hello there"})).await;
    let text = post(
        client,
        "/detokenize",
        &json!({"model": "smol", "tokens": tokens["tokens"]}),
    )
    .await;
    assert_eq!(text["prompt"], "Hello there");
}
