//! Embeddings, rerank, score, tokenize and detokenize, from the client to the engine and back.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};
use tokenbus_tests::{Client, Cluster, Gate, NatsOptions, Role, Script, Upstream, metrics};

const ALL: [&str; 5] = ["embeddings", "rerank", "score", "tokenize", "chat"];

async fn post(client: &Client, path: &str, body: &Value) -> Value {
    client.post(path, &[], body).await.collect().await.ok()
}

#[tokio::test]
async fn requests_reach_the_engine_as_they_are_and_answers_come_back_as_they_are() {
    let upstream = Upstream::start_capable("m", &ALL).await;
    let cluster = Cluster::plan().worker(Role::proxy(&upstream, 4)).start().await;
    let cases = [
        (
            "/v1/embeddings",
            r#"{"model":"m","input":[[1,2],[3]],"encoding_format":"base64","dimensions":2,"x":1.0}"#,
        ),
        (
            "/v1/rerank",
            r#"{"model":"m","query":"q","documents":["a",{"text":"b"}],"top_n":1,"return_documents":true}"#,
        ),
        ("/v1/score", r#"{"model":"m","text_1":"a","text_2":["b","c"]}"#),
        ("/tokenize", r#"{"model":"m","prompt":"a","add_special_tokens":false}"#),
        ("/detokenize", r#"{"model":"m","tokens":[1,2]}"#),
    ];
    for (number, (path, body)) in cases.into_iter().enumerate() {
        let answer = r#"{"id":"x-1","data":[{"embedding":"AACAPw==","n":1.50}],"model":"name-at-the-engine","usage":{"prompt_tokens":3,"total_tokens":3},"count":1,"max_model_len":9,"prompt":"a","content":"a"}"#;
        upstream.next(Script::json(200, &json!(null)).raw_body(answer));
        let got = cluster
            .client()
            .request(Method::POST, path, &[], Bytes::from(body))
            .await;
        assert_eq!(got.status, 200, "{path}: {}", got.text());
        assert_eq!(got.text(), answer.replace("name-at-the-engine", "m"), "{path}");
        let exchange = upstream.request(number).await;
        assert_eq!(
            (exchange.path.as_str(), exchange.body.as_ref()),
            (path, body.as_bytes())
        );
    }
    let page = cluster.client().get("/metrics").await.text();
    let sum = |name: &str| -> f64 {
        let samples = metrics::parse(&page);
        samples
            .iter()
            .filter(|sample| sample.name.contains(name))
            .map(|sample| sample.value)
            .sum()
    };
    assert_eq!(
        (sum("gateway_prompt_tokens"), sum("gateway_completion_tokens")),
        (15.0, 0.0),
        "{page}"
    );
}

#[tokio::test]
async fn the_simulated_engine_embeds_ranks_and_tokenizes() {
    let cluster = Cluster::plan().worker(Role::sim("m", 4)).start().await;
    let client = cluster.client();
    let vectors = post(
        &client,
        "/v1/embeddings",
        &json!({"model": "m", "input": ["a", "b", "a"]}),
    )
    .await;
    assert_eq!(
        (&vectors["model"], &vectors["data"][0]["embedding"]),
        (&json!("m"), &vectors["data"][2]["embedding"])
    );
    let ranks = json!({"model": "m", "query": "b c", "documents": ["a", "b c"]});
    assert_eq!(post(&client, "/v1/rerank", &ranks).await["results"][0]["index"], 1);
    let tokens = post(&client, "/tokenize", &json!({"model": "m", "prompt": "t3 t1 "})).await;
    assert_eq!((&tokens["tokens"], &tokens["count"]), (&json!([3, 1]), &json!(2)));
    let text = post(
        &client,
        "/detokenize",
        &json!({"model": "m", "tokens": tokens["tokens"]}),
    )
    .await;
    assert_eq!(text["prompt"], "t3 t1 ");
}

#[tokio::test]
async fn an_answer_of_many_megabytes_crosses_a_bus_with_a_small_limit() {
    let upstream = Upstream::start_capable("m", &ALL).await;
    let nats = NatsOptions {
        max_payload: 128 * 1024,
        ..NatsOptions::default()
    };
    let cluster = Cluster::plan()
        .nats(nats)
        .worker(Role::proxy(&upstream, 4))
        .start()
        .await;
    let vectors: Vec<Value> = (0..400)
        .map(|n| json!({"index": n, "embedding": vec![0.012_345_678; 4096]}))
        .collect();
    let answer = json!({"object": "list", "data": vectors, "model": "m"}).to_string();
    assert!(answer.len() > 15_000_000);
    upstream.always(Script::json(200, &json!(null)).raw_body(answer.clone()));
    let body = json!({"model": "m", "input": "a"});
    let got = cluster
        .client()
        .post("/v1/embeddings", &[], &body)
        .await
        .collect()
        .await;
    assert_eq!(got.status, 200);
    assert!(got.text() == answer, "it was changed on the way");
}

#[tokio::test]
async fn failures_of_the_engine_are_statuses() {
    let upstream = Upstream::start_capable("m", &ALL).await;
    let cluster = Cluster::plan().worker(Role::proxy(&upstream, 4)).start().await;
    let body = json!({"model": "m", "input": "a"});
    let send = async || {
        cluster
            .client()
            .post("/v1/embeddings", &[], &body)
            .await
            .collect()
            .await
    };
    let long = "This model's maximum context length is 512 tokens";
    upstream.next(Script::error(400, "BadRequestError", None, long));
    assert_eq!(send().await.error(400)["code"], "context_length_exceeded");
    // However often it is tried.
    upstream.always(Script::error(429, "rate_limit_error", None, "slow down").header("retry-after", "9"));
    let limited = send().await;
    assert_eq!(
        (limited.error(429)["type"].clone(), limited.retry_after()),
        (json!("rate_limit_error"), 9)
    );
    upstream.next(Script::json(
        200,
        &json!({"error": {"message": "no", "type": "invalid_request_error"}}),
    ));
    assert_eq!(send().await.error(400)["message"], "no");
    upstream.always(Script::json(200, &json!(null)).raw_body("{\"data\":["));
    assert_eq!(send().await.error(500)["type"], "server_error");
}

#[tokio::test]
async fn a_client_that_leaves_frees_the_slot() {
    let upstream = Upstream::start_capable("m", &ALL).await;
    let cluster = Cluster::plan().worker(Role::proxy(&upstream, 1)).start().await;
    let gate = Gate::new();
    upstream.next(Script::json(200, &json!({"data": []})).after(&gate));
    let body = json!({"model": "m", "input": "a"});
    let client = cluster.client();
    tokio::select! {
        _ = client.post("/v1/embeddings", &[], &body) => panic!("it was answered"),
        _ = upstream.request(0) => {}
    }
    upstream.request(0).await.abandoned().await;
}
