//! Links between a worker and NATS that break, stall and are slow, under 200 checked streams.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::time::{Duration, Instant};

use tokenbus_tests::chaos::Stage;
use tokio::time::sleep;

const STREAMS: usize = 200;

/// How long the load goes on behind a fault, so that what began after it is seen as well.
const AFTER: Duration = Duration::from_secs(2);

/// Hurts the link of worker 0, lets `time` pass, heals it, and demands that no client saw more
/// than a pause.
async fn hurt(scenario: &str, time: Duration, hurt: impl Fn(&Stage)) -> Duration {
    let stage = Stage::start().await;
    let load = stage.load(STREAMS).start();
    load.flowing().await;
    let from = Instant::now();
    hurt(&stage);
    sleep(time).await;
    stage.links[0].open();
    let to = Instant::now();
    sleep(AFTER).await;
    let report = load.finish().await;
    report.record(scenario, from, to);
    report.assert_whole();
    stage.settled().await;
    stage.idle().await;
    report.silences(from, to).max
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_a_cut_link_is_a_pause() {
    let longest = hurt(
        "link of a worker to NATS cut for 3 s",
        Duration::from_secs(3),
        |stage| {
            stage.links[0].cut();
        },
    );
    assert!(longest.await < Duration::from_secs(10));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_a_link_cut_for_a_moment_loses_nothing() {
    let longest = hurt(
        "link of a worker to NATS cut for 50 ms",
        Duration::from_millis(50),
        |stage| {
            stage.links[0].cut();
        },
    );
    assert!(longest.await < Duration::from_secs(10));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_a_stalled_link_is_found_by_its_silence() {
    let longest = hurt(
        "link of a worker to NATS stalled for 9 s",
        Duration::from_secs(9),
        |stage| {
            stage.links[0].freeze();
        },
    );
    assert!(longest.await < Duration::from_secs(12));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_a_link_stalled_for_less_than_the_limit_goes_on() {
    let longest = hurt(
        "link of a worker to NATS stalled for 1.5 s",
        Duration::from_millis(1_500),
        |stage| {
            stage.links[0].freeze();
        },
    );
    assert!(longest.await < Duration::from_secs(10));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_a_slow_link_is_not_a_dead_one() {
    let longest = hurt(
        "link of a worker to NATS late by 300 ms for 4 s",
        Duration::from_secs(4),
        |stage| {
            stage.links[0].delay(Duration::from_millis(300));
        },
    );
    assert!(longest.await < Duration::from_secs(10));
}
