//! Clients that do not read, that all come at once, and that leave.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::print_stderr
)]

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use serde_json::json;
use tokenbus_protocol::{Status, decode};
use tokenbus_tests::ask::{ask, ask_for, sim_text, with};
use tokenbus_tests::chaos::{Setting, Stage};
use tokenbus_tests::load::{Expected, Failure, HANG, PROMPT_WORDS, Quantiles, exchange};
use tokenbus_tests::{Cluster, Gate, Role, Script, Upstream, eventually, within};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

const STREAMS: usize = 200;

/// Sends a request and reads nothing.
async fn sends_and_reads_nothing(gateway: SocketAddr, body: &serde_json::Value) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(16 * 1024).unwrap();
    let mut stream = within("a connection", socket.connect(gateway)).await.unwrap();
    let body = body.to_string();
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all((head + &body).as_bytes()).await.unwrap();
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_a_client_that_reads_nothing_is_cancelled_alone() {
    let mut stage = Stage::start().await;
    // As fast as it can, and of many choices: megabytes a second.
    let fast = Role::sim("fast", 4).args(&["--id", "fast"]).named("fast worker");
    stage.cluster.add_worker(fast).await;
    stage.cluster.lists("fast").await;
    let load = stage.load(STREAMS).start();
    load.flowing().await;
    let from = Instant::now();
    let mut body = with(ask_for("fast", 100_000), "stream", json!(true));
    body["n"] = json!(32);
    let mut slow = sends_and_reads_nothing(stage.gateways()[0], &body).await;
    let running = async |stage: &Stage| {
        let capacity = stage.capacity().await;
        let all = capacity["workers"].as_array().cloned().unwrap_or_default();
        let fast = all.iter().find(|worker| worker["worker"] == "fast").cloned();
        fast.and_then(|worker| worker["active"].as_u64())
    };
    // It has begun when something is there to be read; it may be over before any status tells of it.
    within("the slow client's answer to begin", slow.peek(&mut [0; 1]))
        .await
        .unwrap();
    eventually("the slow client's stream to be cancelled", async || {
        match running(&stage).await {
            Some(0) => Ok(()),
            other => Err(other),
        }
    })
    .await;
    let to = Instant::now();
    let report = load.finish().await;
    report.record("a client that reads nothing, beside it", from, to);
    report.assert_whole();
    // What it was sent ends visibly: an error event, or a connection that is not closed as HTTP
    // closes a whole body.
    let mut rest = Vec::new();
    let ended = async {
        while slow.read_buf(&mut rest).await.is_ok_and(|count| count > 0) {
            let tail = rest.len().saturating_sub(1024);
            if String::from_utf8_lossy(&rest[tail..]).contains("slow_client") {
                break;
            }
        }
    };
    within("the end of the slow client's answer", ended).await;
    let rest = String::from_utf8_lossy(&rest);
    assert!(!rest.contains("[DONE]") && !rest.contains("\"finish_reason\":\"length\""));
    stage.idle().await;
}

/// A stream that obeys `Retry-After`: how often it was told 429, and what came of it.
async fn obedient(gateway: SocketAddr, expected: &Expected) -> (usize, Result<(), Failure>) {
    for refused in 0..10 {
        let sample = exchange(gateway, "m", expected, HANG, || {}).await;
        match sample.result {
            Err(Failure::Status {
                status: 429,
                retry_after: Some(seconds),
                ..
            }) => tokio::time::sleep(Duration::from_secs(seconds)).await,
            result => return (refused, result),
        }
    }
    (10, Err(Failure::Hang))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_a_burst_of_ten_times_the_slots_waits_or_is_told_when_to_come_back() {
    let stage = Stage::start_with(Setting {
        slots: 20,
        gateway_args: vec!["--waiting", "150"],
        ..Setting::default()
    })
    .await;
    let text = sim_text(60).into();
    let expected = Expected::sim(&text, 60, PROMPT_WORDS);
    // The drain rate has to be known before a Retry-After can be right.
    let first = (0..60).map(|number| obedient(stage.gateways()[number % 2], &expected));
    assert!(
        join_all(first)
            .await
            .iter()
            .all(|(refused, result)| *refused == 0 && result.is_ok())
    );
    let burst = (0..600).map(|number| obedient(stage.gateways()[number % 2], &expected));
    let began = Instant::now();
    let ended = join_all(burst).await;
    let failed: Vec<_> = ended.iter().filter_map(|(_, result)| result.as_ref().err()).collect();
    assert!(failed.is_empty(), "{} failed, such as {}", failed.len(), failed[0]);
    let refused: Vec<usize> = ended
        .iter()
        .map(|(refused, _)| *refused)
        .filter(|refused| *refused > 0)
        .collect();
    let again = refused.iter().filter(|refused| **refused > 2).count();
    eprintln!(
        "measured {{\"scenario\":\"burst of 600 on 60 slots\",\"seconds\":{:.1},\"refused\":{},\"refused_three_times\":{again}}}",
        began.elapsed().as_secs_f64(),
        refused.len(),
    );
    assert!(
        !refused.is_empty(),
        "the waiting rooms have 300 places for 540 that must wait"
    );
    assert!(
        again * 10 <= refused.len(),
        "Retry-After does not prove right: {refused:?}"
    );
    stage.idle().await;
}

/// Takes in the workers' own word until none of them runs anything.
async fn all_say_that_they_are_idle(statuses: &mut async_nats::Subscriber, workers: usize) {
    let mut idle = HashSet::new();
    while idle.len() < workers {
        let message = within("a worker's status", statuses.next()).await.unwrap();
        let status: Status = decode(&message.payload).unwrap();
        if status.report.active == 0 {
            idle.insert(status.report.worker);
        } else {
            idle.remove(&status.report.worker);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_two_hundred_clients_that_leave_at_once_free_every_slot() {
    let stage = Stage::start().await;
    let bus = stage.cluster.nats.client().await;
    let load = stage.load(STREAMS).tokens(20_000).start();
    load.flowing().await;
    stage.active(STREAMS as u64).await;
    let mut statuses = bus.subscribe("tb.v1.status.*").await.unwrap();
    // One round of them: the subscription is known, and what follows is new.
    let _ = within("a worker's status", statuses.next()).await;
    let left = Instant::now();
    drop(load);
    all_say_that_they_are_idle(&mut statuses, 3).await;
    let freed = left.elapsed();
    eprintln!(
        "measured {{\"scenario\":\"200 clients leave: every slot is free\",\"ms\":{}}}",
        freed.as_millis()
    );
    // The workers say so at once; what a busy machine adds is no leak.
    assert!(freed < Duration::from_secs(5), "freed after {freed:?}");
    stage.idle().await;
}

/// Where a client leaves.
#[derive(Debug, Clone, Copy)]
enum Phase {
    Prefill,
    MidStream,
    Unary,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_frees_the_engine_at_once_in_every_phase() {
    let upstream = Upstream::start(&["m"]).await;
    let cluster = Cluster::plan().worker(Role::proxy(&upstream, 4)).start().await;
    let never = Gate::new();
    for phase in [Phase::Prefill, Phase::MidStream, Phase::Unary] {
        let mut times = Vec::new();
        for _ in 0..20 {
            let number = upstream.requests().len();
            let script = match phase {
                Phase::Prefill => Script::stream().after(&never),
                Phase::MidStream | Phase::Unary => Script::stream().role().text("Half an ").gate(&never),
            };
            upstream.next(script);
            let body = with(ask("m"), "stream", json!(!matches!(phase, Phase::Unary)));
            let client = cluster.client();
            let asking = tokio::spawn(async move { client.chat(&body).await });
            let exchange = upstream.request(number).await;
            let left = if matches!(phase, Phase::MidStream) {
                asking.abort();
                let _ = asking.await;
                Instant::now()
            } else {
                let left = Instant::now();
                asking.abort();
                left
            };
            times.push(exchange.abandoned().await.duration_since(left));
        }
        upstream.wait_running(0).await;
        let times = Quantiles::of(times);
        eprintln!(
            "measured {{\"scenario\":\"client leaves: {phase:?}\",\"p50_ms\":{:.1},\"max_ms\":{:.1}}}",
            times.p50.as_secs_f64() * 1e3,
            times.max.as_secs_f64() * 1e3
        );
        // 100 ms is promised; one late wake-up of a busy machine is no broken promise.
        assert!(times.p50 < Duration::from_millis(100), "{phase:?}: {times:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_the_queue_never_reaches_an_engine() {
    let upstream = Upstream::start(&["m"]).await;
    let cluster = Cluster::plan().worker(Role::proxy(&upstream, 1)).start().await;
    let client = cluster.client();
    let gate = Gate::new();
    upstream.next(Script::texts(&["first"]).after(&gate));
    let body = with(ask("m"), "stream", json!(true));
    let first = {
        let body = body.clone();
        tokio::spawn(async move { client.transcript(&body).await })
    };
    upstream.wait_running(1).await;
    let waiting: Vec<_> = (0..10)
        .map(|_| {
            let body = body.clone();
            tokio::spawn(async move { client.chat(&body).await })
        })
        .collect();
    let waits = async |count: f64| {
        eventually(&format!("{count} requests to wait"), async || {
            let samples = tokenbus_tests::metrics::parse(&client.get("/metrics").await.text());
            let seen = tokenbus_tests::metrics::sum(&samples, "tokenbus_gateway_requests_waiting", &[]);
            if (seen - count).abs() < f64::EPSILON {
                Ok(())
            } else {
                Err(seen)
            }
        })
        .await;
    };
    waits(10.0).await;
    for one in &waiting {
        one.abort();
    }
    waits(0.0).await;
    gate.open();
    assert_eq!(within("the first answer", first).await.unwrap().text(), "first");
    // The next request is served at once, and nothing of those that left was run.
    assert_eq!(client.chat(&ask("m")).await.content(), "Hello world");
    assert_eq!(upstream.requests().len(), 2);
}
