//! Faults that add up over a stream's life, and a bus that does not come back.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods
)]

use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use tokenbus_tests::ask::{ask_for, sim_text};
use tokenbus_tests::chaos::{Setting, Stage};
use tokenbus_tests::sse_client::{Sse, Transcript};
use tokenbus_tests::wait::within_time;
use tokenbus_tests::{Client, Cluster, Role};

/// Longer than any of these streams takes with all of its pauses.
const LIMIT: Duration = Duration::from_secs(110);

async fn begin(client: Client, tokens: u64) -> Sse {
    let mut stream = client.stream(&ask_for("m", tokens)).await;
    assert_eq!(stream.text().await, "t0 ");
    stream
}

fn check(transcript: &Transcript, tokens: u64) {
    assert_eq!(transcript.error(), None);
    assert_eq!(format!("t0 {}", transcript.text()), sim_text(tokens));
    assert!(transcript.done());
    let usage = transcript.usage();
    assert!(
        usage.is_none_or(|usage| usage["completion_tokens"] == tokens),
        "{usage:?}"
    );
}

/// Waits until each stream has said `more` more texts, so that all of them have made progress.
async fn progress(streams: &mut [Sse], texts: &mut [String], more: usize) {
    let reads = streams.iter_mut().zip(texts).map(|(stream, text)| async move {
        for _ in 0..more {
            text.push_str(&stream.text().await);
        }
    });
    join_all(reads).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_a_long_stream_survives_any_number_of_lost_workers() {
    let mut stage = Stage::start_with(Setting {
        workers: 2,
        slots: 20,
        ..Setting::default()
    })
    .await;
    let tokens = 2_000;
    let client = stage.cluster.client();
    let mut streams = join_all((0..10).map(|_| begin(client, tokens))).await;
    let mut texts = vec![String::from("t0 "); streams.len()];
    // In turn, so that whoever is lost has somebody to go to: each stream loses its worker in most of the rounds.
    for round in 0..10 {
        stage.kill_worker(round % 2).await;
        progress(&mut streams, &mut texts, 20).await;
        stage.start_worker(round % 2).await;
        stage.settled().await;
    }
    let rest = within_time(LIMIT, "the streams", join_all(streams.into_iter().map(Sse::transcript))).await;
    for (text, transcript) in texts.into_iter().zip(rest) {
        assert_eq!(transcript.error(), None);
        assert_eq!(text + &transcript.text(), sim_text(tokens));
        assert!(transcript.done());
    }
    let lost = stage.gateway_metric("tokenbus_gateway_republishes_total").await;
    assert!(lost >= 50.0, "{lost} moves of 10 streams");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_streams_survive_a_bus_that_comes_and_goes() {
    let mut stage = Stage::start_with(Setting {
        slots: 40,
        itl: "50ms",
        ..Setting::default()
    })
    .await;
    let tokens = 600;
    let client = stage.cluster.client();
    let long = join_all((0..10).map(|_| begin(client, tokens))).await;
    let long = tokio::spawn(join_all(long.into_iter().map(Sse::transcript)));
    let others = stage.gateways().to_vec();
    // Short ones are asked for all the time: they meet the bus in every state.
    let (stop, mut stopped) = tokio::sync::watch::channel(false);
    let (count, mut counted) = tokio::sync::watch::channel(0);
    let short = tokio::spawn(async move {
        let mut running = FuturesUnordered::new();
        let mut done = Vec::new();
        let ask = |n: usize| {
            let client = Client::new(others[n % others.len()]);
            async move { client.transcript(&ask_for("m", 20)).await }
        };
        for n in 0..8 {
            running.push(ask(n));
        }
        loop {
            tokio::select! {
                Some(one) = running.next() => {
                    done.push(one);
                    count.send_replace(done.len());
                    if !*stopped.borrow() {
                        running.push(ask(done.len()));
                    } else if running.is_empty() {
                        return done;
                    }
                }
                _ = stopped.changed() => {}
            }
        }
    });
    for round in 0..8 {
        stage.cluster.nats.kill().await;
        // Shorter and longer than roles take to try again.
        tokio::time::sleep(Duration::from_millis(700)).await;
        let before = *counted.borrow_and_update();
        stage.cluster.nats.start_again().await;
        // In turn right after the bus is back, and when answers flow again.
        if round % 2 == 0 {
            let more = counted.wait_for(|count| *count >= before + 8);
            within_time(LIMIT, "answers after the bus is back", more).await.unwrap();
        }
    }
    stop.send_replace(true);
    let short = within_time(LIMIT, "the short streams", short).await.unwrap();
    assert!(short.len() > 8, "{}", short.len());
    for transcript in &short {
        assert_eq!(transcript.whole(), sim_text(20));
    }
    let long = within_time(LIMIT, "the long streams", long).await.unwrap();
    for transcript in &long {
        check(transcript, tokens);
    }
    stage.idle().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_a_bus_that_stays_away_is_told_to_what_is_new_and_waited_for_by_what_runs() {
    let plan = Cluster::plan()
        .gateway_args(&["--bus-patience", "3s"])
        .worker(Role::sim("m", 4).pace("0ms", "50ms"));
    let mut cluster = plan.start().await;
    let client = cluster.client();
    let running = begin(client, 100).await;
    let running = tokio::spawn(running.transcript());
    cluster.nats.kill().await;
    tokenbus_tests::eventually("the gateway to notice", async || {
        let status = client.get("/readyz").await.status;
        if status == 503 { Ok(()) } else { Err(status) }
    })
    .await;
    for stream in [false, true] {
        let asked = Instant::now();
        let answer = if stream {
            client.stream(&ask_for("m", 3)).await.response.collect().await
        } else {
            client.chat(&ask_for("m", 3)).await
        };
        assert_eq!(answer.error(503)["code"], "bus_unavailable");
        answer.retry_after();
        assert!(asked.elapsed() >= Duration::from_secs(3), "{:?}", asked.elapsed());
        assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
    }
    cluster.nats.start_again().await;
    cluster.settled().await;
    check(&within_time(LIMIT, "the stream that ran", running).await.unwrap(), 100);
    assert_eq!(client.chat(&ask_for("m", 3)).await.content(), sim_text(3));
}
