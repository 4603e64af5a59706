//! Promises of the coordinator, against a real nats-server.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout
)]

mod support;

use std::collections::{BTreeSet, VecDeque};
use std::io::ErrorKind;
use std::time::{Duration, Instant};

use support::{
    Coordinator, Events, NOISE, NatsServer, Snapshots, Worker, ask, name, reporting, say, soon, status, subjects,
};
use tokenbus_coordinator::{PageAccess, PageToken};
use tokenbus_protocol::{Capacity, EventKind, WorkerState};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// The promised time for another coordinator to take over.
const TAKE_OVER: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread")]
async fn joining_leaving_and_being_lost_are_told() {
    let nats = NatsServer::start(false).await;
    let client = nats.client().await;
    let mut events = Events::listen(&client).await;
    let _coordinator = Coordinator::start(&nats.url(), "c").await;
    let leader = events.until(EventKind::LeaderChanged, &[]).await;
    assert_eq!(leader.coordinator, Some(name("c")));

    say(&client, &status("w1", 1)).await;
    let joined = events.next().await;
    assert_eq!(
        (joined.kind, joined.worker, joined.instance),
        (EventKind::WorkerJoined, Some(name("w1")), Some(7))
    );
    let appeared = events.next().await;
    assert_eq!(
        (appeared.kind, appeared.model.as_deref()),
        (EventKind::ModelAppeared, Some("m"))
    );

    say(
        &client,
        &reporting(status("w1", 2), |report| report.state = WorkerState::Draining),
    )
    .await;
    assert_eq!(events.next().await.kind, EventKind::WorkerDraining);
    assert_eq!(events.next().await.kind, EventKind::ModelVanished);
    say(
        &client,
        &reporting(status("w1", 3), |report| report.state = WorkerState::Stopped),
    )
    .await;
    assert_eq!(events.next().await.kind, EventKind::WorkerLeft);

    let begun = Instant::now();
    say(&client, &status("w2", 1)).await;
    assert_eq!(events.next().await.worker, Some(name("w2")));
    assert_eq!(events.next().await.kind, EventKind::ModelAppeared);
    let lost = events.next().await;
    assert_eq!((lost.kind, lost.worker), (EventKind::WorkerLost, Some(name("w2"))));
    let silent = begun.elapsed();
    let missed = Duration::from_secs(3);
    assert!(silent >= missed && silent < missed + NOISE, "lost after {silent:?}");
    assert_eq!(events.next().await.kind, EventKind::ModelVanished);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_snapshot_comes_every_second_at_once_on_a_change_and_on_request() {
    let nats = NatsServer::start(true).await;
    let client = nats.client().await;
    let _worker = Worker::start(&client, "w1");
    let mut snapshots = Snapshots::listen(&client).await;
    let coordinator = Coordinator::start(&nats.url(), "c").await;

    // Over HTTP and on the bus, even the first answer knows the worker.
    let (head, body) = coordinator.get("/capacity").await;
    assert!(
        head.starts_with("http/1.1 200") && head.contains("x-tokenbus-leader: c"),
        "{head}"
    );
    let json: Capacity = serde_json::from_str(&body).unwrap();
    assert_eq!(json.workers.len(), 1);
    let asked = ask(&client).await;
    assert_eq!(
        (asked.workers[0].report.worker.as_str(), asked.models[0].free),
        ("w1", 3)
    );

    // A busy machine may delay some of them, but not all.
    let mut measured = Vec::new();
    while !measured.iter().any(|seconds| (1.7..2.3).contains(seconds)) {
        assert!(measured.len() < 5, "two periods took {measured:?} s");
        let first = snapshots.next().await;
        let begun = Instant::now();
        snapshots.next().await;
        let third = snapshots.next().await;
        measured.push(begun.elapsed().as_secs_f64());
        assert!(third.seq > first.seq && third.coordinator == name("c"));
    }

    // Six changes. With regular snapshots alone each would take a second to show.
    let begun = Instant::now();
    let mut others = Vec::new();
    for number in 2..=7 {
        others.push(Worker::start(&client, &format!("w{number}")));
        let (capacity, _) = snapshots
            .until("snapshot with the next worker", |c| c.workers.len() == number)
            .await;
        let slots = capacity.models[0].slots as usize;
        assert_eq!((slots, capacity.models[0].workers as usize), (4 * number, number));
    }
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "told after {:?}",
        begun.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_is_in_the_first_snapshot_that_a_new_coordinator_publishes() {
    let nats = NatsServer::start(false).await;
    let client = nats.client().await;
    let _worker = Worker::start(&client, "w1");
    let mut snapshots = Snapshots::listen(&client).await;
    let _coordinator = Coordinator::start(&nats.url(), "c").await;
    assert_eq!(
        snapshots.next().await.workers.len(),
        1,
        "an empty first snapshot would be a lie"
    );
}

async fn the_other_takes_over(jetstream: bool) {
    let nats = NatsServer::start(jetstream).await;
    let client = nats.client().await;
    let _worker = Worker::start(&client, "w1");
    let mut snapshots = Snapshots::listen(&client).await;
    let mut events = Events::listen(&client).await;
    let (a, b) = (
        Coordinator::start(&nats.url(), "a").await,
        Coordinator::start(&nats.url(), "b").await,
    );
    let first = snapshots.next().await.coordinator;
    let (leader, follower) = if first == a.id { (a, b) } else { (b, a) };

    // While both live, only the leader publishes, and the follower knows the same.
    for _ in 0..3 {
        assert_eq!(snapshots.next().await.coordinator, leader.id);
    }
    assert_eq!(ask(&client).await.coordinator, leader.id);
    let (head, body) = follower.get("/capacity").await;
    assert!(head.contains(&format!("x-tokenbus-leader: {}", leader.id)), "{head}");
    let warm: Capacity = serde_json::from_str(&body).unwrap();
    assert_eq!((warm.coordinator, warm.workers.len()), (follower.id.clone(), 1));

    leader.crash().await;
    let (next, took) = snapshots
        .until("snapshot of the other", |c| c.coordinator == follower.id)
        .await;
    println!("took over after {took:?} (JetStream: {jetstream})");
    assert!(took < TAKE_OVER + NOISE, "took over after {took:?}");
    assert_eq!(next.workers.len(), 1, "warm");
    let never = [EventKind::WorkerLost, EventKind::ModelVanished];
    let mut led = events.until(EventKind::LeaderChanged, &never).await;
    while led.coordinator != Some(follower.id.clone()) {
        led = events.until(EventKind::LeaderChanged, &never).await;
    }

    // A leader that stops in order hands over at once, which is never so fast after a crash. Three tries, because
    // the machine may be busy.
    let mut leader = follower;
    let mut quickest = Duration::MAX;
    for id in ["c", "d", "e"] {
        let next = Coordinator::start(&nats.url(), id).await;
        assert!(next.get("/capacity").await.0.starts_with("http/1.1 200"));
        assert_eq!(snapshots.next().await.coordinator, leader.id);
        let stopping = Instant::now();
        leader.stop().await;
        snapshots
            .until("snapshot of the next", |c| c.coordinator == next.id)
            .await;
        quickest = quickest.min(stopping.elapsed());
        leader = next;
    }
    println!("handed over after {quickest:?} (JetStream: {jetstream})");
    assert!(quickest < Duration::from_secs(1), "handed over after {quickest:?}");
    leader.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_other_takes_over_with_jetstream() {
    the_other_takes_over(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_other_takes_over_without_jetstream() {
    the_other_takes_over(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_nats_loses_nobody_with_or_without_jetstream_afterwards() {
    let mut nats = NatsServer::start(true).await;
    let client = nats.client().await;
    let _worker = Worker::start(&client, "w1");
    let mut snapshots = Snapshots::listen(&client).await;
    let mut events = Events::listen(&client).await;
    let (a, b) = (
        Coordinator::start(&nats.url(), "a").await,
        Coordinator::start(&nats.url(), "b").await,
    );
    snapshots.next().await;

    for jetstream in [true, false, true] {
        nats.kill().await;
        let away = soon("answer that NATS is away", async {
            loop {
                let (head, body) = a.get("/readyz").await;
                if head.starts_with("http/1.1 503") {
                    return body;
                }
            }
        })
        .await;
        assert!(away.contains("NATS is away"), "{away}");
        // Longer than a worker may be silent, but the coordinator was away itself.
        tokio::time::sleep(Duration::from_millis(3500)).await;
        nats.start_again(jetstream).await;
        let (capacity, took) = snapshots
            .until("snapshot after the restart", |c| !c.workers.is_empty())
            .await;
        println!("back after {took:?} (JetStream: {jetstream})");
        assert_eq!(capacity.workers[0].report.worker, name("w1"));
        // They agree on one of them again.
        let mut agreed = (capacity.coordinator, 0);
        while agreed.1 < 3 {
            let by = snapshots.next().await.coordinator;
            agreed = if by == agreed.0 { (by, agreed.1 + 1) } else { (by, 0) };
        }
        assert!(a.get("/readyz").await.0.starts_with("http/1.1 200"));
    }
    a.stop().await;
    b.stop().await;
    client.publish(subjects().event(), "end".into()).await.unwrap();
    let mut kinds = Vec::new();
    while let Some(event) = events.next_if_any().await {
        kinds.push(event.kind);
    }
    assert!(!kinds.contains(&EventKind::WorkerLost), "{kinds:?}");
    assert!(!kinds.contains(&EventKind::ModelVanished), "{kinds:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_waits_for_nats_and_says_so() {
    let mut nats = NatsServer::start(true).await;
    nats.kill().await;
    let coordinator = Coordinator::start(&nats.url(), "c").await;
    assert_eq!(coordinator.get("/healthz").await.1, "ok\n");
    let (head, body) = coordinator.get("/readyz").await;
    assert!(
        head.starts_with("http/1.1 503") && body.contains("NATS is away"),
        "{head}\n{body}"
    );
    let (head, body) = coordinator.get("/capacity").await;
    assert!(
        head.starts_with("http/1.1 503") && body.contains("NATS is away"),
        "{head}\n{body}"
    );
    nats.start_again(true).await;
    let client = nats.client().await;
    Snapshots::listen(&client).await.next().await;
    assert!(coordinator.get("/readyz").await.0.starts_with("http/1.1 200"));
    coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_on_its_subjects_is_counted_and_nothing_else() {
    let nats = NatsServer::start(false).await;
    let client = nats.client().await;
    let _worker = Worker::start(&client, "w1");
    let coordinator = Coordinator::start(&nats.url(), "c").await;
    assert!(coordinator.get("/capacity").await.0.starts_with("http/1.1 200"));
    assert_eq!(ask(&client).await.workers.len(), 1);
    let impostor = tokenbus_protocol::encode(&status("w2", 1)).unwrap();
    for payload in [vec![], vec![0x01], vec![0xff; 64], vec![0x01; 300 * 1024], impostor] {
        client
            .publish(subjects().status(&name("w1")), payload.into())
            .await
            .unwrap();
    }
    client
        .publish(subjects().coordinator(&name("x")), "x".into())
        .await
        .unwrap();
    client
        .publish(subjects().capacity_get(), "no reply subject".into())
        .await
        .unwrap();
    client.flush().await.unwrap();
    let capacity = ask(&client).await;
    assert_eq!(
        capacity
            .workers
            .iter()
            .map(|w| w.report.worker.as_str())
            .collect::<Vec<_>>(),
        ["w1"]
    );
    let counted = soon("seven malformed messages", async {
        loop {
            let (_, metrics) = coordinator.get("/metrics").await;
            if metrics.contains("tokenbus_coordinator_nats_malformed_total 7") {
                return metrics;
            }
        }
    })
    .await;
    for line in [
        "tokenbus_coordinator_leading 1",
        "tokenbus_coordinator_model_slots{model=\"m\"} 4",
        "tokenbus_coordinator_workers{state=\"ready\"} 1",
        "tokenbus_coordinator_nats_connected 1",
    ] {
        assert!(counted.lines().any(|l| l == line), "no {line} in\n{counted}");
    }
}

/// The series of a coordinator's metrics.
async fn series(coordinator: &Coordinator) -> BTreeSet<String> {
    let (_, page) = coordinator.get("/metrics").await;
    let lines = page.lines().filter(|line| !line.starts_with('#'));
    let series = lines.filter_map(|line| line.rsplit_once(' ')).map(|(series, _)| series);
    series.map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_worker_invents_makes_no_series_beyond_a_bound() {
    let nats = NatsServer::start(false).await;
    let client = nats.client().await;
    let coordinator = Coordinator::start(&nats.url(), "c").await;
    let serves = |models: &[String], seq: u64, text: &str| {
        let mut hostile = reporting(status("w1", seq), |report| {
            let model = report.models[0].clone();
            let named = |name: &String| tokenbus_protocol::ModelInfo {
                name: name.clone(),
                ..model.clone()
            };
            report.models.extend(models.iter().map(named));
            report.host = text.to_owned();
            report.engine = text.to_owned();
            report.version = text.to_owned();
        });
        hostile.loads = vec![tokenbus_protocol::ModelLoad {
            model: text.to_owned(),
            active: 1,
            queued: 0,
            tokens_per_second: 1.0,
        }];
        hostile
    };
    let mut snapshots = Snapshots::listen(&client).await;
    let is_told = |host: &'static str| {
        move |capacity: &Capacity| capacity.workers.iter().any(|worker| worker.report.host.ends_with(host))
    };
    // With its first snapshot, it hears.
    assert!(coordinator.get("/capacity").await.0.starts_with("http/1.1 200"));
    say(&client, &serves(&[], 1, "first")).await;
    snapshots.until("the worker", is_told("first")).await;
    let before = series(&coordinator).await;
    for seq in 2..40 {
        say(&client, &serves(&[], seq, &format!("made-up-{seq}"))).await;
    }
    say(&client, &serves(&[], 40, "last")).await;
    snapshots.until("the last word", is_told("last")).await;
    assert_eq!(series(&coordinator).await, before);
    // Models are labels. Those that a worker named and dropped are listed up to a bound.
    for seq in 41..60 {
        let models: Vec<String> = (0..20).map(|n| format!("made-up-{seq}-{n}")).collect();
        say(&client, &serves(&models, seq, "models")).await;
    }
    say(&client, &serves(&[], 60, "end")).await;
    snapshots.until("the end", is_told("end")).await;
    let models: BTreeSet<String> = series(&coordinator)
        .await
        .into_iter()
        .filter_map(|one| Some(one.split_once("model=\"")?.1.to_owned()))
        .collect();
    assert!(models.len() <= 33, "{}: {models:?}", models.len());
    coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_page_asks_for_its_token() {
    let nats = NatsServer::start(true).await;
    let page = PageAccess {
        token: PageToken::new("s3cret"),
        ..PageAccess::default()
    };
    let coordinator = Coordinator::with(&nats.url(), "c", page).await;
    for path in ["/metrics", "/capacity"] {
        for wrong in ["", "authorization: Bearer s3cre\r\n"] {
            let (head, body) = coordinator.get_with(path, wrong).await;
            assert!(head.starts_with("http/1.1 401"), "{head}");
            assert!(
                head.contains("www-authenticate: bearer") && !body.contains("tokenbus_"),
                "{head}\n{body}"
            );
        }
        let (head, _) = coordinator.get_with(path, "authorization: Bearer s3cret\r\n").await;
        assert!(head.starts_with("http/1.1 200"), "{path}: {head}");
        assert!(head.contains("x-content-type-options: nosniff"), "{head}");
    }
    assert_eq!(coordinator.get("/healthz").await.1, "ok\n");
    coordinator.stop().await;
}

/// Bytes of memory that this process has in use.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<usize>().unwrap() * 1024
}

#[tokio::test]
async fn connections_with_unfinished_heads_leave_the_status_page_answering_and_small() {
    let nats = NatsServer::start(false).await;
    let coordinator = Coordinator::start(&nats.url(), "c").await;
    assert_eq!(coordinator.get("/healthz").await.1, "ok\n");
    let before = resident();
    let unfinished = format!(
        "GET /metrics HTTP/1.1\r\nhost: 127.0.0.1\r\nx: {}",
        "y".repeat(12 * 1024)
    );
    // The clients keep only the newest: they share the limit on open files with the coordinator.
    let mut held = VecDeque::new();
    for _ in 0..1000 {
        let mut client = coordinator.connect().await;
        client.write_all(unfinished.as_bytes()).await.unwrap();
        held.push_back(client);
        if held.len() > 400 {
            held.pop_front();
        }
    }
    let begun = Instant::now();
    assert_eq!(coordinator.get("/healthz").await.1, "ok\n");
    assert!(begun.elapsed() < NOISE, "{:?}", begun.elapsed());
    let grown = resident().saturating_sub(before);
    assert!(grown < 16 << 20, "{grown} bytes for heads that never end");
    let is_open = |client: &TcpStream| {
        let read = client.try_read(&mut [0; 64]);
        read.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    };
    let open = held.iter().filter(|client| is_open(client)).count();
    assert!((1..=128).contains(&open), "{open} connections are open");

    // One connection cannot hold much more either.
    let mut client = coordinator.connect().await;
    let _ = client.write_all(unfinished.replace('y', "yyyy").as_bytes()).await;
    let _ = soon("end of the connection", client.read_to_end(&mut Vec::new())).await;
    coordinator.stop().await;
}
