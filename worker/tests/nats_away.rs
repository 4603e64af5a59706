//! The worker while NATS is away: it waits, comes back, and can still be stopped.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::time::Duration;

use common::{Gateway, Nats, Running, metric, sim, sim_text, status_until, subjects, within};
use tokenbus_protocol::{Resume, ResumeChoice, WorkerState};
use tokio::time::Instant;

const LONG: &str = r#"{"max_tokens":1000000}"#;

/// A server that has been, so that its port is free now.
async fn gone() -> String {
    Nats::start().await.kill().await
}

#[tokio::test]
async fn a_worker_that_comes_before_nats_is_ready_when_nats_is_there() {
    let url = gone().await;
    let here = Nats::start().await;
    let mut elsewhere = Running::begin(&here, "w1", sim(1, 0, 0), |options| {
        options.bus.urls = vec![url.clone()]
    })
    .await;
    let late = Nats::again(&url).await;
    assert!(within("ready worker", elsewhere.handle.ready()).await);
    let mut gateway = Gateway::start(&late, "g").await;
    gateway.send(&gateway.request(1, 0, r#"{"max_tokens":3}"#)).await;
    assert_eq!(gateway.ended(1, 0).await, "finish 3");
}

#[tokio::test]
async fn after_a_restart_of_nats_the_worker_serves_and_says_so_at_once() {
    let nats = Nats::start().await;
    let _worker = Running::start(&nats, "w1", sim(4, 0, 5)).await;
    let url = nats.kill().await;
    let nats = Nats::again(&url).await;
    let mut gateway = Gateway::start(&nats, "g").await;
    let mut statuses = gateway.client.subscribe(subjects().status_all()).await.unwrap();
    let status = status_until(&mut statuses, "status after the restart", |_| true).await;
    assert_eq!((status.report.state, status.report.active), (WorkerState::Ready, 0));
    gateway.send(&gateway.request(1, 0, r#"{"max_tokens":30}"#)).await;
    assert_eq!(gateway.ended(1, 0).await, "finish 30");
    assert_eq!(gateway.seen(1, 0).text, sim_text(0..30));
}

#[tokio::test]
async fn a_worker_can_be_stopped_while_nats_is_away() {
    let nats = Nats::start().await;
    let worker = Running::with(&nats, "w1", sim(4, 0, 5), |options| {
        options.grace = Duration::from_millis(100);
    })
    .await;
    let mut gateway = Gateway::start(&nats, "g").await;
    gateway.send(&gateway.request(1, 0, LONG)).await;
    gateway.accepted(1, 0).await;
    let _url = nats.kill().await;
    let before = Instant::now();
    worker.stopped().await;
    assert!(before.elapsed() < Duration::from_secs(12), "{:?}", before.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_nats_is_away_the_outbox_keeps_its_bound_and_streams_fail_rather_than_lose() {
    let nats = Nats::start().await;
    let worker = Running::with(&nats, "w1", sim(64, 0, 1), |options| options.outbox = 64 * 1024).await;
    let mut gateway = Gateway::start(&nats, "g").await;
    let mut registry = prometheus_client::registry::Registry::default();
    worker.handle.register(&mut registry);
    for stream in 1..=64 {
        gateway.send(&gateway.request(stream, 0, LONG)).await;
    }
    for stream in 1..=64 {
        gateway.accepted(stream, 0).await;
    }
    let url = nats.kill().await;
    // The engine goes on; every stream must meet the bound, and its slot come back.
    within("the end of all streams", async {
        while metric(&registry, "worker_outbox_overflows_total") < 64 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let nats = Nats::again(&url).await;
    let mut gateway = Gateway::start(&nats, "g2").await;
    let mut statuses = gateway.client.subscribe(subjects().status_all()).await.unwrap();
    let status = status_until(&mut statuses, "status after the restart", |_| true).await;
    assert_eq!((status.report.active, status.totals.failed), (0, 64));
    gateway.send(&gateway.request(100, 0, r#"{"max_tokens":30}"#)).await;
    assert_eq!(gateway.ended(100, 0).await, "finish 30");
    assert_eq!(gateway.rooms["w1"].free, 64);
}

/// A client stream over all its attempts.
#[derive(Default)]
struct Continued {
    attempt: u32,
    /// Of the attempts that were given up.
    text: String,
    tokens: u64,
    asked: Option<Instant>,
}

impl Continued {
    /// Looks at the attempt that runs; true when the stream is complete. A lost attempt is given up
    /// and the next one asked for, as a gateway does it.
    async fn follow(&mut self, stream: u64, gateway: &mut Gateway, body: &str) -> bool {
        const STALL: Duration = Duration::from_secs(2);
        let seen = gateway.seen(stream, self.attempt);
        if seen.is_ended() {
            assert!(seen.end().starts_with("finish"), "{stream}: {}", seen.end());
            return true;
        }
        let heard = seen.heard.max(self.asked);
        if self.asked.is_some() && !seen.broken && heard.is_some_and(|at| at.elapsed() < STALL) {
            return false;
        }
        let (text, tokens) = (seen.text.clone(), seen.tokens);
        if self.asked.replace(Instant::now()).is_some() {
            self.attempt += 1;
            self.text.push_str(&text);
            self.tokens += tokens;
        }
        let mut request = gateway.request(stream, self.attempt, body);
        request.floor = self.attempt;
        let (text, tokens) = (self.text.clone(), self.tokens);
        request.resume = (self.attempt > 0).then(|| Resume {
            choices: vec![ResumeChoice {
                text,
                tokens,
                ..ResumeChoice::default()
            }],
        });
        gateway.send(&request).await;
        false
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_lose_frames_in_a_restart_of_nats_go_on_in_the_slots_that_they_hold() {
    const STREAMS: u64 = 50;
    const TOKENS: u64 = 300;
    let nats = Nats::start().await;
    // Exactly as many slots as streams: a new attempt has only the slot of the one it replaces.
    let worker = Running::start(&nats, "w1", sim(50, 20, 10)).await;
    let slow_to_return = async_nats::ConnectOptions::new().reconnect_delay_callback(|_| Duration::from_millis(1500));
    let mut gateway = Gateway::on(slow_to_return.connect(&nats.url).await.unwrap(), "g").await;
    gateway.bears_holes = true;
    let body = format!(r#"{{"max_tokens":{TOKENS}}}"#);
    let mut streams: Vec<Continued> = (0..STREAMS).map(|_| Continued::default()).collect();
    for (stream, continued) in (1..).zip(&mut streams) {
        continued.follow(stream, &mut gateway, &body).await;
    }
    for stream in 1..=STREAMS {
        gateway.until(stream, 0, "tokens", |seen| seen.tokens > 20).await;
    }
    let nats = Nats::again(&nats.kill().await).await;
    let mut open: Vec<u64> = (1..=STREAMS).collect();
    within("the end of all streams", async {
        while !open.is_empty() {
            let _ = tokio::time::timeout(Duration::from_millis(100), gateway.read()).await;
            let mut left = Vec::new();
            for stream in open.drain(..) {
                let continued = &mut streams[usize::try_from(stream).unwrap() - 1];
                if !continued.follow(stream, &mut gateway, &body).await {
                    left.push(stream);
                }
            }
            open = left;
        }
    })
    .await;
    for (stream, continued) in (1..).zip(&streams) {
        let last = gateway.seen(stream, continued.attempt);
        assert!(
            format!("{}{}", continued.text, last.text) == sim_text(0..TOKENS),
            "stream {stream}: {}{}",
            continued.text,
            last.text
        );
    }
    let again = streams.iter().filter(|stream| stream.attempt > 0).count();
    assert!(again > 40, "{again} of {STREAMS} streams lost frames");
    let mut statuses = nats.client().await.subscribe(subjects().status_all()).await.unwrap();
    let idle = status_until(&mut statuses, "idle", |status| status.report.active == 0).await;
    assert_eq!(
        (idle.totals.rejected, idle.totals.failed),
        (0, 0),
        "no slot was missing"
    );
    worker.stopped().await;
}
