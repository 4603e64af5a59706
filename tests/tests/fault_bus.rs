//! A bus and coordinators that go away, under 200 checked streams.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::time::{Duration, Instant};

use tokenbus_tests::chaos::{Setting, Stage};
use tokenbus_tests::limits::READY;
use tokenbus_tests::load::Load;
use tokenbus_tests::{Cluster, NatsOptions, NatsServer, Process, Role, eventually};
use tokio::time::sleep;

const STREAMS: usize = 200;

const DISCONNECTS: &str = "tokenbus_gateway_nats_disconnects_total";

/// How long the load goes on behind a fault, so that what began after it is seen as well.
const AFTER: Duration = Duration::from_secs(3);

async fn nats_away(scenario: &str, time: Duration) {
    let mut stage = Stage::start_with(Setting {
        // What no worker had when the server died waits as well.
        gateway_args: vec!["--bus-patience", "40s"],
        ..Setting::default()
    })
    .await;
    let load = stage.load(STREAMS).start();
    load.flowing().await;
    let from = Instant::now();
    stage.cluster.nats.kill().await;
    for gateway in 0..2 {
        eventually("the gateway to say that it is not ready", async || {
            if stage.ready(gateway).await {
                Err("ready")
            } else {
                Ok(())
            }
        })
        .await;
    }
    sleep(time.saturating_sub(from.elapsed())).await;
    stage.cluster.nats.start_again().await;
    let to = Instant::now();
    sleep(AFTER).await;
    load.flowing().await;
    let report = load.finish().await;
    report.record(scenario, from, to);
    report.assert_whole();
    assert!(stage.ready(0).await && stage.ready(1).await);
    stage.settled().await;
    stage.idle().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_nats_gone_for_a_second_is_a_pause() {
    nats_away("nats-server killed, back after 1 s", Duration::from_secs(1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_nats_gone_for_twenty_seconds_is_a_long_pause() {
    nats_away("nats-server killed, back after 20 s", Duration::from_secs(20)).await;
}

/// Three servers that route to each other and tell clients of each other: whoever knows one finds the others.
async fn three_servers() -> Vec<NatsServer> {
    let node = |name: &str, routes: &str| NatsOptions {
        extra: format!("server_name: {name}\ncluster {{ name: c, listen: \"127.0.0.1:-1\", routes: [{routes}] }}"),
        ..NatsOptions::default()
    };
    let first = NatsServer::start_with(node("a", "")).await;
    let port = |line: &str| Some(line.split_once("Listening for route connections on ")?.1.to_owned());
    let logs = first.process().logs();
    let route = logs.wait_for(READY, "its route address", port).await;
    let route = format!("\"nats://{route}\"");
    let second = NatsServer::start_with(node("b", &route)).await;
    let third = NatsServer::start_with(node("c", &route)).await;
    vec![first, second, third]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_a_lost_node_of_a_nats_cluster_is_a_pause() {
    let mut servers = three_servers().await;
    let urls: Vec<String> = servers.iter().map(NatsServer::url).collect();
    let gateways = vec![
        Role::gateway().start(&urls[0]).await,
        Role::gateway().start(&urls[1]).await,
    ];
    let coordinators = vec![
        Role::coordinator().start(&urls[0]).await,
        Role::coordinator().start(&urls[1]).await,
    ];
    let mut workers = Vec::new();
    for (number, url) in urls.iter().enumerate() {
        let role = Role::sim("m", 120)
            .pace("20ms", "10ms")
            .named(&format!("worker {number}"));
        workers.push(role.start(url).await);
    }
    let nats = servers.remove(0);
    let cluster = Cluster {
        gateways,
        coordinators,
        workers,
        nats,
    };
    cluster.settled().await;
    cluster.lists("m").await;
    let addresses: Vec<_> = cluster.gateways.iter().map(Process::address).collect();
    let load = Load::new(&addresses, "m", STREAMS).start();
    load.flowing().await;
    let from = Instant::now();
    servers[0].kill().await;
    sleep(AFTER).await;
    let to = Instant::now();
    load.flowing().await;
    let report = load.finish().await;
    report.record("one of three NATS nodes killed", from, to);
    report.assert_whole();
    let page = cluster.gateways[1].client().get("/metrics").await.text();
    let lost = tokenbus_tests::metrics::sum(&tokenbus_tests::metrics::parse(&page), DISCONNECTS, &[]);
    assert!(lost >= 1.0, "the gateway of the killed node noticed nothing: {lost}");
    cluster.settled().await;
    cluster.wait_active(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_a_lost_leader_and_then_every_coordinator_is_not_seen() {
    let mut stage = Stage::start().await;
    let leader = stage.capacity().await["coordinator"].as_str().unwrap().to_owned();
    let leads = stage.cluster.coordinators.iter().position(|one| one.id() == leader);
    let leads = leads.unwrap_or_else(|| panic!("no coordinator is {leader}"));
    let load = stage.load(STREAMS).start();
    load.flowing().await;
    let from = Instant::now();
    stage.kill_coordinator(leads).await;
    // Beyond the age at which a snapshot counts for nothing any more.
    sleep(Duration::from_secs(4)).await;
    let half = Instant::now();
    stage.kill_coordinator(1 - leads).await;
    sleep(Duration::from_secs(4)).await;
    let to = Instant::now();
    stage.start_coordinator(0).await;
    stage.start_coordinator(1).await;
    load.flowing().await;
    let report = load.finish().await;
    report.record("leading coordinator killed", from, half);
    report.record("every coordinator killed", half, to);
    report.assert_whole();
    stage.settled().await;
    stage.idle().await;
}
