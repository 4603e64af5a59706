//! A gateway that dies behind a load balancer.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

use std::time::{Duration, Instant};

use tokenbus_tests::chaos::Stage;
use tokenbus_tests::chaos::stage::MODEL;
use tokenbus_tests::load::{Failure, Load};
use tokenbus_tests::wait::eventually_in;
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
