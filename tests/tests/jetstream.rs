//! Streams and buckets that are deleted, wiped, too large for the servers, or on a server that dies.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_nats::jetstream::{Context, stream};
use futures_util::future::join_all;
use serde_json::json;
use tokenbus_protocol::{UsageRecord, decode};
use tokenbus_tests::ask::ask_for;
use tokenbus_tests::binary::CommandOutput;
use tokenbus_tests::keys::{self, becomes, status};
use tokenbus_tests::limits::{PATIENCE, READY};
use tokenbus_tests::metrics::{parse, sum};
use tokenbus_tests::{Cluster, NatsOptions, NatsServer, Process, Role, eventually, within};

fn jetstream() -> NatsOptions {
    NatsOptions {
        jetstream: true,
        ..NatsOptions::default()
    }
}

async fn context(nats: &NatsServer) -> Context {
    async_nats::jetstream::new(nats.client().await)
}

/// Makes a key that may read metrics.
async fn create(url: &str, name: &str) -> String {
    keys::create(&["--keys", "kv", "--nats", url], name, &["--read-metrics"]).await
}

/// Revokes a key.
async fn revoke(url: &str, name: &str) -> CommandOutput {
    keys::keys(&["revoke", name, "--keys", "kv", "--nats", url]).await
}

/// Waits until a metric of the gateway has this value.
async fn counts(gateway: &Process, key: &str, name: &str, expected: f64) {
    let name = format!("tokenbus_gateway_{name}");
    eventually(&format!("{name} to be {expected}"), async || {
        let headers = [("x-api-key", key)];
        let client = gateway.client();
        let page = client.request(http::Method::GET, "/metrics", &headers, "".into());
        let page = page.await.text();
        let value = sum(&parse(&page), &name, &[]);
        if (value - expected).abs() < f64::EPSILON {
            Ok(())
        } else {
            Err(value)
        }
    })
    .await;
}

/// What `/readyz` says is wrong although it is ready.
async fn degraded(gateway: &Process) -> Option<String> {
    let ready = gateway.client().get("/readyz").await.ok();
    assert_eq!(ready["status"], "ready");
    ready["degraded"].as_str().map(str::to_owned)
}

/// The records in the stream `billing`, by the requests' own ids; each once.
async fn records(context: &Context) -> BTreeSet<String> {
    let mut stream = within("the stream", context.get_stream("billing")).await.unwrap();
    let state = within("its state", stream.info()).await.unwrap().state.clone();
    let mut requests = BTreeSet::new();
    for sequence in state.first_sequence..=state.last_sequence {
        let message = within("a record", stream.get_raw_message(sequence)).await.unwrap();
        let record: UsageRecord = decode(&message.payload).unwrap();
        assert!(
            requests.insert(record.request.clone()),
            "{} was kept twice",
            record.request
        );
    }
    requests
}

#[tokio::test]
async fn a_usage_stream_that_is_deleted_is_made_again_and_no_record_is_lost() {
    let plan = Cluster::plan().nats(jetstream()).worker(Role::sim("m", 8));
    let mut cluster = plan.gateway_args(&["--usage-stream", "billing"]).start().await;
    let context = context(&cluster.nats).await;
    let ask = async |request: &str| {
        let headers = [("x-request-id", request)];
        cluster.client().chat_with(&headers, &ask_for("m", 1)).await.ok();
    };
    ask("before").await;
    counts(&cluster.gateways[0], "", "usage_records_total", 1.0).await;
    assert!(records(&context).await.contains("before"));
    let mut expected = BTreeSet::new();
    for round in 0..2 {
        within("the stream to go", context.delete_stream("billing"))
            .await
            .unwrap();
        // Nobody has to restart anything, whether requests come at once or later.
        expected.clear();
        for number in 0..10 {
            let request = format!("round-{round}-{number}");
            ask(&request).await;
            expected.insert(request);
        }
        let all = f64::from((round + 1) * 10 + 1);
        counts(&cluster.gateways[0], "", "usage_records_total", all).await;
        counts(&cluster.gateways[0], "", "usage_records_waiting", 0.0).await;
        counts(&cluster.gateways[0], "", "usage_records_dropped_total", 0.0).await;
        assert_eq!(records(&context).await, expected);
    }
    counts(&cluster.gateways[0], "", "nats_streams_remade_total", 2.0).await;
    let logs = cluster.gateways[0].logs();
    let remade =
        |line: &str| (line.contains("WARN") && line.contains("billing") && line.contains("vanished")).then_some(());
    logs.wait_for(PATIENCE, "a warning", remade).await;
    // Also where no request comes that could find out.
    within("the stream to go", context.delete_stream("billing"))
        .await
        .unwrap();
    eventually("the stream", async || context.get_stream("billing").await).await;
    assert!(cluster.gateways[0].stop().await.success());
}

#[tokio::test]
async fn a_usage_stream_is_made_smaller_where_the_servers_have_less_room() {
    let nats = NatsOptions {
        max_file_store: 64 << 20,
        ..jetstream()
    };
    let plan = Cluster::plan().nats(nats).worker(Role::sim("m", 8));
    let cluster = plan.gateway_args(&["--usage-stream", "billing"]).start().await;
    let headers = [("x-request-id", "mine")];
    cluster.client().chat_with(&headers, &ask_for("m", 1)).await.ok();
    counts(&cluster.gateways[0], "", "usage_records_total", 1.0).await;
    let context = context(&cluster.nats).await;
    assert!(records(&context).await.contains("mine"));
    let stream = within("the stream", context.get_stream("billing")).await.unwrap();
    let bytes = stream.cached_info().config.max_bytes;
    assert!((16 << 20..=64 << 20).contains(&bytes), "{bytes}");
}

/// A cluster with keys in a bucket, and the key alice in it.
async fn with_alice() -> (Cluster, String) {
    let plan = Cluster::plan().nats(jetstream()).gateways(2);
    let mut cluster = plan.gateway_args(&["--keys", "kv"]).start().await;
    cluster.add_worker(Role::sim("m", 8)).await;
    let alice = create(&cluster.nats.url(), "alice").await;
    for gateway in &cluster.gateways {
        becomes(gateway, &alice, 200).await;
        eventually("no concern", async || degraded(gateway).await.map_or(Ok(()), Err)).await;
    }
    (cluster, alice)
}

/// The bucket is gone or empty: nobody is locked out, everybody is told, and new keys end it.
async fn alarms(cluster: &Cluster, alice: &str) {
    let url = cluster.nats.url();
    for gateway in &cluster.gateways {
        let told = eventually("an alarm", async || {
            degraded(gateway)
                .await
                .filter(|told| told.contains("vanished"))
                .ok_or(())
        })
        .await;
        assert!(told.contains("1 API keys") && told.contains("tb_keys"), "{told}");
        assert_eq!(status(gateway.client(), alice).await, 200);
        assert_eq!(status(gateway.client(), "tb-nobody").await, 401);
        counts(gateway, alice, "keys_held", 1.0).await;
        counts(gateway, alice, "key_bucket_losses_total", 1.0).await;
        let error = |line: &str| (line.contains("ERROR") && line.contains("vanished from their bucket")).then_some(());
        gateway.logs().wait_for(PATIENCE, "an error in the log", error).await;
    }
    let bob = create(&url, "bob").await;
    for gateway in &cluster.gateways {
        becomes(gateway, &bob, 200).await;
        assert_eq!(
            status(gateway.client(), alice).await,
            200,
            "a key that comes back takes nobody else's"
        );
    }
    let new = create(&url, "alice").await;
    for gateway in &cluster.gateways {
        becomes(gateway, &new, 200).await;
        assert_eq!(status(gateway.client(), alice).await, 401);
        eventually("the end of the alarm", async || {
            degraded(gateway).await.map_or(Ok(()), Err)
        })
        .await;
        counts(gateway, &new, "keys_held", 0.0).await;
    }
}

#[tokio::test]
async fn keys_hold_when_their_bucket_is_deleted() {
    let (cluster, alice) = with_alice().await;
    let context = context(&cluster.nats).await;
    within("the bucket to go", context.delete_key_value("tb_keys"))
        .await
        .unwrap();
    alarms(&cluster, &alice).await;
}

#[tokio::test]
async fn keys_hold_when_their_bucket_is_emptied() {
    let (cluster, alice) = with_alice().await;
    let context = context(&cluster.nats).await;
    let stream = within("the bucket", context.get_stream("KV_tb_keys")).await.unwrap();
    within("the bucket to be empty", async { stream.purge().await })
        .await
        .unwrap();
    alarms(&cluster, &alice).await;
}

#[tokio::test]
async fn keys_hold_when_the_server_that_kept_them_comes_back_empty() {
    let (mut cluster, alice) = with_alice().await;
    cluster.nats.kill().await;
    cluster.nats.wipe();
    cluster.nats.start_again().await;
    for gateway in &cluster.gateways {
        becomes(gateway, &alice, 200).await;
    }
    alarms(&cluster, &alice).await;
}

#[tokio::test]
async fn keys_that_are_revoked_one_by_one_are_no_alarm() {
    let (mut cluster, alice) = with_alice().await;
    let url = cluster.nats.url();
    let bob = create(&url, "bob").await;
    for (name, key) in [("alice", &alice), ("bob", &bob)] {
        for gateway in &cluster.gateways {
            becomes(gateway, key, 200).await;
        }
        let said = revoke(&url, name).await;
        assert_eq!(said.code, Some(0), "{said:?}");
        for gateway in &cluster.gateways {
            becomes(gateway, key, 401).await;
        }
    }
    // Also when the bucket is read anew.
    let marks: Vec<usize> = cluster.gateways.iter().map(|gateway| gateway.logs().mark()).collect();
    cluster.nats.restart().await;
    for (gateway, mark) in cluster.gateways.iter().zip(marks) {
        let read = |line: &str| line.contains("there is no key").then_some(());
        gateway.logs().wait_from(mark, READY, "the keys to be read", read).await;
        eventually("no concern", async || degraded(gateway).await.map_or(Ok(()), Err)).await;
        assert_eq!(status(gateway.client(), &alice).await, 401);
        let lines = gateway.logs().lines();
        assert!(!lines.iter().any(|line| line.contains("vanished")), "{lines:?}");
    }
}

#[tokio::test]
async fn responses_and_the_lease_outlive_their_buckets() {
    let plan = Cluster::plan().nats(jetstream()).worker(Role::sim("m", 8));
    let cluster = plan.start().await;
    let context = context(&cluster.nats).await;
    let ask = async || {
        let body = json!({"model": "m", "input": "hello", "store": true, "max_output_tokens": 2});
        let answer = cluster
            .client()
            .post("/v1/responses", &[], &body)
            .await
            .collect()
            .await
            .ok();
        assert_eq!(answer["store"], true, "{answer}");
        format!("/v1/responses/{}", answer["id"].as_str().unwrap())
    };
    let first = ask().await;
    cluster.client().get(&first).await.ok();
    eventually("a lease", async || context.get_key_value("tb_coordinator").await).await;
    for bucket in ["tb_responses", "tb_coordinator"] {
        within("the bucket to go", context.delete_key_value(bucket))
            .await
            .unwrap();
    }
    // What was in it is mostly gone (nats-server may find files of a stream that is made again within
    // moments of its end), which is no fault of the request's; and what comes next is kept.
    let answer = cluster.client().get(&first).await;
    assert!([200, 404].contains(&answer.status.as_u16()), "{answer:?}");
    let next = ask().await;
    cluster.client().get(&next).await.ok();
    within("the bucket to go", context.delete_key_value("tb_responses"))
        .await
        .unwrap();
    // For a moment after that, the server may still take what is written to it.
    eventually("a kept response", async || {
        let last = ask().await;
        let answer = cluster.client().get(&last).await;
        if answer.status == 200 { Ok(()) } else { Err(answer) }
    })
    .await;
    eventually("a lease again", async || context.get_key_value("tb_coordinator").await).await;
}

/// The server that leads a stream with three replicas, all of which know all.
async fn leader(context: &Context, name: &str) -> Result<String, String> {
    let stream = context.get_stream(name).await.map_err(|error| error.to_string())?;
    let info = stream.cached_info();
    let cluster = info.cluster.clone().unwrap_or_default();
    let current = cluster.replicas.iter().filter(|replica| replica.current).count();
    match cluster.leader {
        Some(leader) if info.config.num_replicas == 3 && current == 2 => Ok(leader),
        _ => Err(format!("{info:?}")),
    }
}

const STREAMS: [&str; 4] = ["KV_tb_keys", "KV_tb_coordinator", "KV_tb_responses", "billing"];

/// A gateway with all that it can keep.
fn keeping_gateway() -> Role {
    Role::gateway().args(&["--keys", "kv", "--usage-stream", "billing"])
}

/// Has a response kept, and returns its path.
async fn keep(gateway: &Process, key: &str) -> String {
    let body = json!({"model": "m", "input": "hello", "store": true});
    let headers = [("x-api-key", key)];
    eventually("a kept response", async || {
        let client = gateway.client();
        let answer = client.post("/v1/responses", &headers, &body).await.collect().await.ok();
        let path = format!("/v1/responses/{}", answer["id"].as_str().unwrap_or_default());
        if answer["store"] == true { Ok(path) } else { Err(answer) }
    })
    .await
}

/// Asks once for each number, four at a time. Whatever the answer is, it has a record.
async fn ask(gateway: &Process, key: &str, numbers: std::ops::Range<usize>) {
    let asked = AtomicUsize::new(numbers.start);
    let one = async || {
        loop {
            let number = asked.fetch_add(1, Ordering::Relaxed);
            if number >= numbers.end {
                break;
            }
            let id = format!("load-{number}");
            let headers = [("x-api-key", key), ("x-request-id", &*id)];
            gateway.client().chat_with(&headers, &ask_for("m", 1)).await;
        }
    };
    join_all((0..4).map(|_| one())).await;
}

/// Waits until `path` is answered with 200.
async fn answers(gateway: &Process, key: &str, path: &str) {
    let headers = [("x-api-key", key)];
    eventually(path, async || {
        let client = gateway.client();
        let answer = client.request(http::Method::GET, path, &headers, "".into()).await;
        if answer.status == 200 { Ok(()) } else { Err(answer) }
    })
    .await;
}

/// Takes the server of this name out.
async fn take(servers: &mut Vec<NatsServer>, name: &str) -> NatsServer {
    for number in 0..servers.len() {
        if servers[number].name().await == name {
            return servers.remove(number);
        }
    }
    panic!("no server is {name}");
}

/// Longer than servers wait before they elect another leader.
const STANDSTILL: Duration = Duration::from_secs(12);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_of_three_servers_loses_one_and_nothing_that_was_kept() {
    let mut servers = NatsServer::cluster().await;
    let url = servers.iter().map(NatsServer::url).collect::<Vec<_>>().join(",");
    let first = context(&servers[0]).await;
    // Made by an older version, on one server.
    let old = stream::Config {
        name: "billing".to_owned(),
        subjects: vec!["tb.v1.usage".to_owned()],
        num_replicas: 1,
        ..stream::Config::default()
    };
    eventually("an old stream", async || first.create_stream(old.clone()).await).await;
    let (alice, bob) = (create(&url, "alice").await, create(&url, "bob").await);
    let mut one = keeping_gateway().start(&url).await;
    let _coordinator = Role::coordinator().start(&url).await;
    let _worker = Role::sim("m", 64).start(&url).await;
    becomes(&one, &alice, 200).await;
    let response = keep(&one, &alice).await;
    for name in STREAMS {
        let replicas = format!("three replicas of {name}");
        eventually(&replicas, async || leader(&first, name).await).await;
    }

    // Requests go on while the server that leads the usage stream stands still.
    ask(&one, &alice, 0..100).await;
    let leads = leader(&first, "billing").await.unwrap();
    let frozen = take(&mut servers, &leads).await;
    let still = async {
        frozen.process().freeze();
        tokio::time::sleep(STANDSTILL).await;
        frozen.process().thaw();
    };
    tokio::join!(ask(&one, &alice, 100..300), still);
    servers.push(frozen);

    // And while the one that leads it now dies.
    let leads = eventually("a leader", async || leader(&first, "billing").await).await;
    let mut dead = take(&mut servers, &leads).await;
    tokio::join!(ask(&one, &alice, 300..600), dead.kill());
    ask(&one, &alice, 600..700).await;

    // What is kept can be read and changed, by those that were there and by those that come.
    let said = revoke(&url, "bob").await;
    assert_eq!(said.code, Some(0), "{said:?}");
    let two = keeping_gateway().named("gateway 2").start(&url).await;
    answers(&two, &alice, "/readyz").await;
    becomes(&two, &alice, 200).await;
    for gateway in [&one, &two] {
        becomes(gateway, &bob, 401).await;
    }
    answers(&two, &alice, &response).await;
    for none in [
        "usage_records_waiting",
        "usage_records_dropped_total",
        "key_bucket_losses_total",
        "nats_streams_remade_total",
    ] {
        counts(&one, &alice, none, 0.0).await;
    }
    assert!(one.stop().await.success());
    let records = records(&context(&servers[0]).await).await;
    let ids = (0..700).map(|number| format!("load-{number}"));
    let missing: Vec<_> = ids.filter(|id| !records.contains(id)).collect();
    let lost = missing.len();
    assert!(missing.is_empty(), "{lost} of 700 records are lost: {missing:?}");
}
