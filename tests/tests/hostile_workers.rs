//! A worker is trusted with its own work only: what it says of others, or of streams that were not given to it, counts
//! for nothing.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods
)]

use std::time::{Duration, Instant};

use async_nats::Client as Bus;
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::join_all;
use serde::Serialize;
use tokenbus_protocol::{
    Accepted, Alive, BatchWriter, Body, Control, ControlReply, EngineError, ErrorCode, Frame, FreeHint, Held,
    HeldStream, Name, Pong, Reject, RejectReason, Room, WorkerState, decode, encode,
};
use tokenbus_tests::ask::{ask, ask_for, sim_text};
use tokenbus_tests::fake_worker::{FakeWorker, finish, last, room, round_trip, text};
use tokenbus_tests::{Cluster, NatsServer, Role, eventually, within};
use uuid::Uuid;

/// Streams that the intruder tries to take over.
const STREAMS: u64 = 20;

/// Tokens of each of them.
const TOKENS: u64 = 40;

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// A worker with a model of its own, which wants those of others.
struct Intruder {
    worker: FakeWorker,
    /// The gateway, and the number of the last stream that it gave to the intruder.
    gateway: Name,
    stream: u64,
}

impl Intruder {
    /// Joins, and learns from a request of its own how the gateway names itself and its streams.
    async fn join(cluster: &Cluster) -> Self {
        let mut worker = FakeWorker::join(&cluster.nats, "intruder", "bait").await;
        let client = cluster.client();
        let asked = tokio::spawn(async move { client.chat(&ask("bait")).await });
        let taken = worker.next_request().await;
        let whole = vec![
            (0, worker.accepted(&taken, false)),
            (1, text("own")),
            (2, last("stop")),
            (3, finish()),
        ];
        worker.send(&taken, whole).await;
        assert_eq!(within("its own answer", asked).await.unwrap().content(), "own");
        Self {
            worker,
            gateway: taken.gateway,
            stream: taken.stream,
        }
    }

    /// Says everything that a worker can say of a stream, in its own name and in that of `victim`.
    fn claims(&self, stream: u64, attempt: u32, victim: &str) -> Vec<Frame<'static>> {
        let reject = |reason, worker: &str, id| Reject {
            reason,
            worker: name(worker),
            room: Room {
                free: 9,
                queued: 0,
                pending: None,
            },
            message: "evil".to_owned(),
            retry_after_ms: None,
            id,
        };
        let error = EngineError {
            code: ErrorCode::BadRequest,
            message: "evil".to_owned(),
            param: None,
            engine_code: None,
            retryable: false,
            retry_after_ms: None,
        };
        let held = |streams| {
            Body::Held(Held {
                instance: u64::from(attempt) + 70,
                streams,
            })
        };
        let held_here = HeldStream {
            stream,
            attempt,
            next_seq: 1000,
        };
        let mut bodies = Vec::new();
        for worker in ["intruder", victim] {
            bodies.extend([
                Body::Accepted(Accepted {
                    id: Uuid::now_v7(),
                    worker: name(worker),
                    instance: 9,
                    queue_position: 0,
                    resumable: true,
                }),
                Body::Reject(reject(RejectReason::Unsupported, worker, None)),
                Body::Reject(reject(RejectReason::Unsupported, worker, Some(Uuid::now_v7()))),
            ]);
        }
        bodies.extend([
            held(Vec::new()),
            held(vec![held_here]),
            Body::Alive(Alive::default()),
            text("evil"),
            last("stop"),
            finish(),
            Body::Error(error),
        ]);
        let numbered = (0..).zip(bodies);
        numbered
            .flat_map(|(seq, body)| {
                [0, seq].map(|seq| Frame {
                    stream,
                    attempt,
                    seq,
                    body: body.clone(),
                })
            })
            .collect()
    }

    /// Sends all that for the next streams of the gateway, and false replies and hints of `victim`.
    async fn attack(&self, victim: &str) {
        let bus = &self.worker.client;
        let out = format!("tb.v1.out.{}.intruder", self.gateway);
        for stream in self.stream + 1..=self.stream + STREAMS {
            for attempt in 0..3 {
                send(bus, &out, self.claims(stream, attempt, victim)).await;
            }
        }
        let hint = |worker: &str, free| FreeHint {
            worker: name(worker),
            room: room(free),
        };
        for (subject, said) in [("intruder", victim), ("intruder", "intruder")] {
            say(bus, &format!("tb.v1.free.m.{subject}"), &hint(said, 0)).await;
        }
        let pong = ControlReply::Pong(Pong {
            worker: name(victim),
            instance: 666,
            state: WorkerState::Ready,
            room: room(0),
        });
        for number in 0..50 {
            say(bus, &format!("tb.v1.out.{}.-0-{number}", self.gateway), &pong).await;
        }
        bus.flush().await.unwrap();
    }
}

async fn say<T: Serialize>(bus: &Bus, subject: &str, message: &T) {
    let bytes = encode(message).unwrap();
    bus.publish(subject.to_owned(), bytes.into()).await.unwrap();
}

async fn send(bus: &Bus, subject: &str, frames: Vec<Frame<'_>>) {
    let mut batch = BatchWriter::new();
    for frame in frames {
        if let Some(full) = batch.push(&frame).unwrap() {
            bus.publish(subject.to_owned(), full.into()).await.unwrap();
        }
    }
    if let Some(rest) = batch.seal() {
        bus.publish(subject.to_owned(), rest.into()).await.unwrap();
    }
}

/// Attacks while streams begin and run: every answer is the worker's, and none ends early.
async fn answers_are_the_workers(coordinators: usize) {
    let worker = Role::sim("m", 32).args(&["--id", "victim"]).pace("200ms", "20ms");
    let cluster = Cluster::plan().coordinators(coordinators).worker(worker).start().await;
    let mut intruder = Intruder::join(&cluster).await;
    let clients = (0..STREAMS).map(|n| {
        let client = cluster.client();
        let body = ask_for("m", TOKENS);
        async move {
            if n % 2 == 0 {
                client.chat(&body).await.content()
            } else {
                client.transcript(&body).await.text()
            }
        }
    });
    let asked = tokio::spawn(join_all(clients.collect::<Vec<_>>()));
    while !asked.is_finished() {
        intruder.attack("victim").await;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for answer in asked.await.unwrap() {
        assert_eq!(answer, sim_text(TOKENS));
    }
    // It heard nothing of others' requests: each id that it was told is one that it made up.
    let mut told = Vec::new();
    let heard = async {
        loop {
            told.push(intruder.worker.next_control().await);
        }
    };
    let _ = tokio::time::timeout(Duration::from_millis(500), heard).await;
    let disowned = told.iter().filter(|control| matches!(control, Control::Disown(_)));
    assert!(disowned.count() > 0, "who sends frames that nobody reads is told so");
}

#[tokio::test]
async fn an_intruder_answers_no_directed_request() {
    answers_are_the_workers(1).await;
}

#[tokio::test]
async fn an_intruder_answers_no_request_of_a_queue_subject() {
    answers_are_the_workers(0).await;
}

#[tokio::test]
async fn a_flood_of_frames_ends_no_stream_and_silences_its_sender_only() {
    let worker = Role::sim("m", 8).args(&["--id", "victim"]).pace("100ms", "20ms");
    let cluster = Cluster::plan().worker(worker).start().await;
    let intruder = Intruder::join(&cluster).await;
    let client = cluster.client();
    let body = ask_for("m", 100);
    let asked = tokio::spawn(async move {
        let streams = (0..8).map(|_| client.transcript(&body));
        join_all(streams).await
    });
    eventually("the streams run", async || match cluster.active().await {
        8 => Ok(()),
        active => Err(active),
    })
    .await;
    // As many lists of streams as fit in one message.
    let list = Frame {
        stream: 0,
        attempt: 0,
        seq: 0,
        body: Body::Held(Held {
            instance: 1,
            streams: Vec::new(),
        }),
    };
    let out = format!("tb.v1.out.{}.intruder", intruder.gateway);
    let bus = intruder.worker.client.clone();
    for _ in 0..40 {
        send(&bus, &out, vec![list.clone(); 15_000]).await;
    }
    round_trip(&bus).await;
    for answer in within("the answers", asked).await.unwrap() {
        assert_eq!(answer.text(), sim_text(100));
    }
    let gateway = cluster.gateways[0].logs().lines();
    assert!(
        gateway
            .iter()
            .any(|line| line.contains("not heard") && line.contains("intruder"))
    );
}

#[tokio::test]
async fn a_worker_that_says_it_has_room_and_refuses_is_asked_ever_less_often() {
    let cluster = Cluster::plan().coordinators(0).start().await;
    let mut liar = FakeWorker::join(&cluster.nats, "liar", "m").await;
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let client = cluster.client();
            tokio::spawn(async move { client.chat(&ask("m")).await })
        })
        .collect();
    let (begun, mut asked) = (Instant::now(), 0);
    let time = Duration::from_secs(5);
    let lies = async {
        loop {
            let taken = liar.next_request().await;
            asked += 1;
            let reject = Reject {
                reason: RejectReason::Busy,
                worker: liar.name().clone(),
                room: room(9),
                message: String::new(),
                retry_after_ms: None,
                id: Some(taken.id),
            };
            liar.send(&taken, vec![(0, Body::Reject(reject))]).await;
            let hint = FreeHint {
                worker: liar.name().clone(),
                room: room(9),
            };
            say(&liar.client, "tb.v1.free.m.liar", &hint).await;
        }
    };
    let _ = tokio::time::timeout(time, lies).await;
    assert!(asked < 100, "{asked} requests in {:?}", begun.elapsed());
    for client in clients {
        client.abort();
    }
}

#[tokio::test]
async fn replies_are_sent_to_inboxes_only() {
    let cluster = Cluster::plan()
        .worker(Role::sim("m", 1).args(&["--id", "w"]))
        .start()
        .await;
    let bus = cluster.nats.client().await;
    let mut elsewhere = bus.subscribe("elsewhere.>").await.unwrap();
    round_trip(&bus).await;
    let ping = encode(&Control::Ping(tokenbus_protocol::Ping {})).unwrap();
    let garbage = vec![1, 2, 3];
    let questions = [
        ("$SRV.PING", Vec::new()),
        ("$SRV.INFO", Vec::new()),
        ("$SRV.STATS", Vec::new()),
        ("tb.v1.capacity.get", Vec::new()),
        ("tb.v1.ctl.w", ping),
        ("tb.v1.ctl.w", garbage),
    ];
    for (subject, question) in &questions {
        let question = Bytes::from(question.clone());
        let answer = bus.request(*subject, question.clone());
        within(subject, answer).await.expect("an inbox is answered");
        bus.publish_with_reply(*subject, "elsewhere.x", question).await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    round_trip(&bus).await;
    let mut came = Vec::new();
    while let Ok(Some(message)) = tokio::time::timeout(Duration::from_millis(200), elsewhere.next()).await {
        came.push(message.payload);
    }
    assert!(came.is_empty(), "{came:?}");
}

#[tokio::test]
async fn a_gateways_ping_is_answered_by_the_worker_it_asks() {
    // A worker answers where gateways wait for replies, so silence is told from a lost worker.
    let nats = NatsServer::start().await;
    let worker = Role::sim("m", 1).args(&["--id", "w"]).start(&nats.url()).await;
    let bus = nats.client().await;
    let mut replies = bus.subscribe("tb.v1.out.g.*").await.unwrap();
    let ping = encode(&Control::Ping(tokenbus_protocol::Ping {})).unwrap();
    bus.publish_with_reply("tb.v1.ctl.w", "tb.v1.out.g.-0-7", ping.into())
        .await
        .unwrap();
    let reply = within("a pong", replies.next()).await.unwrap();
    let pong: ControlReply = decode(&reply.payload).unwrap();
    assert!(matches!(pong, ControlReply::Pong(pong) if pong.worker == name("w")));
    drop(worker);
}
