//! The floor answers as the simulated engine does, or its cost would be no measure.

use std::sync::mpsc::sync_channel;

use super::*;
use crate::floor::{FloorArgs, serve};

#[derive(Debug, Parser)]
struct FloorCli {
    #[command(flatten)]
    args: FloorArgs,
}

/// A floor, which serves until the test's process ends.
fn start(flags: &str) -> std::net::SocketAddr {
    let line = format!("floor --listen 127.0.0.1:0 {flags}");
    let args = FloorCli::try_parse_from(line.split_whitespace()).unwrap().args;
    let (tell, told) = sync_channel(1);
    std::thread::spawn(move || serve(&args, |address| tell.send(address).unwrap()));
    told.recv().unwrap()
}

async fn bench(flags: &str, load: &str) -> Value {
    let line = format!("bench --url http://{}/v1 --model sim {load}", start(flags));
    let report = make(&Cli::try_parse_from(line.split_whitespace()).unwrap().args).await;
    serde_json::to_value(report.unwrap()).unwrap()
}

#[tokio::test]
async fn all_streams_step_together_and_every_answer_passes() {
    let json = bench(
        "--itl 10ms",
        "--check sim --concurrency 20 --requests 60 --max-tokens 12",
    )
    .await;
    assert_eq!(failures(&json), BTreeMap::new());
    assert_eq!(json["tokens"]["received"], 720);
    // Three answers after each other, each of 12 steps: no token came early.
    assert!(json["elapsed_seconds"].as_f64().unwrap() > 0.3, "{json}");
}

#[tokio::test]
async fn without_steps_an_answer_leaves_whole() {
    let json = bench("", "--check sim --concurrency 3 --requests 60 --max-tokens 4").await;
    assert_eq!(failures(&json), BTreeMap::new());
    // With its first byte there is all of it.
    assert_eq!(
        (&json["tokens"]["received"], &json["tokens"]["arrivals"]),
        (&json!(240), &json!(60))
    );
}

#[tokio::test]
async fn what_is_no_stream_is_refused() {
    let json = bench("", "--check stream --stream false --concurrency 1 --requests 2").await;
    assert_eq!(failures(&json), BTreeMap::from([("status 404".to_owned(), 2)]));
}
