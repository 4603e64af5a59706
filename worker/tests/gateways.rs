//! Gateways that die, come back, or do not read, on a real nats-server.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::time::Duration;

use async_nats::Subscriber;
use common::{Gateway, NOISE, Nats, Running, metric, name, sim, sim_text, status_until, subjects, within};
use futures_util::StreamExt as _;
use prometheus_client::registry::Registry;
use tokenbus_protocol::Status;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::Instant;

const LONG: &str = r#"{"max_tokens":1000000}"#;

async fn statuses(nats: &Nats) -> Subscriber {
    let client = nats.client().await;
    let statuses = client.subscribe(subjects().status_all()).await.unwrap();
    client.flush().await.unwrap();
    statuses
}

fn registry(worker: &Running) -> Registry {
    let mut registry = Registry::default();
    worker.handle.register(&mut registry);
    registry
}

/// A gateway with four streams dies beside one with a stream, in prefill or while tokens flow.
async fn dies(ttft_ms: u64) {
    let nats = Nats::start().await;
    let worker = Running::start(&nats, "w1", sim(5, ttft_ms, 5)).await;
    let mut statuses = statuses(&nats).await;
    let mut other = Gateway::start(&nats, "other").await;
    let mut mortal = Gateway::start(&nats, "mortal").await;
    other.send(&other.request(100, 0, LONG)).await;
    other.accepted(100, 0).await;
    for stream in 1..=4 {
        mortal.send(&mortal.request(stream, 0, LONG)).await;
        mortal.accepted(stream, 0).await;
    }
    status_until(&mut statuses, "five streams", |status| status.report.active == 5).await;
    let died = Instant::now();
    drop(mortal);
    let after = status_until(&mut statuses, "four streams stopped", |status| status.report.active < 5).await;
    assert!(died.elapsed() < Duration::from_secs(5) + NOISE, "{:?}", died.elapsed());
    assert_eq!((after.report.active, after.totals.cancelled), (1, 4));
    assert_eq!(metric(&registry(&worker), "worker_gateways_lost_total"), 1);
    let before = other.seen(100, 0).next_seq;
    other
        .until(100, 0, "the other gateway's stream", |seen| seen.next_seq > before + 1)
        .await;
}

#[tokio::test]
async fn a_gateway_that_dies_frees_its_streams_mid_answer() {
    dies(0).await;
}

#[tokio::test]
async fn a_gateway_that_dies_frees_its_streams_in_prefill() {
    dies(600_000).await;
}

#[tokio::test]
async fn a_gateway_that_is_back_in_two_seconds_keeps_its_streams() {
    let nats = Nats::start().await;
    let worker = Running::start(&nats, "w1", sim(3, 0, 5)).await;
    let mut statuses = statuses(&nats).await;
    let mut gateway = Gateway::start(&nats, "g").await;
    for stream in 1..=3 {
        gateway.send(&gateway.request(stream, 0, LONG)).await;
        gateway.accepted(stream, 0).await;
    }
    drop(gateway);
    // The promise is about time: nothing happens that could be awaited.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let mut gateway = Gateway::start(&nats, "g").await;
    gateway.bears_holes = true;
    let back = Instant::now();
    while back.elapsed() < Duration::from_secs(5) {
        let status: Status = within("status", async {
            tokenbus_protocol::decode(&statuses.next().await.unwrap().payload).unwrap()
        })
        .await;
        assert_eq!(status.report.active, 3);
    }
    for stream in 1..=3 {
        gateway.until(stream, 0, "frame", |seen| seen.broken).await;
    }
    assert_eq!(metric(&registry(&worker), "worker_gateways_lost_total"), 0);
    for stream in 1..=3 {
        gateway.cancel("w1", stream, 0).await;
    }
    status_until(&mut statuses, "idle worker", |status| status.report.active == 0).await;
}

/// A connection that subscribes as a gateway and then reads nothing at all.
async fn deaf(nats: &Nats, gateway: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(16 * 1024).unwrap();
    let address = nats.url.strip_prefix("nats://").unwrap().parse().unwrap();
    let mut stream = socket.connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let subject = subjects().out_all(&name(gateway));
    let hello = format!("CONNECT {{\"verbose\":false,\"headers\":true}}\r\nSUB {subject} 1\r\nPING\r\n");
    stream.write_all(hello.as_bytes()).await.unwrap();
    let mut said = String::new();
    let mut buffer = [0; 1024];
    while !said.contains("PONG\r\n") {
        let bytes = within("PONG", stream.read(&mut buffer)).await.unwrap();
        said.push_str(std::str::from_utf8(&buffer[..bytes]).unwrap());
    }
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_does_not_read_loses_its_own_streams_only() {
    const DEAF: u64 = 60;
    let nats = Nats::configured("max_pending: 1MB\nwrite_deadline: \"1s\"\n").await;
    let worker = Running::start(&nats, "w1", sim(64, 0, 2)).await;
    let mut statuses = statuses(&nats).await;
    let deaf = deaf(&nats, "deaf").await;
    let mut quick = Gateway::start(&nats, "quick").await;
    for stream in 1..=4 {
        quick.send(&quick.request(stream, 0, LONG)).await;
        quick.accepted(stream, 0).await;
    }
    let mut request = quick.request(0, 0, LONG);
    request.gateway = name("deaf");
    for stream in 101..=100 + DEAF {
        request.stream = stream;
        request.id = uuid::Uuid::from_u128(u128::from(stream));
        quick.send(&request).await;
    }
    status_until(&mut statuses, "all streams", |status| status.report.active == 64).await;
    // Its bound is met at the server, which closes its connection; the worker then misses it.
    let (mut longest, mut last) = (Duration::ZERO, Instant::now());
    let stopped = status_until(&mut statuses, "end of the deaf gateway's streams", |s| {
        s.report.active == 4
    });
    let mut stopped = std::pin::pin!(stopped);
    loop {
        tokio::select! {
            _ = &mut stopped => break,
            () = quick.read() => {
                longest = longest.max(last.elapsed());
                last = Instant::now();
            }
        }
    }
    assert!(longest < NOISE, "the others waited {longest:?}");
    let all = registry(&worker);
    assert_eq!(metric(&all, "worker_gateways_lost_total"), 1);
    for stream in 1..=4 {
        let so_far = quick.seen(stream, 0).tokens;
        quick
            .until(stream, 0, "more tokens", |seen| seen.tokens > so_far + 10)
            .await;
        assert!(quick.seen(stream, 0).text.starts_with(&sim_text(0..100)));
    }
    drop(deaf);
    let mut recovered = Gateway::start(&nats, "deaf").await;
    recovered
        .send(&recovered.request(1000, 0, r#"{"max_tokens":30}"#))
        .await;
    assert_eq!(recovered.ended(1000, 0).await, "finish 30");
}
