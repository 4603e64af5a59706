//! The worker while NATS is away: it waits, comes back, and can still be stopped.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::time::Duration;

use common::{Gateway, Nats, Running, sim, sim_text, status_until, subjects, within};
use tokenbus_protocol::WorkerState;
use tokio::time::Instant;

const LONG: &str = r#"{"max_tokens":1000000}"#;

/// A server that has been, so that its port is free now.
async fn gone() -> String {
    Nats::start().await.kill().await
}

#[tokio::test]
async fn a_worker_that_comes_before_nats_is_ready_when_nats_is_there() {
    let url = gone().await;
    let here = Nats::start().await;
    let mut elsewhere = Running::begin(&here, "w1", sim(1, 0, 0), |options| {
        options.bus.urls = vec![url.clone()]
    })
    .await;
    let late = Nats::again(&url).await;
    assert!(within("ready worker", elsewhere.handle.ready()).await);
    let mut gateway = Gateway::start(&late, "g").await;
    gateway.send(&gateway.request(1, 0, r#"{"max_tokens":3}"#)).await;
    assert_eq!(gateway.ended(1, 0).await, "finish 3");
}

#[tokio::test]
async fn after_a_restart_of_nats_the_worker_serves_and_says_so_at_once() {
    let nats = Nats::start().await;
    let _worker = Running::start(&nats, "w1", sim(4, 0, 5)).await;
    let url = nats.kill().await;
    let nats = Nats::again(&url).await;
    let mut gateway = Gateway::start(&nats, "g").await;
    let mut statuses = gateway.client.subscribe(subjects().status_all()).await.unwrap();
    let status = status_until(&mut statuses, "status after the restart", |_| true).await;
    assert_eq!((status.state, status.active), (WorkerState::Ready, 0));
    gateway.send(&gateway.request(1, 0, r#"{"max_tokens":30}"#)).await;
    assert_eq!(gateway.ended(1, 0).await, "finish 30");
    assert_eq!(gateway.seen(1, 0).text, sim_text(0..30));
}

#[tokio::test]
async fn a_worker_can_be_stopped_while_nats_is_away() {
    let nats = Nats::start().await;
    let worker = Running::with(&nats, "w1", sim(4, 0, 5), |options| {
        options.grace = Duration::from_millis(100);
    })
    .await;
    let mut gateway = Gateway::start(&nats, "g").await;
    gateway.send(&gateway.request(1, 0, LONG)).await;
    gateway.accepted(1, 0).await;
    let _url = nats.kill().await;
    let before = Instant::now();
    worker.stopped().await;
    assert!(before.elapsed() < Duration::from_secs(12), "{:?}", before.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_nats_is_away_the_outbox_keeps_its_bound_and_streams_fail_rather_than_lose() {
    let nats = Nats::start().await;
    let worker = Running::with(&nats, "w1", sim(64, 0, 1), |options| options.outbox = 64 * 1024).await;
    let mut gateway = Gateway::start(&nats, "g").await;
    let mut registry = prometheus_client::registry::Registry::default();
    worker.handle.register(&mut registry);
    for stream in 1..=64 {
        gateway.send(&gateway.request(stream, 0, LONG)).await;
    }
    for stream in 1..=64 {
        gateway.accepted(stream, 0).await;
    }
    let url = nats.kill().await;
    // The engine goes on; every stream must meet the bound, and its slot come back.
    within("the end of all streams", async {
        while metric(&registry, "worker_outbox_overflows_total") < 64 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let nats = Nats::again(&url).await;
    let mut gateway = Gateway::start(&nats, "g2").await;
    let mut statuses = gateway.client.subscribe(subjects().status_all()).await.unwrap();
    let status = status_until(&mut statuses, "status after the restart", |_| true).await;
    assert_eq!((status.active, status.totals.failed), (0, 64));
    gateway.send(&gateway.request(100, 0, r#"{"max_tokens":30}"#)).await;
    assert_eq!(gateway.ended(100, 0).await, "finish 30");
    assert_eq!(gateway.rooms["w1"].free, 64);
}

fn metric(registry: &prometheus_client::registry::Registry, name: &str) -> u64 {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, registry).unwrap();
    let line = text.lines().find(|line| line.starts_with(&format!("{name} ")));
    line.and_then(|line| line.rsplit(' ').next())
        .and_then(|value| value.parse().ok())
        .unwrap_or_else(|| panic!("no {name} in {text}"))
}
