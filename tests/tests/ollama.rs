//! Ollama's own API with real processes: what reaches the engine, failover in the middle of an answer, errors, keys.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};
use tokenbus_tests::ask::sim_text;
use tokenbus_tests::binary::run;
use tokenbus_tests::limits::PATIENCE;
use tokenbus_tests::lines::Lines;
use tokenbus_tests::{Client, Cluster, Role, Script, Upstream, eventually};

async fn chat(client: Client, more: &Value) -> Lines {
    let mut request = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]});
    request
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    Lines::new(client.post("/api/chat", &[], &request).await)
}

fn text(lines: &[Value]) -> String {
    lines
        .iter()
        .filter_map(|line| line["message"]["content"].as_str())
        .collect()
}

#[tokio::test]
async fn a_chat_whose_worker_is_killed_is_one_answer() {
    let worker = |id: &str| Role::sim("m", 4).pace("5ms", "20ms").args(&["--id", id]);
    let mut cluster = Cluster::plan().worker(worker("w0")).worker(worker("w1")).start().await;
    let mut lines = chat(cluster.client(), &json!({"options": {"num_predict": 60}})).await;
    let mut told = Vec::new();
    while told.len() < 10 {
        told.push(lines.next().await.unwrap());
    }
    let at = cluster.busy().await;
    cluster.workers[at].kill().await;
    told.extend(lines.rest().await);
    assert_eq!(text(&told), sim_text(60));
    let end = told.last().unwrap();
    assert_eq!((&end["done"], &end["eval_count"]), (&json!(true), &json!(60)));
    assert!(end["total_duration"].as_u64() >= end["eval_duration"].as_u64());
    assert_eq!(told.iter().filter(|line| line["done"] == true).count(), 1);
}

#[tokio::test]
async fn an_engine_that_breaks_off_is_an_error_line() {
    let upstream = Upstream::start(&["m"]).await;
    let cluster = Cluster::plan().worker(Role::proxy(&upstream, 4)).start().await;
    upstream.always(Script::stream().role().text("half").cut());
    let told = chat(
        cluster.client(),
        &json!({"options": {"num_ctx": 4096, "num_predict": 9}}),
    )
    .await;
    let told = told.rest().await;
    assert_eq!(told[0]["message"]["content"], "half");
    let end = told.last().unwrap();
    assert!(end["error"].is_string() && end.as_object().unwrap().len() == 1, "{end}");
    let sent = upstream.request(0).await.json();
    assert_eq!((&sent["max_tokens"], sent.get("num_ctx")), (&json!(9), None));
}

#[tokio::test]
async fn keys_and_unknown_paths_are_answered_in_ollamas_form() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys");
    let file = file.to_str().unwrap();
    let said = run(PATIENCE, &["keys", "create", "alice", "--keys", file, "--allow", "m"]).await;
    let key = format!("Bearer {}", said.stdout.trim());
    let mut cluster = Cluster::plan().gateway_args(&["--keys", file]).start().await;
    for model in ["m", "secret"] {
        cluster.add_worker(Role::sim(model, 4)).await;
    }
    let client = cluster.client();
    let answer = client.get("/api/tags").await;
    assert_eq!(answer.status, 401);
    assert!(answer.json()["error"].is_string(), "{}", answer.text());
    let headers = [("authorization", &*key)];
    let ask = |path, body| async move { client.post(path, &headers, &body).await.collect().await };
    let hi = json!([{"role": "user", "content": "hi"}]);
    eventually("the model with the key", async || {
        let answer = client.request(Method::GET, "/api/ps", &headers, Bytes::new()).await;
        if answer.text().contains("m:latest") {
            Ok(())
        } else {
            Err(answer.text())
        }
    })
    .await;
    let answer = ask(
        "/api/chat",
        json!({"model": "m:latest", "messages": hi, "stream": false}),
    )
    .await;
    assert_eq!(
        (answer.status.as_u16(), &answer.json()["model"]),
        (200, &json!("m:latest"))
    );
    for (path, body, status) in [
        ("/api/chat", json!({"model": "secret:latest", "messages": hi}), 403),
        ("/api/show", json!({"model": "secret"}), 404),
        ("/api/generate", json!({"model": "secret"}), 404),
        ("/api/nothing", json!({}), 404),
        ("/api/delete", json!({"model": "m"}), 501),
    ] {
        let answer = ask(path, body).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
        assert!(answer.json()["error"].is_string(), "{path}: {}", answer.text());
    }
}
