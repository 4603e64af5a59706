//! What workers declare decides who gets a request, and what is a 400 before anything is published.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tokenbus_tests::ask::{ask, ask_for, with};
use tokenbus_tests::fake_worker::round_trip;
use tokenbus_tests::http::Answer;
use tokenbus_tests::{Client, Cluster, Role, Script, Upstream, eventually};

fn tools() -> Value {
    json!([{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}])
}

async fn post(client: &Client, path: &str, body: &Value) -> Answer {
    client.post(path, &[], body).await.collect().await
}

/// Requests that a plain chat model cannot serve, with the member that asks for it and the feature.
fn demanding() -> Vec<(&'static str, Value, &'static str, &'static str)> {
    let chat = |member: &str, value: Value| with(ask("m"), member, value);
    let part = |part: Value| json!([{"role": "user", "content": [{"type": "text", "text": "a"}, part]}]);
    let path = "/v1/chat/completions";
    vec![
        (
            path,
            with(chat("tools", tools()), "tool_choice", json!("required")),
            "tools",
            "tool calls",
        ),
        (
            path,
            chat(
                "response_format",
                json!({"type": "json_schema", "json_schema": {"name": "x", "schema": {}}}),
            ),
            "response_format",
            "JSON schema",
        ),
        (path, chat("logprobs", json!(true)), "logprobs", "log probabilities"),
        (
            path,
            chat(
                "messages",
                part(json!({"type": "image_url", "image_url": {"url": "data:,"}})),
            ),
            "messages",
            "images",
        ),
        (
            path,
            chat(
                "messages",
                part(json!({"type": "input_audio", "input_audio": {"data": "", "format": "wav"}})),
            ),
            "messages",
            "audio",
        ),
        (
            "/v1/completions",
            json!({"model": "m", "prompt": "a"}),
            "model",
            "text completions",
        ),
        (
            "/v1/embeddings",
            json!({"model": "m", "input": "a"}),
            "model",
            "embeddings",
        ),
        (
            "/v1/rerank",
            json!({"model": "m", "query": "q", "documents": ["a"]}),
            "model",
            "reranking",
        ),
        (
            "/v1/score",
            json!({"model": "m", "text_1": "a", "text_2": "b"}),
            "model",
            "scoring",
        ),
        ("/tokenize", json!({"model": "m", "prompt": "a"}), "model", "tokenizing"),
    ]
}

#[tokio::test]
async fn what_no_worker_can_do_is_named_before_anything_is_published() {
    let upstream = Upstream::start_capable("m", &["chat"]).await;
    let cluster = Cluster::plan().worker(Role::proxy(&upstream, 4)).start().await;
    let bus = cluster.nats.client().await;
    let mut published = bus.subscribe("tb.v1.*.m.>").await.unwrap();
    let mut queued = bus.subscribe("tb.v1.*.m").await.unwrap();
    round_trip(&bus).await;
    for (path, body, param, what) in demanding() {
        let error = post(&cluster.client(), path, &body).await.error(400);
        assert_eq!(
            (&error["code"], &error["param"]),
            (&json!("unsupported_feature"), &json!(param)),
            "{path} {body}"
        );
        let message = error["message"].as_str().unwrap();
        assert!(message.contains("\"m\"") && message.contains(what), "{message}");
    }
    for harmless in [
        with(ask("m"), "tools", json!([])),
        with(with(ask("m"), "tools", tools()), "tool_choice", json!("none")),
    ] {
        assert_eq!(cluster.client().chat(&harmless).await.content(), "Hello world");
    }
    assert_eq!(upstream.requests().len(), 2);
    round_trip(&bus).await;
    let mut seen = 0;
    while let Ok(Some(_)) = tokio::time::timeout(std::time::Duration::ZERO, published.next()).await {
        seen += 1;
    }
    while let Ok(Some(_)) = tokio::time::timeout(std::time::Duration::ZERO, queued.next()).await {
        seen += 1;
    }
    assert_eq!(seen, 2, "only what can be served is published");
}

#[tokio::test]
async fn without_a_coordinator_the_workers_own_words_decide() {
    let upstream = Upstream::start_capable("m", &["chat"]).await;
    let cluster = Cluster::plan()
        .coordinators(0)
        .worker(Role::proxy(&upstream, 4))
        .start()
        .await;
    cluster.lists("m").await;
    for (path, body, _, _) in demanding() {
        let error = post(&cluster.client(), path, &body).await.error(400);
        assert_eq!(error["code"], "unsupported_feature", "{path} {body}");
    }
    assert!(upstream.requests().is_empty());
    assert_eq!(cluster.client().chat(&ask("m")).await.content(), "Hello world");
}

#[tokio::test]
async fn of_mixed_workers_each_gets_only_what_it_can_do() {
    let chats = Upstream::start_capable("m", &["chat"]).await;
    let calls = Upstream::start_capable("m", &["chat", "tools"]).await;
    let embeds = Upstream::start_capable("m", &["embeddings"]).await;
    embeds.always(Script::json(200, &json!({"data": [], "model": "m"})));
    let cluster = Cluster::plan()
        .worker(Role::proxy(&chats, 8))
        .worker(Role::proxy(&calls, 1))
        .worker(Role::proxy(&embeds, 8))
        .start()
        .await;
    let client = cluster.client();
    let (plain, with_tools) = (ask("m"), with(ask("m"), "tools", tools()));
    let embedding = json!({"model": "m", "input": "a"});
    let asked = (0..10).map(|_| async {
        tokio::join!(
            client.chat(&plain),
            client.chat(&with_tools),
            post(&client, "/v1/embeddings", &embedding)
        )
    });
    for (plain, tools, vectors) in futures_util::future::join_all(asked).await {
        assert_eq!(
            (plain.content(), tools.content()),
            ("Hello world".to_owned(), "Hello world".to_owned())
        );
        vectors.ok();
    }
    assert!(
        chats
            .requests()
            .iter()
            .all(|request| request.json().get("tools").is_none())
    );
    assert!(embeds.requests().iter().all(|request| request.path == "/v1/embeddings"));
    assert_eq!(embeds.requests().len(), 10);
    let tools = calls
        .requests()
        .into_iter()
        .filter(|request| request.json().get("tools").is_some());
    assert_eq!(tools.count(), 10, "those that waited for its one slot, too");
}

#[tokio::test]
async fn mixed_workers_are_told_apart_without_a_coordinator_too() {
    let chats = Upstream::start_capable("m", &["chat"]).await;
    let also = Upstream::start_capable("m", &["chat"]).await;
    let calls = Upstream::start_capable("m", &["chat", "tools"]).await;
    let cluster = Cluster::plan()
        .coordinators(0)
        .worker(Role::proxy(&chats, 8))
        .worker(Role::proxy(&also, 8))
        .worker(Role::proxy(&calls, 8))
        .start()
        .await;
    // The workers answer the gateway one after the other.
    eventually("the gateway to know them all", async || {
        let seen = cluster.client().get("/cluster").await.json();
        let known = seen["workers"].as_array().map_or(0, Vec::len);
        if known == 3 { Ok(()) } else { Err(seen) }
    })
    .await;
    let with_tools = with(ask("m"), "tools", tools());
    for _ in 0..10 {
        assert_eq!(cluster.client().chat(&with_tools).await.content(), "Hello world");
    }
    assert_eq!(calls.requests().len(), 10);
}

#[tokio::test]
async fn a_feature_whose_only_worker_has_just_left_is_a_503_and_not_a_400() {
    let mut cluster = Cluster::plan()
        .worker(Role::sim("m", 1).args(&["--no-capability", "tools"]))
        .worker(Role::sim("m", 1))
        .start()
        .await;
    let body = with(ask_for("m", 1), "tools", tools());
    cluster.client().chat(&body).await.ok();
    cluster.workers.pop().unwrap().stop().await;
    cluster.settled().await;
    eventually("the gateway to miss the worker", async || {
        let answer = cluster.client().chat(&body).await;
        if answer.status == 503 { Ok(()) } else { Err(answer) }
    })
    .await;
    assert_eq!(cluster.client().chat(&ask_for("m", 1)).await.content(), "t0 ");
}

#[tokio::test]
async fn capabilities_are_listed_and_the_operators_word_counts() {
    let upstream = Upstream::start_capable("m", &["chat", "vision"]).await;
    let role = Role::proxy(&upstream, 1).args(&["--capability", "rerank", "--no-capability", "vision"]);
    let cluster = Cluster::plan().worker(role).start().await;
    let model = cluster.client().get("/v1/models/m").await.ok();
    let can = &model["capabilities"];
    assert_eq!(
        (&can["chat"], &can["rerank"], &can["vision"]),
        (&json!(true), &json!(true), &json!(false)),
        "{can}"
    );
}

#[tokio::test]
async fn a_model_without_tools_is_asked_without_those_that_are_only_offered() {
    let upstream = Upstream::start_capable("m", &["chat"]).await;
    let cluster = Cluster::plan().worker(Role::proxy(&upstream, 4)).start().await;
    let offered = with(ask("m"), "tools", tools());
    for body in [&offered, &with(offered.clone(), "tool_choice", json!("auto"))] {
        let answer = cluster.client().chat(body).await;
        assert_eq!(answer.header("x-tokenbus-ignored"), Some("tools"));
        assert_eq!(answer.content(), "Hello world");
    }
    for request in upstream.requests() {
        assert_eq!(
            (request.json().get("tools"), request.json().get("tool_choice")),
            (None, None)
        );
    }
    let named = json!({"type": "function", "function": {"name": "f"}});
    for choice in [json!("required"), named] {
        let error = cluster
            .client()
            .chat(&with(offered.clone(), "tool_choice", choice))
            .await;
        assert_eq!(error.error(400)["param"], "tools");
    }
    assert_eq!(upstream.requests().len(), 2);
}
