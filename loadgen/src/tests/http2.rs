//! Load over HTTP/2: few connections, every answer checked as over HTTP/1.1.

use super::*;

#[tokio::test]
async fn requests_share_the_connections_that_were_asked_for() {
    let server = Server::http2().await;
    let json = server
        .json("--model paced --http2 --connections 3 --concurrency 24 --requests 72 --max-tokens 9 --warmup 24")
        .await;
    assert_eq!(failures(&json), BTreeMap::new());
    assert_eq!(
        (
            json["load"]["check"].as_str(),
            json["load"]["http2_connections"].as_u64(),
            json["tokens"]["received"].as_u64()
        ),
        (Some("sim"), Some(3), Some(648))
    );
    for latency in ["ttft", "tpot", "total"] {
        assert_eq!(json["latency"][latency]["samples"], 72, "{latency}");
    }
    // One for the probe.
    assert_eq!(server.connections.load(Ordering::Relaxed), 4);
}

#[tokio::test]
async fn each_thread_has_a_connection_of_its_own() {
    let server = Server::http2().await;
    let json = server
        .json(
            "--model good --http2 --connections 2 --threads 5 --concurrency 9 --requests 40 --max-tokens 4 --check sim",
        )
        .await;
    assert_eq!(failures(&json), BTreeMap::new());
    assert_eq!(json["load"]["threads"], 2);
    assert_eq!(server.connections.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn each_broken_answer_is_counted_as_what_it_is_over_http2_too() {
    let server = Server::http2().await;
    for (model, failure) in [
        ("truncated", "truncated"),
        ("broken", "reset INTERNAL_ERROR"),
        ("wrong-text", "wrong_text"),
        ("double-finish", "finish_twice"),
        ("no-done", "missing_done"),
        ("no-role", "missing_role"),
        ("malformed", "malformed"),
        ("page", "content_type"),
        ("full", "status 429 busy"),
    ] {
        let flags =
            format!("--model {model} --http2 --connections 2 --check sim --concurrency 4 --requests 7 --max-tokens 5");
        let json = server.json(&flags).await;
        assert_eq!(failures(&json), BTreeMap::from([(failure.to_owned(), 7)]), "{model}");
    }
}

#[tokio::test]
async fn a_server_of_http1_only_is_said_before_the_run() {
    let server = Server::start().await;
    let refused = server.bench("--model good --http2 --requests 1 --concurrency 1").await;
    assert!(matches!(&refused, Err(Error::Probe(_))), "{refused:?}");
}
