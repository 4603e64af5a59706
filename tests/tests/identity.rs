//! One id, one worker: who comes second does not start, and who comes back after it was replaced ends.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::process::ExitStatus;

use tokenbus_protocol::{Control, ControlReply, Name, Ping, Subjects};
use tokenbus_tests::ask::{ask_for, sim_text};
use tokenbus_tests::limits::STOP;
use tokenbus_tests::{Cluster, Process, Role, eventually};

fn worker(id: &str) -> Role {
    Role::sim("m", 4).args(&["--id", id])
}

/// Waits for the end of a worker whose id is another's; it must be a failure that says why.
async fn refused(process: &mut Process, id: &str) {
    let status: ExitStatus = process.exited(STOP).await;
    assert!(status.code().is_some_and(|code| code > 0), "{status:?}");
    process.logs().ended().await;
    let lines = process.logs().lines();
    let sentence = format!("error: another worker runs under the id {id} ");
    let said = lines.iter().filter(|line| line.starts_with(&sentence)).count();
    assert_eq!(said, 1, "{lines:?}");
}

async fn served(cluster: &Cluster) {
    for _ in 0..4 {
        assert_eq!(cluster.client().chat(&ask_for("m", 3)).await.content(), sim_text(3));
    }
}

/// The instance that answers on the id's control subject.
async fn instance(cluster: &Cluster, id: &str) -> u64 {
    let client = cluster.nats.client().await;
    let subject = Subjects::new(Name::new("tb").unwrap()).control(&Name::new(id).unwrap());
    eventually("a pong", async || {
        let ping = tokenbus_protocol::encode(&Control::Ping(Ping {})).unwrap();
        let answer = client.request(subject.clone(), ping.into()).await;
        match answer.map(|answer| tokenbus_protocol::decode(&answer.payload)) {
            Ok(Ok(ControlReply::Pong(pong))) => Ok(pong.instance),
            other => Err(format!("{other:?}")),
        }
    })
    .await
}

#[tokio::test]
async fn a_second_worker_of_an_id_does_not_start_and_the_first_serves_on() {
    let mut cluster = Cluster::plan().worker(worker("w1")).start().await;
    let first = instance(&cluster, "w1").await;
    let mut second = worker("w1").named("second worker").launch(&cluster.nats.url());
    refused(&mut second, "w1").await;
    assert!(cluster.workers.iter_mut().all(|worker| worker.is_running()));
    assert_eq!(instance(&cluster, "w1").await, first);
    cluster.settled().await;
    served(&cluster).await;
}

#[tokio::test]
async fn of_two_workers_of_an_id_that_start_at_once_exactly_one_stays() {
    let mut cluster = Cluster::plan().start().await;
    for round in 0..3 {
        let id = format!("w{round}");
        let url = cluster.nats.url();
        let (one, other) = (worker(&id).launch(&url), worker(&id).launch(&url));
        let (one_log, other_log) = (one.logs().clone(), other.logs().clone());
        let one_ended = tokio::select! {
            () = one_log.ended() => true,
            () = other_log.ended() => false,
        };
        let (mut gone, mut stays) = if one_ended { (one, other) } else { (other, one) };
        refused(&mut gone, &id).await;
        stays.ready().await;
        cluster.workers.push(stays);
        cluster.settled().await;
        served(&cluster).await;
    }
    assert!(cluster.workers.iter_mut().all(|worker| worker.is_running()));
}

#[tokio::test]
async fn a_frozen_worker_is_replaced_under_its_id_and_ends_when_it_wakes() {
    let mut cluster = Cluster::plan().worker(worker("w1")).start().await;
    cluster.workers[0].freeze();
    let successor = worker("w1").named("successor").start(&cluster.nats.url()).await;
    cluster.workers[0].thaw();
    refused(&mut cluster.workers[0], "w1").await;
    cluster.workers[0] = successor;
    assert!(cluster.workers[0].is_running());
    cluster.settled().await;
    served(&cluster).await;
}

#[tokio::test]
async fn a_worker_that_was_killed_is_started_again_under_its_id_without_a_wait() {
    let mut cluster = Cluster::plan().worker(worker("w1")).start().await;
    for _ in 0..3 {
        cluster.workers[0].kill().await;
        cluster.workers[0] = worker("w1").start(&cluster.nats.url()).await;
        let lines = cluster.workers[0].logs().lines();
        let waited = lines.iter().any(|line| line.contains("does not answer"));
        assert!(!waited, "it took its predecessor for alive: {lines:?}");
    }
    cluster.settled().await;
    served(&cluster).await;
}

#[tokio::test]
async fn a_worker_whose_nats_went_and_came_back_keeps_its_id() {
    let mut cluster = Cluster::plan().worker(worker("w1")).start().await;
    let first = instance(&cluster, "w1").await;
    for _ in 0..3 {
        cluster.nats.restart().await;
        assert_eq!(instance(&cluster, "w1").await, first);
        cluster.settled().await;
    }
    served(&cluster).await;
    assert!(cluster.workers[0].is_running());
}

#[tokio::test]
async fn two_coordinators_of_one_name_have_ids_of_their_own() {
    let cluster = Cluster::plan().start().await;
    let named = || Role::coordinator().args(&["--id", "twin"]);
    let (one, other) = (
        named().start(&cluster.nats.url()).await,
        named().start(&cluster.nats.url()).await,
    );
    assert!(one.id().starts_with("twin-") && other.id().starts_with("twin-"));
    assert_ne!(one.id(), other.id());
}
