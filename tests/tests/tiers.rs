//! Which of a model's workers get its requests, as the model's configuration says, and what that costs.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods
)]

use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tokenbus_protocol::{UsageRecord, decode};
use tokenbus_tests::ask::{ask_for, with};
use tokenbus_tests::keys::{bearer, becomes, create, text};
use tokenbus_tests::metrics::{parse, sum};
use tokenbus_tests::sse_client::Sse;
use tokenbus_tests::{Client, Cluster, Role, eventually, within};

/// Every kind of request, for `model`.
fn all_kinds(model: &str) -> [(&'static str, Value); 8] {
    let said = json!([{"role": "user", "content": "a"}]);
    [
        ("/v1/chat/completions", ask_for(model, 1)),
        (
            "/v1/completions",
            json!({"model": model, "prompt": "a", "max_tokens": 1}),
        ),
        ("/v1/embeddings", json!({"model": model, "input": "a"})),
        (
            "/v1/rerank",
            json!({"model": model, "query": "a", "documents": ["a", "b"]}),
        ),
        ("/v1/score", json!({"model": model, "text_1": "a", "text_2": "b"})),
        ("/tokenize", json!({"model": model, "prompt": "t1 "})),
        (
            "/v1/responses",
            json!({"model": model, "input": "a", "store": false, "max_output_tokens": 16}),
        ),
        (
            "/v1/messages",
            json!({"model": model, "messages": said, "max_tokens": 1}),
        ),
    ]
}

/// The status, and which worker answered.
async fn answered(client: &Client, path: &str, body: &Value) -> (u16, String) {
    let headers = [("x-tokenbus-explain", "1")];
    let answer = client.post(path, &headers, body).await.collect().await;
    let worker = answer.header("x-tokenbus-worker").unwrap_or_default().to_owned();
    (answer.status.as_u16(), worker)
}

async fn chat(client: &Client, model: &str) -> (u16, String) {
    answered(client, "/v1/chat/completions", &ask_for(model, 1)).await
}

/// Waits until a chat with `model` ends like this: the status, and which worker answered.
async fn comes_to(cluster: &Cluster, model: &str, expected: (u16, &str)) {
    eventually(&format!("{model} to come to {expected:?}"), async || {
        let heard = chat(&cluster.client(), model).await;
        if (heard.0, &*heard.1) == expected {
            Ok(())
        } else {
            Err(heard)
        }
    })
    .await;
}

/// Takes two slots at whichever worker is first, and keeps them.
async fn take_two(client: &Client) -> [Sse; 2] {
    let endless = with(ask_for("m", 9), "sim", json!({"hang_after": 1}));
    let mut held = [client.stream(&endless).await, client.stream(&endless).await];
    for stream in &mut held {
        assert_eq!(stream.text().await, "t0 ");
    }
    held
}

/// Waits until one request waits at the gateway.
async fn one_waits(cluster: &Cluster) {
    eventually("a request that waits", async || {
        let page = cluster.client().get("/metrics").await.text();
        let waiting = sum(&parse(&page), "tokenbus_gateway_requests_waiting", &[]);
        if waiting > 0.0 { Ok(()) } else { Err(waiting) }
    })
    .await;
}

fn own() -> Role {
    Role::sim("m", 2).args(&["--id", "own", "--label", "site=own"])
}

fn hosted() -> Role {
    Role::sim("m", 64).args(&["--id", "hosted", "--label", "provider=x"])
}

#[tokio::test]
async fn a_model_orders_its_workers_as_its_file_says_and_anew_when_that_changes() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("models.toml");
    let tiers = |order: &str, wait: &str| {
        let private = "[models.private]\ntargets = [\"m\"]\nrequire = [\"site=own\"]\n";
        std::fs::write(&file, format!("{private}[models.m]\n{order}\ntier-wait = \"{wait}\"\n")).unwrap();
    };
    let own_first = r#"tiers = ["site=own", "provider=*"]"#;
    tiers(own_first, "10m");
    let plan = Cluster::plan().gateway_args(&["--models", text(&file)]);
    let mut cluster = plan.worker(hosted()).worker(own()).start().await;
    let client = cluster.client();
    comes_to(&cluster, "m", (200, "own")).await;
    for (path, body) in all_kinds("m").iter().chain(&all_kinds("private")) {
        let heard = answered(&client, path, body).await;
        assert_eq!(heard, (200, "own".to_owned()), "{path}");
    }
    // The first tier is full: one waits, until the configuration bounds its wait.
    let held = take_two(&client).await;
    let waits = tokio::spawn(async move { chat(&client, "m").await });
    one_waits(&cluster).await;
    tiers(own_first, "100ms");
    let moved = within("the next tier", waits).await.unwrap();
    assert_eq!(moved, (200, "hosted".to_owned()));
    // What requires the label waits on, whatever kind of request it is and however long it takes.
    let client = cluster.client();
    let waits = all_kinds("private").map(|(path, body)| {
        let client = cluster.client();
        tokio::spawn(async move { answered(&client, path, &body).await })
    });
    one_waits(&cluster).await;
    assert_eq!(chat(&client, "m").await, (200, "hosted".to_owned()));
    drop(held);
    for waits in waits {
        let heard = within("the slots of its own site", waits).await.unwrap();
        assert_eq!(heard, (200, "own".to_owned()));
    }
    tiers(r#"tiers = ["provider=*"]"#, "10m");
    comes_to(&cluster, "m", (200, "hosted")).await;
    tiers(r#"avoid = ["provider=*"]"#, "10m");
    comes_to(&cluster, "m", (200, "own")).await;
    tiers(r#"prefer = ["provider=x"]"#, "10m");
    comes_to(&cluster, "m", (200, "hosted")).await;
    tiers(own_first, "10m");
    comes_to(&cluster, "m", (200, "own")).await;
    // The first tier dies. The second takes over what may go there, and nothing else.
    cluster.workers[1].kill().await;
    cluster.workers.remove(1);
    comes_to(&cluster, "m", (200, "hosted")).await;
    comes_to(&cluster, "private", (503, "")).await;
    for (path, body) in &all_kinds("private") {
        assert_eq!(answered(&client, path, body).await.0, 503, "{path}");
    }
}

#[tokio::test]
async fn what_a_hosted_provider_answers_costs_its_price() {
    let folder = tempfile::tempdir().unwrap();
    let (file, keys) = (folder.path().join("models.toml"), folder.path().join("keys.toml"));
    let models = r#"
[models.m]
tiers = ["site=own", "provider=*"]
price = { completion = 1 }
prices = [{ label = "provider=*", price = { completion = 3 } }]
[models.far]
targets = ["m"]
require = ["provider=x"]
"#;
    std::fs::write(&file, models).unwrap();
    // Five tokens here and five there; by the model's price they would be half of it.
    let key = create(&["--keys", text(&keys)], "alice", &["--cost-per-day", "0.0000205"]).await;
    let free = create(&["--keys", text(&keys)], "bob", &[]).await;
    let plan = Cluster::plan().gateway_args(&["--models", text(&file), "--keys", text(&keys)]);
    let mut cluster = plan.start().await;
    cluster.add_worker(hosted()).await;
    cluster.add_worker(own()).await;
    becomes(&cluster.gateways[0], &free, 200).await;
    let bus = cluster.nats.client().await;
    let mut records = bus.subscribe("tb.v1.usage").await.unwrap();
    bus.flush().await.unwrap();
    let headers = [("authorization", &*bearer(&key))];
    for (model, worker, tier, cost) in [("m", "own", 0, 5_000), ("far", "hosted", 1, 15_000)] {
        cluster.client().chat_with(&headers, &ask_for(model, 5)).await.ok();
        let record = loop {
            let message = within("a usage record", records.next()).await.unwrap();
            let record: UsageRecord = decode(&message.payload).unwrap();
            if record.key.as_deref() == Some("alice") {
                break record;
            }
        };
        assert_eq!(record.worker.unwrap().as_str(), worker);
        assert_eq!((record.completion_tokens, record.tier, record.cost), (5, tier, cost));
    }
    becomes(&cluster.gateways[0], &key, 429).await;
    let answer = cluster.client().chat_with(&headers, &ask_for("m", 1)).await;
    assert_eq!(answer.error(429)["code"], "insufficient_quota");
}

#[tokio::test]
async fn tiers_count_without_a_coordinator() {
    let plan = Cluster::plan().coordinators(0).gateway_args(&["--tier-wait", "1s"]);
    let reserve = || Role::sim("m", 64).args(&["--id", "hosted", "--tier", "1"]);
    let cluster = plan.worker(reserve()).worker(own()).start().await;
    cluster.lists("m").await;
    let client = cluster.client();
    // The gateway has asked both what they are once NATS does not choose any more.
    eventually("twenty in a row at the first tier", async || {
        for _ in 0..20 {
            let heard = chat(&cluster.client(), "m").await;
            if heard != (200, "own".to_owned()) {
                return Err(heard);
            }
        }
        Ok(())
    })
    .await;
    let held = take_two(&client).await;
    assert_eq!(chat(&client, "m").await, (200, "hosted".to_owned()), "after a second");
    drop(held);
    comes_to(&cluster, "m", (200, "own")).await;
}
