//! Bytes that are no message of ours change nothing but counters.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use bytes::Bytes;
use serde_json::json;
use tokenbus_protocol::{Body, Frame};
use tokenbus_tests::ask::ask;
use tokenbus_tests::fake_worker::round_trip;
use tokenbus_tests::{Client, Cluster, Gate, Role, Script, Upstream, eventually, metrics};

/// Bytes that are no message of ours, or one in the wrong place.
fn garbage() -> Vec<Bytes> {
    let frame = Frame {
        stream: u64::MAX,
        attempt: 9,
        seq: 9,
        body: Body::Unknown,
    };
    assert!(
        tokenbus_protocol::encode(&frame).is_err(),
        "an unknown frame cannot be sent"
    );
    let mut all: Vec<Vec<u8>> = vec![
        vec![],
        vec![0],
        vec![1],
        vec![2, 0x80],
        b"hello".to_vec(),
        vec![0xff; 2000],
    ];
    // An array that announces four billion frames, nesting without an end, a map cut short.
    all.push(vec![1, 0xdd, 0xff, 0xff, 0xff, 0xff]);
    all.push(std::iter::once(1).chain(std::iter::repeat_n(0x91, 100_000)).collect());
    all.push(vec![1, 0x8f, 0xa1]);
    all.push(tokenbus_protocol::encode(&json!({"worker": "w", "seq": 1})).unwrap());
    all.push(tokenbus_protocol::encode(&json!([{"s": 1, "a": 0, "q": 0, "b": {"d": {"t": "injected"}}}])).unwrap());
    all.into_iter().map(Bytes::from).collect()
}

/// Every subject that a role listens on, and some that none does.
fn subjects(gateway: &str, worker: &str) -> Vec<String> {
    let all = "req.m req.nosuchmodel req.m.{w} emb.m emb.m.{w} rank.m rank.m.{w} tok.m tok.m.{w} out.{g}.{w} out.{g}.w9 out.{g}.-1-0 out.{g}.-x free.m free.=ZZ \
        ctl.{w} status.{w} status.w9 capacity capacity.get event coordinator.c9 limits usage";
    let all = all.replace("{g}", gateway).replace("{w}", worker);
    all.split_whitespace()
        .map(|subject| format!("tb.v1.{subject}"))
        .collect()
}

async fn counted(client: Client) -> Result<(), String> {
    let page = client.get("/metrics").await.text();
    let samples = metrics::parse(&page);
    let malformed = samples.iter().filter(|one| one.name.contains("malformed"));
    let count: f64 = malformed.map(|one| one.value).sum();
    if count > 0.0 { Ok(()) } else { Err(page) }
}

#[tokio::test]
async fn malformed_bytes_on_every_subject_change_nothing_but_counters() {
    let upstream = Upstream::start(&["m"]).await;
    let mut cluster = Cluster::plan().worker(Role::proxy(&upstream, 4)).start().await;
    let gate = Gate::new();
    upstream.next(
        Script::stream()
            .role()
            .text("be")
            .gate(&gate)
            .text("fore")
            .finish("stop")
            .done(),
    );
    let mut stream = cluster.client().stream(&ask("m")).await;
    assert_eq!(stream.text().await, "be");

    let bus = cluster.nats.client().await;
    for subject in subjects(&cluster.gateways[0].id(), &cluster.workers[0].id()) {
        for bytes in garbage() {
            bus.publish(subject.clone(), bytes.clone()).await.unwrap();
            bus.publish_with_reply(subject.clone(), bus.new_inbox(), bytes)
                .await
                .unwrap();
        }
    }
    round_trip(&bus).await;

    gate.open();
    let rest = stream.transcript().await;
    assert_eq!(
        (rest.text().as_str(), rest.finish_reasons(0)),
        ("fore", vec!["stop".to_owned()])
    );
    assert_eq!(cluster.client().chat(&ask("m")).await.content(), "Hello world");
    cluster.settled().await;
    for process in cluster.gateways.iter().chain(&cluster.coordinators) {
        eventually("malformed messages to be counted", || counted(process.client())).await;
    }
    for process in cluster
        .gateways
        .iter_mut()
        .chain(&mut cluster.workers)
        .chain(&mut cluster.coordinators)
    {
        assert!(process.is_running(), "{} died of it", process.name());
        let lines = process.logs().lines();
        let panic = lines
            .iter()
            .find(|line| line.contains("panicked") || line.contains("internal error at"));
        assert_eq!(panic, None, "{}", process.name());
    }
    let listed = cluster.client().get("/v1/models").await.ok()["data"]
        .as_array()
        .unwrap()
        .clone();
    assert_eq!(listed.len(), 1, "{listed:?}");
}
