//! An idle cluster lets its machines sleep.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::time::Duration;

use tokenbus_tests::ask::{ask_for, sim_text};
use tokenbus_tests::{Cluster, NatsOptions, Process, Role};

/// How long each count of wake-ups takes.
const WATCHED: Duration = Duration::from_secs(5);

/// Most wake-ups of each role in that time: 3.4 a second, for the coordinator 4.4. Two are what they aim at; 3.0 and 4.0
/// are what an idle machine has, and a busy one cuts one into several.
const MOST: [(&str, u64); 3] = [("gateway", 17), ("worker", 17), ("coordinator", 22)];

/// How often all threads of a process have waited for something so far.
fn waits(process: &Process) -> u64 {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", process.pid())).unwrap();
    let status = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("status")).ok());
    let counts = status.filter_map(|status| {
        let line = status
            .lines()
            .find(|line| line.starts_with("voluntary_ctxt_switches:"))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    });
    counts.sum()
}

#[tokio::test]
async fn an_idle_gateway_worker_and_coordinator_wake_up_a_few_times_a_second() {
    let cluster = Cluster::plan()
        .nats(NatsOptions {
            jetstream: true,
            ..NatsOptions::default()
        })
        .worker(Role::sim("m", 4))
        .start()
        .await;
    // Also after it has had work: what a request started has ended.
    let client = cluster.client();
    assert_eq!(client.chat(&ask_for("m", 4)).await.content(), sim_text(4));
    let roles = [&cluster.gateways[0], &cluster.workers[0], &cluster.coordinators[0]];
    let mut seen = Vec::new();
    for _ in 0..4 {
        let before = roles.map(waits);
        // Time itself is what is measured.
        tokio::time::sleep(WATCHED).await;
        let after = roles.map(waits);
        let woken: Vec<_> = MOST
            .iter()
            .zip(before.iter().zip(after))
            .map(|((name, most), (before, after))| (*name, after - before, *most))
            .collect();
        if woken.iter().all(|(_, count, most)| count <= most) {
            return;
        }
        seen.push(woken);
    }
    panic!("wake-ups in {WATCHED:?}: {seen:?}");
}
