//! Workers that die, hang, and are asked to go, under 200 checked streams.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::time::{Duration, Instant};

use tokenbus_tests::chaos::{Setting, Stage};
use tokio::time::sleep;

const STREAMS: usize = 200;

/// How long the load goes on behind a fault, so that what began after it is seen as well.
const AFTER: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_a_worker_killed_before_the_first_token_is_not_seen() {
    let mut stage = Stage::start_with(Setting {
        ttft: "3s",
        ..Setting::default()
    })
    .await;
    let load = stage.load(STREAMS).tokens(40).start();
    stage.active(STREAMS as u64).await;
    assert!(stage.active_of(0).await > 0, "what is killed runs nothing");
    let killed = Instant::now();
    stage.kill_worker(0).await;
    load.flowing().await;
    let report = load.finish().await;
    report.record(
        "worker killed before the first token (3 s of prefill)",
        killed,
        Instant::now(),
    );
    report.assert_whole();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_a_worker_killed_mid_stream_is_a_pause() {
    let mut stage = Stage::start().await;
    let load = stage.load(STREAMS).start();
    load.flowing().await;
    let killed = Instant::now();
    stage.kill_worker(0).await;
    sleep(AFTER).await;
    let over = Instant::now();
    stage.start_worker(0).await;
    load.flowing().await;
    let report = load.finish().await;
    report.record("worker killed mid-stream", killed, over);
    report.assert_whole();
    assert!(report.silences(killed, over).max < Duration::from_secs(10));
    stage.settled().await;
    stage.idle().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_a_frozen_worker_is_given_up_and_its_stale_frames_reach_nobody() {
    let stage = Stage::start().await;
    let load = stage.load(STREAMS).tokens(600).start();
    load.flowing().await;
    let frozen = Instant::now();
    let worker = &stage.cluster.workers[0];
    worker.freeze();
    // Behind the stall time, and before nats-server gives the connection up: what the worker has
    // in its buffers goes out when it wakes.
    sleep(Duration::from_millis(5_500)).await;
    worker.thaw();
    let over = Instant::now();
    sleep(AFTER).await;
    let report = load.finish().await;
    report.record("worker hung (SIGSTOP) for 5.5 s", frozen, over);
    report.assert_whole();
    stage.settled().await;
    stage.idle().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_a_worker_frozen_beyond_its_connection_comes_back() {
    let stage = Stage::start().await;
    let load = stage.load(STREAMS).start();
    load.flowing().await;
    let frozen = Instant::now();
    let worker = &stage.cluster.workers[0];
    worker.freeze();
    sleep(Duration::from_secs(9)).await;
    worker.thaw();
    let over = Instant::now();
    sleep(AFTER).await;
    let report = load.finish().await;
    report.record("worker hung (SIGSTOP) for 9 s", frozen, over);
    report.assert_whole();
    stage.settled().await;
    stage.idle().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_every_worker_and_every_gateway_is_restarted_in_turn_unseen() {
    let mut stage = Stage::start().await;
    // Longer than the workers' grace period of 2 s: most streams are handed over.
    let load = stage.load(STREAMS).tokens(800).start();
    load.flowing().await;
    let begun = Instant::now();
    for worker in 0..3 {
        stage.restart_worker(worker).await;
        stage.settled().await;
    }
    for gateway in 0..2 {
        stage.restart_gateway(gateway).await;
    }
    let over = Instant::now();
    let report = load.finish().await;
    report.record("rolling restart of every worker and gateway", begun, over);
    report.assert_whole();
    stage.settled().await;
    stage.idle().await;
}
