//! What keys pay for: budgets of tokens and money, and clients that leave.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::path::Path;

use futures_util::future::join_all;
use serde_json::json;
use tokenbus_tests::ask::{ask_for, with};
use tokenbus_tests::keys::{bearer, becomes, cluster, create, keys, status, text};
use tokenbus_tests::limits::PATIENCE;
use tokenbus_tests::metrics::{parse, sum};
use tokenbus_tests::{Cluster, NatsOptions, Process, Role, eventually};

/// What `key` has used by the metrics of the first gateway: requests, and tokens of answers.
async fn used(cluster: &Cluster, key: &str) -> (f64, f64) {
    let headers = [("authorization", &*bearer(key))];
    let client = cluster.client();
    let page = client.request(http::Method::GET, "/metrics", &headers, "".into());
    let samples = parse(&page.await.text());
    let of = |name: &str| {
        sum(
            &samples,
            &format!("tokenbus_gateway_key_{name}_total"),
            &[("key", "alice")],
        )
    };
    (of("requests"), of("completion_tokens"))
}

#[tokio::test]
async fn a_client_that_leaves_has_paid_for_what_it_got_and_its_place_is_free_once() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.toml");
    let place = ["--keys", text(&file)];
    let key = create(&place, "alice", &["--streams", "1", "--read-metrics"]).await;
    let mut cluster = Cluster::plan().gateway_args(&place).start().await;
    cluster.add_worker(Role::sim("m", 8)).await;
    let headers = [("authorization", &*bearer(&key))];
    let endless = with(ask_for("m", 9), "sim", json!({"hang_after": 3}));
    for turn in 1..=4 {
        let mut left = eventually("the only place", async || {
            let left = cluster.client().stream_with(&headers, &endless).await;
            if left.is_stream() { Ok(left) } else { Err(left) }
        })
        .await;
        for token in ["t0 ", "t1 ", "t2 "] {
            assert_eq!(left.text().await, token);
        }
        // While it runs nothing else does, however many come at once.
        let others = join_all((0..8).map(|_| status(cluster.client(), &key))).await;
        assert_eq!(others, [429; 8], "turn {turn}");
        drop(left);
        eventually("three tokens to be charged", async || {
            let (_, tokens) = used(&cluster, &key).await;
            if (tokens - 3.0 * f64::from(turn)).abs() < 0.5 {
                Ok(())
            } else {
                Err(tokens)
            }
        })
        .await;
    }
    // A place that was freed twice would let two run.
    let held = eventually("the only place", async || {
        let held = cluster.client().stream_with(&headers, &endless).await;
        if held.is_stream() { Ok(held) } else { Err(held) }
    })
    .await;
    assert_eq!(status(cluster.client(), &key).await, 429);
    drop(held);
}

/// What a gateway says of a key's budget in its headers: what remains of the tokens of a day.
async fn remaining(gateway: &Process, key: &str) -> Option<u64> {
    let headers = [("authorization", &*bearer(key))];
    let client = gateway.client();
    let answer = client
        .request(http::Method::GET, "/v1/models", &headers, "".into())
        .await;
    answer.header("x-ratelimit-remaining-tokens-day")?.parse().ok()
}

/// Waits until both gateways refuse `key` for good.
async fn is_spent(cluster: &Cluster, key: &str) {
    let headers = [("authorization", &*bearer(key))];
    for gateway in &cluster.gateways {
        let answer = eventually("the end of the budget", async || {
            let answer = gateway.client().chat_with(&headers, &ask_for("m", 1)).await;
            let spent = answer.status == 429 && answer.error(429)["code"] == "insufficient_quota";
            if spent { Ok(answer) } else { Err(answer) }
        })
        .await;
        assert_eq!(answer.error(429)["type"], "insufficient_quota");
        let again = (answer.header("retry-after"), answer.header("x-should-retry"));
        assert_eq!(again, (None, Some("false")));
    }
}

/// Uses up the budgets of `keys` over both gateways, each of which has but a part of it. Returns the tokens.
async fn spend(cluster: &Cluster, keys: &[&String]) -> u64 {
    let mut used = 0;
    for key in keys {
        let headers = [("authorization", &*bearer(key))];
        for turn in 0.. {
            let client = cluster.gateways[turn % 2].client();
            let answer = client.chat_with(&headers, &ask_for("m", 250)).await;
            if answer.status == 200 {
                used += answer.ok()["usage"]["total_tokens"].as_u64().unwrap();
                continue;
            }
            match answer.error(429)["code"].as_str() {
                Some("insufficient_quota") => break,
                // The other gateway has not told yet that its request has ended.
                Some("rate_limit_exceeded") => {}
                other => panic!("{other:?}"),
            }
        }
    }
    used
}

/// What alice and bob have used is listed and in the metrics.
async fn is_shown(cluster: &Cluster, file: &Path, alice: &str) {
    let url = cluster.nats.url();
    let listed = eventually("what was used", async || {
        let listed = keys(&["list", "--keys", text(file), "--nats", &url]).await;
        if listed.stdout.contains("tokens-day 3") {
            Ok(listed)
        } else {
            Err(listed)
        }
    })
    .await;
    assert!(
        listed.stdout.contains("/3000") && listed.stdout.contains("/0.02"),
        "{listed:?}"
    );
    eventually("the budget in the metrics", async || {
        let headers = [("authorization", &*bearer(alice))];
        let client = cluster.gateways[0].client();
        let page = client
            .request(http::Method::GET, "/metrics", &headers, "".into())
            .await
            .text();
        let labels = [("key", "alice"), ("budget", "tokens-day")];
        let used = sum(&parse(&page), "tokenbus_gateway_key_budget_used", &labels);
        if used >= 3000.0 { Ok(()) } else { Err(page) }
    })
    .await;
}

#[tokio::test]
async fn a_budget_holds_over_two_gateways_and_outlives_a_restart_of_everything() {
    let nats = NatsOptions {
        jetstream: true,
        ..NatsOptions::default()
    };
    let folder = tempfile::tempdir().unwrap();
    let (file, models) = (folder.path().join("keys.toml"), folder.path().join("models.toml"));
    std::fs::write(&models, "[models.m]\nprice = { prompt = 1.0, completion = 10.0 }\n").unwrap();
    let place = ["--keys", text(&file)];
    let alice = create(&place, "alice", &["--tokens-per-day", "3000", "--read-metrics"]).await;
    let bob = create(&place, "bob", &["--cost-per-month", "0.02"]).await;
    let args = ["--keys", text(&file), "--models", text(&models)];
    let plan = Cluster::plan().nats(nats).gateways(2);
    let mut cluster = plan.gateway_args(&args).start().await;
    cluster.add_worker(Role::sim("m", 8)).await;
    for gateway in &cluster.gateways {
        becomes(gateway, &alice, 200).await;
    }
    let used = spend(&cluster, &[&alice, &bob]).await;
    assert!((3000..7000).contains(&used), "{used}");
    for key in [&alice, &bob] {
        is_spent(&cluster, key).await;
    }
    is_shown(&cluster, &file, &alice).await;

    // One gateway is killed, the other one stopped, and the bus starts again.
    cluster.gateways[0].kill().await;
    assert!(cluster.gateways[1].stop().await.success());
    cluster.gateways.clear();
    cluster.nats.restart().await;
    let url = cluster.nats.url();
    let carl = create(&place, "carl", &["--tokens-per-day", "1000"]).await;
    for name in ["gateway 3", "gateway 4"] {
        let gateway = Role::gateway().args(&args).named(name).start(&url).await;
        cluster.gateways.push(gateway);
    }
    for gateway in &cluster.gateways {
        becomes(gateway, &carl, 200).await;
    }
    for key in [&alice, &bob] {
        is_spent(&cluster, key).await;
        for gateway in &cluster.gateways {
            assert_eq!(remaining(gateway, &alice).await, Some(0));
        }
    }
}

#[tokio::test]
async fn a_budget_without_jetstream_is_counted_by_the_gateways_and_they_say_so() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.toml");
    let key = create(&["--keys", text(&file)], "alice", &["--tokens-per-month", "500"]).await;
    let cluster = cluster(text(&file), NatsOptions::default()).await;
    becomes(&cluster.gateways[0], &key, 200).await;
    let headers = [("authorization", &*bearer(&key))];
    let first = cluster.gateways[0]
        .client()
        .chat_with(&headers, &ask_for("m", 600))
        .await;
    assert_eq!(first.status, 200);
    is_spent(&cluster, &key).await;
    let said = |line: &str| (line.contains("WARN") && line.contains("there is no JetStream")).then_some(());
    cluster.gateways[0].logs().wait_for(PATIENCE, "a warning", said).await;
}
