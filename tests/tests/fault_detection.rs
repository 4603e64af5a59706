//! How the loss of a worker is noticed when what usually tells it is missing too.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::time::{Duration, Instant};

use tokenbus_tests::chaos::Stage;
use tokio::time::sleep;

const STREAMS: usize = 200;

/// How long the load goes on behind a fault, so that what began after it is seen as well.
const AFTER: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_a_worker_killed_and_back_at_once_under_its_id_is_not_taken_for_the_old_one() {
    let mut stage = Stage::start().await;
    let load = stage.load(STREAMS).start();
    load.flowing().await;
    let killed = Instant::now();
    stage.kill_worker(0).await;
    // It answers pings again long before its silence is noticed, and knows nothing of its streams.
    stage.start_worker(0).await;
    let back = killed.elapsed();
    sleep(AFTER).await;
    let over = Instant::now();
    load.flowing().await;
    let report = load.finish().await;
    report.record("worker killed, back at once under the same id", killed, over);
    report.assert_whole();
    let longest = report.silences(killed, over).max;
    assert!(
        longest < back + Duration::from_secs(4),
        "{longest:?}, though back after {back:?}"
    );
    stage.settled().await;
    stage.idle().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_a_hung_worker_is_found_without_any_coordinator() {
    let mut stage = Stage::start().await;
    for coordinator in 0..2 {
        stage.kill_coordinator(coordinator).await;
    }
    let load = stage.load(STREAMS).start();
    load.flowing().await;
    let frozen = Instant::now();
    stage.cluster.workers[0].freeze();
    sleep(Duration::from_secs(7)).await;
    stage.cluster.workers[0].thaw();
    let over = Instant::now();
    sleep(AFTER).await;
    let report = load.finish().await;
    report.record("worker hung for 7 s, no coordinator", frozen, over);
    report.assert_whole();
    assert!(report.silences(frozen, over).max < Duration::from_secs(12));
    for coordinator in 0..2 {
        stage.start_coordinator(coordinator).await;
    }
    stage.settled().await;
    stage.idle().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_two_of_three_workers_killed_at_once_is_a_wait_for_room() {
    let mut stage = Stage::start().await;
    let load = stage.load(STREAMS).start();
    load.flowing().await;
    let killed = Instant::now();
    stage.kill_worker(0).await;
    stage.kill_worker(1).await;
    // 200 streams on the 120 slots that are left: the rest waits in the gateways.
    sleep(AFTER).await;
    stage.start_worker(0).await;
    stage.start_worker(1).await;
    let over = Instant::now();
    load.flowing().await;
    let report = load.finish().await;
    report.record("two of three workers killed, back after 2 s", killed, over);
    report.assert_whole();
    stage.settled().await;
    stage.idle().await;
}
