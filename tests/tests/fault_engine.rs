//! An engine that dies under a live worker, with checked streams on it.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use tokenbus_tests::load::{Failure, Load, Report};
use tokenbus_tests::{Cluster, Process, Role};
use tokio::time::sleep;

/// Fewer than elsewhere: the engine is a small Python program.
const STREAMS: usize = 60;

const SERVER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fault_engine/server.py");

/// A worker that runs the server as a child; `kind` is what the server says that it is.
fn worker(kind: &str, number: usize, logs: &TempDir) -> Role {
    let command = format!("python3 '{SERVER}' {{port}} --as {kind}");
    let folder = logs.path().join(number.to_string());
    Role::new("worker").args(&[
        "--engine",
        "openai",
        "--engine-command",
        &command,
        "--engine-log-dir",
        folder.to_str().unwrap(),
        "--model",
        "m",
        "--slots",
        "60",
        "--id",
        &format!("w{number}"),
    ])
}

/// The one child of a process.
fn child_of(parent: i32) -> Pid {
    let stats = std::fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let stat = std::fs::read_to_string(entry.ok()?.path().join("stat")).ok()?;
        let pid: i32 = stat.split(' ').next()?.parse().ok()?;
        let parent: i32 = stat.rsplit(") ").next()?.split(' ').nth(1)?.parse().ok()?;
        Some((pid, parent))
    });
    let children: Vec<i32> = stats.filter(|(_, of)| *of == parent).map(|(pid, _)| pid).collect();
    assert_eq!(children.len(), 1, "children of {parent}: {children:?}");
    Pid::from_raw(children[0])
}

/// Kills the engine of one of two workers under load.
async fn crash(kind: &str, scenario: &str, change: fn(Load) -> Load) -> Report {
    let logs = tempfile::tempdir().unwrap();
    let cluster = Cluster::plan()
        .gateways(2)
        .worker(worker(kind, 0, &logs))
        .worker(worker(kind, 1, &logs))
        .start()
        .await;
    let gateways: Vec<_> = cluster.gateways.iter().map(Process::address).collect();
    let load = change(Load::new(&gateways, "m", STREAMS).tokens(60)).start();
    load.flowing().await;
    // And once more: streams are at every place between their beginning and their end.
    load.flowing().await;
    let from = Instant::now();
    kill(child_of(cluster.workers[0].pid()), Signal::SIGKILL).unwrap();
    sleep(Duration::from_secs(2)).await;
    let to = Instant::now();
    // The worker has started its engine anew, and both serve.
    cluster.settled().await;
    load.flowing().await;
    let report = load.finish().await;
    report.record(scenario, from, to);
    cluster.wait_active(0).await;
    report
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_a_crashed_engine_that_can_continue_is_a_pause() {
    let report = crash("vllm", "engine child killed, an engine that continues", |load| load).await;
    report.assert_whole();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_a_crashed_engine_that_cannot_continue_is_an_honest_error() {
    let report = crash(
        "unknown",
        "engine child killed, an engine that cannot continue",
        |load| load,
    )
    .await;
    report.assert_honest();
    let mut told = 0;
    for sample in &report.samples {
        match &sample.result {
            Ok(()) => continue,
            // Nothing of an answer in one piece has been sent: it is asked for again.
            Err(Failure::Told { .. }) => assert!(!sample.unary),
            Err(other) => panic!("{other}"),
        }
        told += 1;
    }
    assert!((1..=STREAMS).contains(&told), "{told} streams were told of the crash");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_a_crashed_engine_that_cannot_continue_generates_again_what_is_deterministic() {
    let scenario = "engine child killed, generated again at temperature 0";
    let report = crash("unknown", scenario, Load::greedy).await;
    report.assert_whole();
}
