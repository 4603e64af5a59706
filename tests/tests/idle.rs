//! An idle cluster lets its machines sleep.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::time::Duration;

use tokenbus_tests::ask::{ask_for, sim_text};
use tokenbus_tests::{Cluster, NatsOptions, Process, Role};

/// How long each count of wake-ups takes.
const WATCHED: Duration = Duration::from_secs(5);

/// Most wake-ups of a role in that time: five a second. Two a second is what they aim at; a busy machine cuts one into
/// several.
const MOST: u64 = 25;

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
    let roles = [
        ("gateway", &cluster.gateways[0]),
        ("worker", &cluster.workers[0]),
        ("coordinator", &cluster.coordinators[0]),
    ];
    let mut seen = Vec::new();
    for _ in 0..4 {
        let before = roles.map(|(_, process)| waits(process));
        // Time itself is what is measured.
        tokio::time::sleep(WATCHED).await;
        let woken: Vec<_> = roles
            .iter()
            .zip(before)
            .map(|((name, process), before)| (*name, waits(process) - before))
            .collect();
        if woken.iter().all(|(_, count)| *count <= MOST) {
            return;
        }
        seen.push(woken);
    }
    panic!("wake-ups in {WATCHED:?}: {seen:?}");
}
