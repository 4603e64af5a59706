//! Metrics: what happened is counted, once, under the right name.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use serde_json::json;
use tokenbus_tests::ask::{ask, ask_for, sim_text, with};
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
        let gone = value(&all, "requests_total", &[("outcome", "cancelled")]);
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
    let requests = |outcome| value(&all, "requests_total", &[("outcome", outcome)]);
    is(requests("succeeded"), 2.0);
    is(requests("rejected"), 2.0);
    is(requests("failed"), 1.0);
    is(requests("timed_out"), 1.0);
    is(requests("cancelled"), 1.0);
    is(
        value(
            &all,
            "requests_total",
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
