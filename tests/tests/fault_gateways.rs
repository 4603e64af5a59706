//! A gateway that dies behind a load balancer.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

use std::time::{Duration, Instant};

use tokenbus_tests::ask::{ask_for, with};
use tokenbus_tests::chaos::Stage;
use tokenbus_tests::chaos::stage::MODEL;
use tokenbus_tests::http::CHAT;
use tokenbus_tests::load::{Failure, Load};
use tokenbus_tests::wait::eventually_in;
use tokenbus_tests::{Cluster, Role, within};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::sleep;

const STREAMS: usize = 100;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_a_killed_gateway_breaks_its_own_connections_and_nothing_else() {
    let mut stage = Stage::start().await;
    let load = stage.load(2 * STREAMS).start();
    load.flowing().await;
    let killed = Instant::now();
    stage.kill_gateway(0).await;
    sleep(Duration::from_secs(2)).await;
    let to = Instant::now();
    stage.start_gateway(0).await;
    stage.settled().await;
    load.flowing().await;
    let report = load.finish().await;
    report.record("gateway killed behind a load balancer", killed, to);
    let dead = stage.gateways()[0];
    let lost = |sample: &tokenbus_tests::load::Sample| {
        sample.gateway == dead && sample.began <= killed && sample.result == Err(Failure::Broken)
    };
    let broken = report.samples.iter().filter(|sample| lost(sample)).count();
    assert!((1..=STREAMS).contains(&broken), "{broken} connections broke");
    report.assert_whole_where(|sample| !lost(sample));
    stage.idle().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_the_streams_of_a_killed_gateway_are_freed_on_the_workers() {
    let mut stage = Stage::start().await;
    // So long that none ends by itself within the test.
    let doomed = Load::new(&stage.gateways()[..1], MODEL, STREAMS).tokens(20_000).start();
    let other = Load::new(&stage.gateways()[1..], MODEL, STREAMS).tokens(1_500).start();
    doomed.flowing().await;
    other.flowing().await;
    // What the coordinator tells may be a second old.
    stage.active(2 * STREAMS as u64).await;
    let killed = Instant::now();
    stage.kill_gateway(0).await;
    drop(doomed);
    eventually_in(
        Duration::from_secs(15),
        "the dead gateway's streams to be freed",
        async || {
            let active = stage.cluster.active().await;
            if active <= STREAMS as u64 { Ok(()) } else { Err(active) }
        },
    )
    .await;
    let freed = killed.elapsed();
    eprintln!(
        "measured {{\"scenario\":\"slots of a killed gateway freed\",\"ms\":{}}}",
        freed.as_millis()
    );
    let report = other.finish().await;
    report.assert_whole();
    assert!(freed < Duration::from_secs(10), "freed after {freed:?}");
    stage.start_gateway(0).await;
    stage.idle().await;
}

#[tokio::test]
async fn streams_over_http_1_0_whose_break_looks_like_their_end_are_warned_of_once() {
    let cluster = Cluster::plan().worker(Role::sim("m", 4)).start().await;
    let gateway = &cluster.gateways[0];
    let warnings = || {
        let lines = gateway.logs().lines();
        lines
            .iter()
            .filter(|line| line.contains("proxy_http_version 1.1"))
            .count()
    };
    let answers = async |version: &str, stream: bool| {
        let body = with(ask_for("m", 3), "stream", stream.into()).to_string();
        let mut tcp = TcpStream::connect(gateway.address()).await.unwrap();
        let head = format!(
            "POST {CHAT} HTTP/{version}\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        tcp.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
        let mut answer = String::new();
        within("an answer", tcp.read_to_string(&mut answer)).await.unwrap();
        assert!(answer.starts_with(&format!("HTTP/{version} 200 ")), "{answer}");
        assert_eq!(answer.contains("data: [DONE]"), stream, "{answer}");
        answer
    };
    answers("1.1", true).await;
    answers("1.0", false).await;
    assert_eq!(warnings(), 0, "a length or chunks tell where the answer ends");
    let first = answers("1.0", true).await;
    assert!(!first.to_lowercase().contains("transfer-encoding"), "{first}");
    let limit = Duration::from_secs(10);
    eventually_in(limit, "a warning", async || {
        (warnings() == 1).then_some(()).ok_or(warnings())
    })
    .await;
    answers("1.0", true).await;
    let ours = include_str!("../../deploy/ingress/nginx.conf");
    assert!(ours.contains("proxy_http_version 1.1;"), "{ours}");
    // The next request's own line comes after whatever the one before it has said.
    assert_eq!(warnings(), 1);
}
