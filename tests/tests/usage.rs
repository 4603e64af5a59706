//! Usage records on the bus, and in a stream that keeps them.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::collections::BTreeMap;

use futures_util::StreamExt as _;
use serde_json::json;
use tokenbus_protocol::{UsageOutcome, UsageRecord, decode};
use tokenbus_tests::ask::{ask, ask_for, sim_text, with};
use tokenbus_tests::binary::run;
use tokenbus_tests::limits::PATIENCE;
use tokenbus_tests::metrics::{parse, sum};
use tokenbus_tests::{Cluster, NatsOptions, Role, eventually, within};

async fn next(records: &mut async_nats::Subscriber) -> UsageRecord {
    let message = within("a usage record", records.next()).await.unwrap();
    decode(&message.payload).unwrap()
}

#[tokio::test]
async fn what_each_request_used_is_told_on_the_bus_whatever_became_of_it() {
    let cluster = Cluster::plan().worker(Role::sim("m", 4)).start().await;
    let bus = cluster.nats.client().await;
    let mut records = bus.subscribe("tb.v1.usage").await.unwrap();
    bus.flush().await.unwrap();
    let client = cluster.client();
    let tenant = [("x-tokenbus-tenant", "team a"), ("x-request-id", "mine")];
    let answer = client.chat_with(&tenant, &ask_for("m", 5)).await;
    assert_eq!(answer.content(), sim_text(5));
    let usage = answer.ok()["usage"].clone();
    let record = next(&mut records).await;
    assert_eq!(answer.ok()["id"], format!("chatcmpl-{}", record.id.simple()));
    assert_eq!(
        (record.tenant.as_deref(), record.request.as_str()),
        (Some("team a"), "mine")
    );
    assert_eq!(record.gateway.as_str(), cluster.gateways[0].id());
    assert_eq!(
        record.worker.map(|worker| worker.to_string()),
        Some(cluster.workers[0].id())
    );
    assert_eq!(usage["prompt_tokens"], record.prompt_tokens);
    assert_eq!((record.completion_tokens, record.outcome), (5, UsageOutcome::Succeeded));

    // A client that leaves pays for what it had.
    let endless = with(ask_for("m", 9), "sim", json!({"hang_after": 2}));
    let mut left = client.stream(&endless).await;
    assert_eq!(left.text().await, "t0 ");
    assert_eq!(left.text().await, "t1 ");
    drop(left);
    let record = next(&mut records).await;
    assert_eq!((record.completion_tokens, record.outcome), (2, UsageOutcome::Cancelled));
    assert!(record.estimated && record.prompt_tokens > 0 && record.worker.is_some());

    client.chat(&ask("nosuchmodel")).await.error(404);
    let record = next(&mut records).await;
    assert_eq!((record.status, record.outcome), (404, UsageOutcome::Rejected));
    assert_eq!((record.prompt_tokens, record.worker), (0, None));
    // Malformed bytes on the subject are nobody's concern.
    bus.publish("tb.v1.usage", "x".into()).await.unwrap();
    assert_eq!(client.chat(&ask_for("m", 1)).await.content(), sim_text(1));
}

#[tokio::test]
async fn a_stream_that_moved_is_charged_for_what_was_delivered() {
    let pace = || Role::sim("m", 4).pace("20ms", "50ms");
    let mut cluster = Cluster::plan().worker(pace()).start().await;
    let bus = cluster.nats.client().await;
    let mut records = bus.subscribe("tb.v1.usage").await.unwrap();
    bus.flush().await.unwrap();
    let client = cluster.client();
    for (tokens, leaves) in [(60, false), (2_000, true)] {
        let mut stream = client.stream(&ask_for("m", tokens)).await;
        let mut read = 0_u64;
        while read < 40 {
            stream.text().await;
            read += 1;
        }
        cluster.add_worker(pace()).await;
        let mut dead = cluster.workers.remove(0);
        dead.kill().await;
        while read < if leaves { 50 } else { tokens } {
            stream.text().await;
            read += 1;
        }
        if leaves {
            drop(stream);
        } else {
            stream.transcript().await;
        }
        let record = next(&mut records).await;
        let charged = record.completion_tokens;
        if leaves {
            // What was on its way is charged too. To charge what was delivered before the move twice would be 40 more.
            assert!((read..read + 30).contains(&charged), "{read} were read: {record:?}");
            assert_eq!(record.outcome, UsageOutcome::Cancelled);
        } else {
            assert_eq!(
                (charged, record.outcome),
                (tokens, UsageOutcome::Succeeded),
                "{record:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_stream_keeps_every_record_also_those_of_the_last_moment_and_over_an_outage() {
    let nats = NatsOptions {
        jetstream: true,
        ..NatsOptions::default()
    };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.toml");
    let file = file.to_str().unwrap();
    let key = run(PATIENCE, &["keys", "create", "alice", "--keys", file, "--read-metrics"]).await;
    let key = key.stdout.trim().to_owned();
    let plan = Cluster::plan().nats(nats).gateways(2);
    let args = ["--usage-stream", "billing", "--usage-stream-age", "7d", "--keys", file];
    let mut cluster = plan.gateway_args(&args).start().await;
    cluster.add_worker(Role::sim("m", 8)).await;
    let headers = [("x-api-key", &*key)];
    let mut expected = 0;
    for turn in 0..20 {
        if turn == 10 {
            cluster.nats.restart().await;
        }
        let client = cluster.gateways[turn % 2].client();
        eventually("an answer", async || {
            let answer = client.chat_with(&headers, &ask_for("m", 3)).await;
            if answer.status == 200 { Ok(()) } else { Err(answer) }
        })
        .await;
        expected += 1;
    }
    let client = cluster.client();
    let page = client.request(http::Method::GET, "/metrics", &headers, "".into());
    let samples = parse(&page.await.text());
    let used = |name: &str| sum(&samples, &format!("tokenbus_gateway_{name}_total"), &[("key", "alice")]);
    assert!(
        (used("key_completion_tokens") - 3.0 * used("key_requests")).abs() < 31.0,
        "{samples:?}"
    );
    // The last requests end with their gateways.
    for gateway in &mut cluster.gateways {
        assert!(gateway.stop().await.success());
    }
    let bus = cluster.nats.client().await;
    let context = async_nats::jetstream::new(bus);
    let mut stream = within("the stream", context.get_stream("billing")).await.unwrap();
    let info = within("its state", stream.info()).await.unwrap().clone();
    assert_eq!(info.config.max_age, std::time::Duration::from_secs(7 * 24 * 3600));
    assert_eq!(info.config.max_bytes, 1 << 30);
    let mut succeeded = BTreeMap::new();
    for sequence in info.state.first_sequence..=info.state.last_sequence {
        let message = within("a record", stream.get_raw_message(sequence)).await.unwrap();
        let record: UsageRecord = decode(&message.payload).unwrap();
        assert_eq!(
            (record.key.as_deref(), record.tenant.as_deref()),
            (Some("alice"), Some("alice"))
        );
        if record.outcome == UsageOutcome::Succeeded {
            assert_eq!(record.completion_tokens, 3);
            assert!(succeeded.insert(record.id, sequence).is_none(), "kept twice");
        }
    }
    assert_eq!(succeeded.len(), expected);
}

/// The largest store of JetStream in the NATS settings in the file at `path`, in bytes.
fn shipped_store(path: &str) -> u64 {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../").to_owned() + path;
    let text = std::fs::read_to_string(path).unwrap();
    let (_, rest) = text.split_once("max_file_store: ").unwrap();
    let (size, unit) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit()).unwrap());
    let unit = match unit.get(..2) {
        Some("MB") => 1 << 20,
        Some("GB") => 1 << 30,
        other => panic!("{other:?}"),
    };
    size.parse::<u64>().unwrap() * unit
}

#[tokio::test]
async fn everything_is_kept_with_the_nats_settings_that_we_ship() {
    let shipped = ["deploy/nats.conf", "cli/src/up/nats.rs"].map(shipped_store);
    for max_file_store in std::collections::BTreeSet::from(shipped) {
        let nats = NatsOptions {
            jetstream: true,
            max_file_store,
            ..NatsOptions::default()
        };
        let plan = Cluster::plan().nats(nats).worker(Role::sim("m", 8));
        let cluster = plan.gateway_args(&["--usage-stream", "billing"]).start().await;
        let client = cluster.client();
        let wait_for = async |name: &str, least: f64| {
            eventually(name, async || {
                let page = client.get("/metrics").await.text();
                let value = sum(&parse(&page), &format!("tokenbus_gateway_{name}"), &[]);
                if value >= least { Ok(()) } else { Err(value) }
            })
            .await;
        };
        client.chat(&ask_for("m", 3)).await.ok();
        wait_for("usage_records_total", 1.0).await;
        let body = json!({"model": "m", "input": "hello", "store": true});
        let answer = client.post("/v1/responses", &[], &body).await.collect().await.ok();
        assert_eq!(answer["store"], true, "{answer}");
        wait_for("usage_records_total", 2.0).await;
        let place = ["--keys", "kv", "--nats", &cluster.nats.url()];
        let made = run(PATIENCE, &[&["keys", "create", "alice"], &place[..]].concat()).await;
        assert_eq!(made.code, Some(0), "{made:?}");
    }
}
