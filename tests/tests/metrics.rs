//! Metrics: what happened is counted, once, under the right name.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::collections::BTreeSet;

use bytes::Bytes;
use http::Method;
use serde_json::json;
use tokenbus_tests::ask::{ask, ask_for, sim_text, with};
use tokenbus_tests::http::CHAT;
use tokenbus_tests::keys::{bearer, create, text};
use tokenbus_tests::metrics::{Sample, parse, sum};
use tokenbus_tests::{Client, Cluster, Gate, Role, Script, Upstream, eventually};

async fn samples(client: Client) -> Vec<Sample> {
    let answer = client.get("/metrics").await;
    assert_eq!(answer.status, 200);
    let kind = answer.header("content-type").unwrap_or_default().to_owned();
    assert!(
        kind.starts_with("application/openmetrics-text") || kind.starts_with("text/plain"),
        "{kind}"
    );
    let page = answer.text();
    assert!(
        !kind.starts_with("application/openmetrics-text") || page.ends_with("# EOF\n"),
        "{page}"
    );
    parse(&page)
}

/// The full name of the one metric that ends with `suffix`.
fn named(samples: &[Sample], suffix: &str) -> String {
    let mut names: Vec<&str> = samples
        .iter()
        .map(|one| one.name.as_str())
        .filter(|one| one.ends_with(suffix))
        .collect();
    names.dedup();
    assert_eq!(names.len(), 1, "{suffix}: {names:?}");
    names[0].to_owned()
}

/// The sum of the metric that ends with `suffix`.
fn value(samples: &[Sample], suffix: &str, labels: &[(&str, &str)]) -> f64 {
    sum(samples, &named(samples, suffix), labels)
}

#[track_caller]
fn is(value: f64, expected: f64) {
    assert!((value - expected).abs() < 1e-9, "{value} instead of {expected}");
}

/// What is counted when the client that left is, too.
async fn after_the_last_left(client: Client) -> Vec<Sample> {
    eventually("the client that left to be counted", async || {
        let all = samples(client).await;
        let gone = value(&all, "gateway_requests_total", &[("outcome", "cancelled")]);
        let left = value(&all, "requests_in_flight", &[]);
        if gone > 0.0 && left < 0.5 {
            Ok(all)
        } else {
            Err((gone, left))
        }
    })
    .await
}

#[tokio::test]
async fn every_outcome_is_counted_with_tokens_and_latencies() {
    let upstream = Upstream::start(&["proxied"]).await;
    let cluster = Cluster::plan()
        .worker(Role::sim("m", 4).pace("5ms", "2ms"))
        .worker(Role::proxy(&upstream, 1))
        .start()
        .await;
    let client = cluster.client();
    assert_eq!(client.chat(&ask_for("m", 5)).await.content(), sim_text(5));
    assert_eq!(client.transcript(&ask_for("m", 7)).await.whole(), sim_text(7));
    client.chat(&ask("nosuchmodel")).await.error(404);
    client.chat(&json!({"model": "m"})).await.error(400);
    // Whatever is tried, it fails.
    upstream.always(Script::error(500, "server_error", None, "boom"));
    client.chat(&ask("proxied")).await.error(500);
    let never = Gate::new();
    upstream.next(Script::texts(&["late"]).after(&never));
    client
        .chat_with(&[("x-request-timeout", "0.5")], &ask("proxied"))
        .await
        .error(504);
    let mut left = client
        .stream(&with(ask_for("m", 3), "sim", json!({"hang_after": 1})))
        .await;
    assert_eq!(left.text().await, "t0 ");
    // An answer is counted when it is behind its client, a moment after the client has it.
    eventually("one request in flight", async || {
        let seen = value(&samples(client).await, "requests_in_flight", &[]);
        if (seen - 1.0).abs() < 1e-9 { Ok(()) } else { Err(seen) }
    })
    .await;
    drop(left);

    let all = after_the_last_left(client).await;
    let requests = |outcome| value(&all, "gateway_requests_total", &[("outcome", outcome)]);
    is(requests("succeeded"), 2.0);
    is(requests("rejected"), 2.0);
    is(requests("failed"), 1.0);
    is(requests("timed_out"), 1.0);
    is(requests("cancelled"), 1.0);
    is(
        value(
            &all,
            "gateway_requests_total",
            &[("model", "m"), ("outcome", "succeeded"), ("status", "200")],
        ),
        2.0,
    );
    is(value(&all, "completion_tokens_total", &[("model", "m")]), 13.0);
    assert!(value(&all, "prompt_tokens_total", &[("model", "m")]) > 0.0);
    is(value(&all, "time_to_first_token_seconds_count", &[("model", "m")]), 3.0);
    assert!(value(&all, "inter_token_latency_seconds_count", &[("model", "m")]) >= 2.0);
    assert!(value(&all, "inter_token_latency_seconds_sum", &[("model", "m")]) > 0.0);
    is(value(&all, "requests_in_flight", &[]), 0.0);
    is(value(&all, "requests_waiting", &[]), 0.0);
    assert!(value(&all, "attempts_total", &[]) >= 5.0);
    is(value(&all, "nats_connected", &[]), 1.0);
    let unknown = all
        .iter()
        .any(|one| one.labels.get("model").is_some_and(|model| model == "nosuchmodel"));
    assert!(!unknown, "clients must not be able to make up labels");
}

#[tokio::test]
async fn the_coordinator_tells_workers_slots_and_load() {
    let cluster = Cluster::plan()
        .worker(Role::sim("m", 4))
        .worker(Role::sim("m", 2))
        .start()
        .await;
    let client = cluster.client();
    let mut held = client
        .stream(&with(ask_for("m", 3), "sim", json!({"hang_after": 1})))
        .await;
    assert_eq!(held.text().await, "t0 ");
    cluster.wait_active(1).await;
    let all = samples(cluster.coordinators[0].client()).await;
    let of_model = [("model", "m")];
    is(value(&all, "model_slots", &of_model), 6.0);
    is(value(&all, "model_free_slots", &of_model), 5.0);
    is(value(&all, "model_workers", &of_model), 2.0);
    assert!(value(&all, "model_desired_workers", &of_model) >= 1.0);
    is(value(&all, "nats_connected", &[]), 1.0);
}

/// All series of a page.
async fn series(client: Client, key: Option<&str>) -> BTreeSet<String> {
    let headers: Vec<(&str, &str)> = key.iter().map(|key| ("authorization", *key)).collect();
    let page = client.request(Method::GET, "/metrics", &headers, Bytes::new()).await;
    assert_eq!(page.status, 200);
    let samples = parse(&page.text()).into_iter();
    samples.map(|one| format!("{} {:?}", one.name, one.labels)).collect()
}

/// A body for any of the APIs, with what a client may invent in it.
fn inventive(model: &str, invented: &str) -> Bytes {
    let messages = json!([{"role": invented, "content": "a"}]);
    let mut body = json!({"model": model, "messages": messages, "max_tokens": 1, "user": invented, "documents": ["a"]});
    for member in ["prompt", "input", "query", "text_1", "text_2"] {
        body[member] = "a".into();
    }
    body[invented] = json!(1);
    Bytes::from(body.to_string())
}

/// The paths that ask a model.
const PATHS: [&str; 12] = [
    CHAT,
    "/v1/completions",
    "/v1/embeddings",
    "/v1/rerank",
    "/v1/score",
    "/tokenize",
    "/v1/responses",
    "/v1/messages",
    "/api/chat",
    "/api/generate",
    "/api/embed",
    "/api/show",
];

/// Sends all that a client can invent, with this number in it.
async fn invent(cluster: &Cluster, upstream: &Upstream, key: Option<&str>, number: usize) {
    let invented = format!("made-up-{number}");
    let (strange, client) = (format!("Bearer tb-{invented}"), cluster.client());
    let valid = key.unwrap_or("Bearer none");
    let common = [
        ("x-tokenbus-tenant", invented.as_str()),
        ("x-request-id", &invented),
        ("user-agent", &invented),
        (&invented, "x"),
    ];
    let deployed = format!("/openai/deployments/{invented}/chat/completions");
    for path in PATHS.into_iter().chain([deployed.as_str()]) {
        for (authorization, model) in [(valid, invented.as_str()), (&strange, "m"), (valid, "m")] {
            let mut headers = common.to_vec();
            headers.push(("authorization", authorization));
            let body = inventive(model, &invented);
            client.request(Method::POST, path, &headers, body).await;
        }
    }
    // An engine's refusals, with a code and a status of its own.
    let status = 430 + u16::try_from(number).unwrap();
    upstream.next(Script::error(status, &invented, Some(&invented), &invented));
    let headers = [("authorization", valid)];
    let refused = with(ask("m"), "user", json!(invented));
    client.chat_with(&headers, &refused).await;
    for path in ["/v1/models/", "/", "/v1/responses/"].map(|path| format!("{path}{invented}")) {
        client.request(Method::GET, &path, &headers, Bytes::new()).await;
        client.request(Method::DELETE, &path, &headers, Bytes::new()).await;
    }
    let method = Method::from_bytes(format!("MADEUP{number}").as_bytes()).unwrap();
    client.request(method, CHAT, &headers, Bytes::new()).await;
    let steering = [
        "host",
        "origin",
        "x-tokenbus-priority",
        "content-type",
        "content-encoding",
    ];
    for header in steering {
        let headers = [headers[0], (header, invented.as_str())];
        let body = inventive("m", &invented);
        client.request(Method::POST, CHAT, &headers, body).await;
    }
}

#[tokio::test]
async fn nothing_that_clients_invent_makes_a_series() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.toml");
    let place = ["--keys", text(&file)];
    let key = bearer(&create(&place, "alice", &["--read-metrics", "--requests-per-minute", "100000"]).await);
    for key in [None, Some(key.as_str())] {
        let upstream = Upstream::start(&["m"]).await;
        let args: &[&str] = if key.is_some() { &place } else { &[] };
        let mut cluster = Cluster::plan().gateway_args(args).start().await;
        cluster.add_worker(Role::proxy(&upstream, 4)).await;
        // The first numbers bring all series that are: of each status, code and reason.
        for number in 0..3 {
            invent(&cluster, &upstream, key, number).await;
        }
        let before = series(cluster.client(), key).await;
        for number in 3..15 {
            invent(&cluster, &upstream, key, number).await;
        }
        let after = series(cluster.client(), key).await;
        let new: Vec<&String> = after.difference(&before).collect();
        assert!(
            new.is_empty() && !after.iter().any(|one| one.contains("made-up")),
            "{new:?}"
        );
        assert!(
            after.iter().any(|one| one.contains("(unknown)")),
            "refusals are counted: {after:?}"
        );
    }
}
