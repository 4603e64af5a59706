//! Models: listing them, any name that they may have, and the scriptable engine.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use http::Method;
use serde_json::{Value, json};
use tokenbus_tests::ask::{ask, ask_for, sim_text, with};
use tokenbus_tests::{Cluster, Role, Upstream, eventually};

#[tokio::test]
async fn models_are_listed_and_gateways_and_coordinators_tell_health_and_readiness() {
    let cluster = Cluster::plan()
        .worker(Role::sim("b", 1))
        .worker(Role::sim("a", 1))
        .start()
        .await;
    for role in cluster.gateways.iter().chain(&cluster.coordinators) {
        assert_eq!(role.client().get("/healthz").await.status, 200);
        assert_eq!(role.client().get("/readyz").await.status, 200);
    }
    let client = cluster.client();
    let list = client.get("/v1/models").await.ok();
    assert_eq!(list["object"], "list");
    let ids: Vec<&str> = list["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|model| model["id"].as_str().unwrap())
        .collect();
    assert_eq!(ids, ["a", "b"]);
    for model in list["data"].as_array().unwrap() {
        assert_eq!(model["object"], "model");
        assert!(
            model["created"].as_u64().is_some_and(|created| created > 1_600_000_000),
            "{model}"
        );
        assert!(model["owned_by"].is_string(), "{model}");
    }
    let one = client.get("/v1/models/a").await.ok();
    assert_eq!(one["id"], "a");
    assert_eq!(client.get("/v1/models/c").await.error(404)["code"], "model_not_found");
}

#[tokio::test]
async fn a_model_appears_and_vanishes_with_its_workers() {
    let mut cluster = Cluster::plan().worker(Role::sim("m", 1)).start().await;
    cluster.add_worker(Role::sim("late", 1)).await;
    cluster.lists("late").await;
    assert_eq!(cluster.client().chat(&ask_for("late", 2)).await.content(), sim_text(2));
    cluster.workers.pop().unwrap().stop().await;
    cluster.settled().await;
    eventually("the model to be known and without a worker", async || {
        let answer = cluster.client().chat(&ask("late")).await;
        if answer.status == 503 { Ok(()) } else { Err(answer) }
    })
    .await;
}

/// Ids that are awkward in a subject, a path, a header or a label.
const NAMES: [&str; 9] = [
    "meta-llama/Llama-3.1-8B-Instruct",
    "qwen2.5:0.5b",
    "a model with spaces",
    "*",
    ">",
    "tb.v1.req.>",
    "grüße-模型-🚌",
    "100%25/..//x?y#z&w",
    "\"quoted\\\"",
];

#[tokio::test]
async fn any_model_id_is_listed_asked_and_answered() {
    let role = NAMES[1..]
        .iter()
        .fold(Role::sim(NAMES[0], 4), |role, name| role.model(name));
    let cluster = Cluster::plan().worker(role).start().await;
    let client = cluster.client();
    for name in NAMES {
        cluster.lists(name).await;
        let answer = client.chat(&ask_for(name, 3)).await;
        assert_eq!(answer.content(), sim_text(3), "{name}");
        assert_eq!(answer.json()["model"], *name);
        let transcript = client.transcript(&ask_for(name, 3)).await;
        assert_eq!(transcript.whole(), sim_text(3), "{name}");
        let encoded: String = name.bytes().map(|byte| format!("%{byte:02X}")).collect();
        assert_eq!(client.get(&format!("/v1/models/{encoded}")).await.ok()["id"], *name);
    }
    // As OpenAI's own clients ask for it: the slash as it is.
    assert_eq!(
        client.get(&format!("/v1/models/{}", NAMES[0])).await.ok()["id"],
        NAMES[0]
    );
    let page = client.get("/metrics").await.text();
    tokenbus_tests::metrics::parse(&page);
}

#[tokio::test]
async fn a_model_id_that_no_subject_can_hold_is_refused() {
    let cluster = Cluster::plan().worker(Role::sim("m", 1)).start().await;
    for name in [String::new(), "x".repeat(5000)] {
        let answer = cluster.client().chat(&ask(&name)).await;
        assert!(answer.status == 400 || answer.status == 404, "{answer:?}");
    }
}

#[tokio::test]
async fn a_remote_provider_is_just_another_worker() {
    let upstream = Upstream::start(&["gpt-remote"]).await;
    let secret = "sk-very-secret-0123456789";
    let role = Role::proxy(&upstream, 4)
        .model("gpt-remote")
        .env("TOKENBUS_ENGINE_API_KEY", secret);
    let cluster = Cluster::plan().worker(role).worker(Role::sim("local", 1)).start().await;
    let client = cluster.client();
    let answer = client
        .chat_with(&[("authorization", "Bearer of-the-client")], &ask("gpt-remote"))
        .await;
    assert_eq!(answer.content(), "Hello world");
    let received = upstream.request(0).await;
    // The provider sees the worker's key, and never the client's.
    assert_eq!(received.headers["authorization"], format!("Bearer {secret}"));
    assert_eq!(client.chat(&ask_for("local", 1)).await.content(), "t0 ");
    for process in cluster.workers.iter().chain(&cluster.gateways) {
        let told = process
            .logs()
            .lines()
            .into_iter()
            .find(|line| line.contains("very-secret"));
        assert_eq!(told, None, "no secret is logged");
    }
}

#[tokio::test]
async fn the_simulated_engine_does_what_a_test_scripts() {
    let cluster = Cluster::plan().worker(Role::sim("m", 2)).start().await;
    let client = cluster.client();
    let scripted = |script: Value| with(ask_for("m", 5), "sim", script);
    let broken = scripted(json!({"error_after": 2, "error_code": "content_filter"}));
    let transcript = client.transcript(&broken).await;
    assert_eq!(transcript.text(), sim_text(2));
    assert_eq!(transcript.broken_off()["code"], "content_filter");
    let refused = scripted(json!({"error_after": 0, "error_code": "bad_request"}));
    client.chat(&refused).await.error(400);

    let hangs = scripted(json!({"hang_after": 0}));
    let early = tokio::time::timeout(std::time::Duration::from_millis(300), client.stream(&hangs)).await;
    assert!(early.is_err(), "an engine that hangs answered");
    cluster.wait_active(0).await;

    let mut request = scripted(json!({"echo": true}));
    request["temperature"] = json!(0.5);
    request["max_tokens"] = json!(10_000);
    let echoed: Value = serde_json::from_str(&client.chat(&request).await.content()).unwrap();
    assert_eq!(echoed["temperature"], 0.5);
}

#[tokio::test]
async fn the_simulated_engine_keeps_its_pace() {
    let cluster = Cluster::plan()
        .worker(Role::sim("m", 4).pace("60ms", "20ms"))
        .start()
        .await;
    let asked = std::time::Instant::now();
    let transcript = cluster.client().transcript(&ask_for("m", 20)).await;
    assert_eq!(transcript.whole(), sim_text(20));
    let pieces = transcript.pieces();
    let first = pieces[0].0.duration_since(asked).as_millis();
    let took = transcript.events.last().unwrap().0.duration_since(asked).as_millis();
    // Never faster than it says; how much slower is up to the machine.
    assert!(first >= 60, "the first token after {first} ms");
    assert!(took >= 60 + 19 * 20, "all tokens after {took} ms");
    assert!(pieces.len() >= 2, "everything came at once");
}

#[tokio::test]
async fn workers_are_listed_by_the_services_protocol() {
    let cluster = Cluster::plan()
        .worker(Role::sim("m", 1).args(&["--id", "w-one"]))
        .start()
        .await;
    let bus = cluster.nats.client().await;
    for verb in ["PING", "INFO", "STATS"] {
        let asked = bus.request(format!("$SRV.{verb}"), "".into());
        let answer = tokenbus_tests::within("an answer", asked).await.unwrap();
        let answer: Value = serde_json::from_slice(&answer.payload).unwrap();
        assert_eq!(answer["name"], "tokenbus-worker", "{answer}");
        // Statistics have no metadata in this protocol.
        let metadata = answer["metadata"].as_object();
        let named = metadata.is_some_and(|metadata| metadata.values().any(|value| value == "w-one"));
        assert!(named || verb == "STATS", "{answer}");
    }
}

#[tokio::test]
async fn a_cluster_without_models_lists_none_and_a_wrong_method_is_a_405() {
    let cluster = Cluster::plan().start().await;
    let client = cluster.client();
    let list = client.get("/v1/models").await.ok();
    assert_eq!(list["data"], json!([]));
    client
        .request(Method::DELETE, "/v1/models", &[], "".into())
        .await
        .error(405);
}
