//! Real runs against a real HTTP server on loopback.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod floor;
mod http2;
mod server;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use clap::Parser;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::server::Server;
use super::args::Args;
use super::budget::Budget;
use super::check::{Level, Rules};
use super::conn::Connector;
use super::error::Error;
use super::exchange::Plan;
use super::load::{LoadThread, Phase, ProgressCounts, Shape};
use super::report::Report;
use super::run::make;
use super::target::{Target, body};

#[derive(Debug, Parser)]
struct Cli {
    #[command(flatten)]
    args: Args,
}

impl Server {
    async fn bench(&self, flags: &str) -> Result<Report, Error> {
        let line = format!("bench --url http://{}/v1 {flags}", self.address);
        make(&Cli::try_parse_from(line.split_whitespace()).unwrap().args).await
    }

    async fn json(&self, flags: &str) -> Value {
        serde_json::to_value(self.bench(flags).await.unwrap()).unwrap()
    }
}

fn failures(json: &Value) -> BTreeMap<String, u64> {
    let lines = json["failures"].as_array().unwrap().iter();
    let name = |l: &Value| format!("{} {}", l["kind"].as_str().unwrap(), l["code"].as_str().unwrap());
    lines
        .map(|l| (name(l).trim().to_owned(), l["count"].as_u64().unwrap()))
        .collect()
}

#[tokio::test]
async fn a_good_server_is_measured() {
    let server = Server::start().await;
    let json = server
        .json("--model good --concurrency 8 --requests 100 --max-tokens 11 --warmup 8")
        .await;
    assert_eq!(json["load"]["check"], "sim");
    assert_eq!(failures(&json), BTreeMap::new());
    assert_eq!(
        (
            json["requests"]["succeeded"].as_u64(),
            json["requests"]["failed"].as_u64()
        ),
        (Some(100), Some(0))
    );
    assert_eq!(json["tokens"]["received"], 1100);
    for latency in ["ttft", "tpot", "total"] {
        assert_eq!(json["latency"][latency]["samples"], 100, "{latency}");
    }
    // One for the probe, and no more than asked for the load: connections are used again.
    let connections = server.connections.load(Ordering::Relaxed);
    assert!((2..=9).contains(&connections), "{connections} connections");
}

#[tokio::test]
async fn several_threads_share_the_load() {
    let server = Server::start().await;
    let json = server
        .json("--model good --concurrency 5 --threads 3 --requests 60 --max-tokens 5")
        .await;
    assert_eq!(
        (json["load"]["threads"].as_u64(), json["tokens"]["received"].as_u64()),
        (Some(3), Some(300))
    );
    assert_eq!(failures(&json), BTreeMap::new());
}

#[tokio::test]
async fn answers_without_a_stream_are_checked_too() {
    let server = Server::start().await;
    let json = server
        .json("--model good --stream false --requests 10 --concurrency 2 --max-tokens 5")
        .await;
    assert_eq!(
        (json["load"]["check"].as_str(), json["tokens"]["received"].as_u64()),
        (Some("sim"), Some(50))
    );
    assert_eq!(
        (&json["latency"]["ttft"], json["latency"]["total"]["samples"].as_u64()),
        (&Value::Null, Some(10))
    );
    assert_eq!(failures(&json), BTreeMap::new());
}

#[tokio::test]
async fn unusual_but_right_answers_pass() {
    let server = Server::start().await;
    for model in ["crlf-in-crumbs", "one-off", "halves"] {
        let flags = format!("--model {model} --check sim --concurrency 2 --requests 6 --max-tokens 12");
        let json = server.json(&flags).await;
        assert_eq!(failures(&json), BTreeMap::new(), "{model}");
        assert_eq!(json["tokens"]["received"], 72, "{model}");
    }
}

#[tokio::test]
async fn each_broken_answer_is_counted_as_what_it_is() {
    let server = Server::start().await;
    for (model, failure) in [
        ("truncated", "truncated"),
        ("broken", "truncated UnexpectedEof"),
        ("closed", "closed"),
        ("wrong-text", "wrong_text"),
        ("double-finish", "finish_twice"),
        ("no-done", "missing_done"),
        ("no-role", "missing_role"),
        ("no-usage", "missing_usage"),
        ("error", "error_event worker_lost"),
        ("malformed", "malformed"),
        ("full", "status 429 busy"),
        ("crash", "status 500"),
        ("page", "content_type"),
    ] {
        let flags = format!("--model {model} --check sim --concurrency 2 --requests 7 --max-tokens 5");
        let json = server.json(&flags).await;
        assert_eq!(failures(&json), BTreeMap::from([(failure.to_owned(), 7)]), "{model}");
        assert_eq!(
            (
                json["requests"]["succeeded"].as_u64(),
                json["requests"]["failed"].as_u64()
            ),
            (Some(0), Some(7))
        );
    }
}

#[tokio::test]
async fn a_reset_in_the_middle_is_told_from_an_end() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    let mut served = JoinSet::new();
    served.spawn(async move {
        let (mut tcp, _) = listener.accept().await.unwrap();
        assert!(tcp.read(&mut [0; 4096]).await.unwrap() > 0);
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
        tcp.write_all(head.as_bytes()).await.unwrap();
        tcp.write_all(b"8\r\n: open\n\n\r\n").await.unwrap();
        tcp.set_zero_linger().unwrap();
    });
    let line = format!("b --url {url} --model m --check stream --concurrency 1 --requests 1");
    let report = make(&Cli::try_parse_from(line.split(' ')).unwrap().args).await.unwrap();
    served.join_next().await.unwrap().unwrap();
    let json = serde_json::to_value(report).unwrap();
    assert_eq!(
        failures(&json),
        BTreeMap::from([("reset ConnectionReset".to_owned(), 1)])
    );
}

#[tokio::test]
async fn a_silent_server_is_a_timeout_and_says_where() {
    let server = Server::start().await;
    let json = server
        .json("--model hang --check sim --concurrency 2 --requests 2 --timeout 2s")
        .await;
    assert_eq!(failures(&json), BTreeMap::from([("timeout body".to_owned(), 2)]));
    assert!(
        json["tokens"]["received"].as_u64().unwrap() > 0,
        "what came before counts"
    );
}

#[tokio::test]
async fn nobody_there_is_said_before_the_run_or_counted_in_it() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let run = |check: &str| {
        let line = format!("b --url http://{free}/v1 --model m --requests 3 --concurrency 1 --check {check}");
        async move { make(&Cli::try_parse_from(line.split(' ')).unwrap().args).await }
    };
    let refused = run("auto").await;
    assert!(
        matches!(&refused, Err(Error::Probe(why)) if why.starts_with("connect ConnectionRefused")),
        "{refused:?}"
    );
    let json = serde_json::to_value(run("off").await.unwrap()).unwrap();
    assert_eq!(
        failures(&json),
        BTreeMap::from([("connect ConnectionRefused".to_owned(), 3)])
    );
}

#[tokio::test]
async fn gaps_are_measured_from_arrival_to_arrival() {
    let server = Server::start().await;
    let json = server
        .json("--model paced --check sim --concurrency 1 --requests 2 --max-tokens 20")
        .await;
    // Tokens that a busy machine reads together are one arrival, and the gap after a late one is shorter.
    let (gaps, arrivals) = (&json["latency"]["itl"]["samples"], &json["tokens"]["arrivals"]);
    let arrivals = arrivals.as_u64().unwrap();
    assert!(
        (20..=40).contains(&arrivals) && gaps.as_u64() == Some(arrivals - 2),
        "{json}"
    );
    assert!(json["latency"]["itl"]["p50_us"].as_u64().unwrap() >= 5_000, "{json}");
    assert!(json["latency"]["ttft"]["p50_us"].as_u64().unwrap() >= 18_000, "{json}");
    assert!(json["latency"]["tpot"]["p50_us"].as_u64().unwrap() >= 5_000, "{json}");
}

#[tokio::test]
async fn the_first_gaps_can_be_left_out() {
    let server = Server::start().await;
    for settle in [0, 1, 18, 19] {
        let flags = format!("--model paced --check sim --concurrency 1 --requests 1 --max-tokens 20 --settle {settle}");
        let json = server.json(&flags).await;
        // Tokens that a busy machine reads together are one arrival.
        let arrivals = json["tokens"]["arrivals"].as_u64().unwrap();
        let left = arrivals.checked_sub(1 + settle).filter(|left| *left > 0);
        assert!((10..=20).contains(&arrivals), "{json}");
        assert_eq!(
            json["latency"]["itl"]["samples"].as_u64(),
            left,
            "{settle} of {arrivals}"
        );
    }
}

#[tokio::test]
async fn an_open_loop_charges_the_wait_to_the_server() {
    let server = Server::start().await;
    let flags =
        "--model slow --check sim --rate 200 --arrivals constant --max-in-flight 1 --requests 10 --max-tokens 2";
    let json = server.json(flags).await;
    assert_eq!(
        (json["load"]["mode"].as_str(), json["requests"]["succeeded"].as_u64()),
        (Some("open"), Some(10))
    );
    // Each answer takes 50 ms and one is due every 5 ms: the last is due at 45 ms and ends after 500 ms.
    let [last, late] = ["total", "start_delay"].map(|l| json["latency"][l]["max_us"].as_u64().unwrap());
    assert!(last >= 440_000 && late >= 390_000, "{last} {late}");
    let free = server
        .json("--model slow --check sim --rate 200 --requests 10 --max-tokens 2")
        .await;
    assert!(free["latency"]["total"]["p50_us"].as_u64().unwrap() < 400_000, "{free}");
}

#[tokio::test]
async fn a_run_ends_when_its_time_is_up() {
    let server = Server::start().await;
    let json = server
        .json("--model slow --check sim --concurrency 2 --duration 300ms --max-tokens 2")
        .await;
    let elapsed = json["elapsed_seconds"].as_f64().unwrap();
    assert!((0.3..5.0).contains(&elapsed), "{elapsed}");
    assert!(json["requests"]["succeeded"].as_u64().unwrap() >= 2, "{json}");
    assert_eq!(failures(&json), BTreeMap::new());
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn named_processes_are_measured() {
    let server = Server::start().await;
    let own = std::process::id();
    let json = server
        .json(&format!("--model good --requests 50 --concurrency 2 --pid me={own}"))
        .await;
    assert_eq!(
        (json["processes"][0]["name"].as_str(), &json["processes"][0]["pids"]),
        (Some("me"), &json!([own]))
    );
    assert!(json["processes"][0]["peak_memory_bytes"].as_u64().unwrap() > 0);
    assert!(json["bench"]["cpu_us_per_token"].as_f64().unwrap() > 0.0, "{json}");
    assert!(matches!(
        server.bench("--model good --pid x=4194305").await,
        Err(Error::Process(_))
    ));
}

#[tokio::test]
async fn a_second_interrupt_cuts_off_what_is_under_way() {
    let server = Server::start().await;
    let line = format!("b --url http://{}/v1 --model hang", server.address);
    let args = Cli::try_parse_from(line.split(' ')).unwrap().args;
    let rules = Rules {
        level: Level::Sim,
        usage: true,
        max_tokens: 5,
    };
    let target = Arc::new(Target::new(&args).await.unwrap());
    let plan = Plan {
        request: target.request(body(&args, 5)),
        rules,
        stream: true,
        timeout: args.timeout,
        settle: 0,
    };
    let thread = LoadThread::start(
        Connector::new(target, None, None),
        plan,
        Shape::Closed { connections: 2 },
    )
    .unwrap();
    let (cut, live) = (CancellationToken::new(), Arc::new(ProgressCounts::default()));
    let phase = Phase {
        budget: Arc::new(Budget::new(None, None)),
        cut: cut.clone(),
        live,
    };
    let cut_when_both_asked = async {
        server.asked(2).await;
        phase.budget.stop();
        cut.cancel();
    };
    let (stats, ()) = tokio::join!(thread.run(phase.clone()), cut_when_both_asked);
    let stats = stats.unwrap();
    assert_eq!((stats.started, stats.succeeded, stats.failed), (2, 0, 0));
}
