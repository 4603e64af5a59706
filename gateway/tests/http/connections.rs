//! Connections: HTTP/2, many at once, and shutting down.

use std::time::Duration;

use tokenbus_bus::task::spawn;
use tokenbus_gateway::testing::CallError;
use tokio::net::TcpStream;

use crate::support::{Events, GRACE, Gateway, ask, counted, soon};

#[tokio::test]
async fn http2_without_tls_streams_and_cancels() {
    let mut gateway = Gateway::start().await;
    gateway.client = reqwest::Client::builder()
        .http2_prior_knowledge()
        .no_proxy()
        .build()
        .unwrap();
    let (mut events, call) = gateway.stream("a").await;
    assert_eq!(events.response.version(), reqwest::Version::HTTP_2);
    events.chunk().await;
    assert_eq!(events.text().await, "a");
    let (other, second) = gateway.stream("b").await;
    drop(other);
    soon(second.dropped.cancelled()).await;
    // Only that stream was cancelled, not its connection.
    call.say("c").await;
    assert_eq!(events.text().await, "c");
    call.say(counted(1, 2)).await;
    assert_eq!(events.data().await, "[DONE]");
    // A request that waits for its first output is cancelled too.
    let waiting = spawn("client", gateway.post(ask(false)).send());
    let call = gateway.call().await;
    waiting.abort();
    soon(call.dropped.cancelled()).await;
}

#[tokio::test]
async fn a_thousand_streams_over_one_connection() {
    let mut gateway = Gateway::start().await;
    gateway.client = reqwest::Client::builder()
        .http2_prior_knowledge()
        .no_proxy()
        .build()
        .unwrap();
    let mut streams = Vec::new();
    for _ in 0..1000 {
        streams.push(gateway.stream("x").await);
    }
    assert_eq!(gateway.metrics.in_flight(), 1000);
    for (mut events, call) in streams {
        call.say(counted(1, 1)).await;
        events.chunk().await;
        assert_eq!(events.text().await, "x");
        assert_eq!(events.data().await, "[DONE]");
    }
}

#[tokio::test]
async fn a_shutdown_lets_running_streams_end() {
    let mut gateway = Gateway::start().await;
    let (mut events, call) = gateway.stream("a").await;
    // A second client, whose connection is idle by now.
    let idle = reqwest::Client::builder().no_proxy().build().unwrap();
    soon(idle.get(gateway.url("/healthz")).send())
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    gateway.shutdown.cancel();
    soon(async { while TcpStream::connect(gateway.addr).await.is_ok() {} }).await;
    call.say("b").await;
    call.say(counted(1, 2)).await;
    events.chunk().await;
    assert_eq!(
        (events.text().await, events.text().await),
        ("a".to_owned(), "b".to_owned())
    );
    assert_eq!(events.data().await, "[DONE]");
    assert!(events.next().await.is_none());
    soon(gateway.served).await.unwrap();
}

#[tokio::test]
async fn readiness_fails_once_a_shutdown_has_begun() {
    let mut gateway = Gateway::start().await;
    let client = reqwest::Client::builder()
        .http2_prior_knowledge()
        .no_proxy()
        .build()
        .unwrap();
    gateway.client = client;
    // A request that arrives on a connection that lives on because of another stream.
    let (events, _call) = gateway.stream("a").await;
    let ready = gateway.client.get(gateway.url("/readyz")).send();
    gateway.shutdown.cancel();
    match soon(ready).await {
        // Whether it still gets through is a race; if it does, the answer is no.
        Ok(answer) => assert_eq!(answer.status(), 503),
        Err(error) => assert!(error.is_request() || error.is_connect(), "{error:?}"),
    }
    drop(events);
}

#[tokio::test]
async fn streams_that_outlive_the_grace_are_told_and_cut() {
    let mut gateway = Gateway::start().await;
    let (mut told, call) = gateway.stream("a").await;
    let (mut cut, _silent) = gateway.stream("b").await;
    gateway.shutdown.cancel();
    let start = tokio::time::Instant::now();
    // What the core does at the end of the grace period.
    call.say(CallError::ShuttingDown).await;
    told.chunk().await;
    assert_eq!(told.text().await, "a");
    assert_eq!(told.chunk().await["error"]["code"], "shutting_down");
    soon(gateway.served).await.unwrap();
    assert!(start.elapsed() >= GRACE && start.elapsed() < GRACE + Duration::from_secs(3));
    // A stream that the core has forgotten breaks off visibly: no [DONE] and no clean end.
    cut.chunk().await;
    assert_eq!(cut.text().await, "b");
    assert!(cut.next().await.unwrap().is_err());
}

#[tokio::test]
async fn connections_are_kept_for_the_next_request() {
    let mut gateway = Gateway::start().await;
    let body = ask(true).to_string();
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let mut tcp = gateway.raw(&[]).await;
    for _ in 0..3 {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        tcp.write_all((head.clone() + &body).as_bytes()).await.unwrap();
        let call = gateway.call().await;
        call.say("x").await;
        call.say(counted(1, 1)).await;
        let mut text = Vec::new();
        while !text.ends_with(b"\r\n0\r\n\r\n") {
            assert!(soon(tcp.read_buf(&mut text)).await.unwrap() > 0);
        }
    }
}

#[tokio::test]
async fn nonsense_on_a_connection_harms_nobody_else() {
    let mut gateway = Gateway::start().await;
    let (mut events, call) = gateway.stream("a").await;
    for bytes in [
        &b"\0\xff\x16\x03\x01 garbage\r\n\r\n"[..],
        b"GET / HTTP/9.9\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nnoise noise noise",
    ] {
        use tokio::io::AsyncReadExt as _;
        let mut tcp = gateway.raw(bytes).await;
        let mut answer = Vec::new();
        // Closed by the server, with or without a word.
        let _ = soon(tcp.read_to_end(&mut answer)).await;
    }
    call.say(counted(1, 1)).await;
    events.chunk().await;
    assert_eq!(
        (events.text().await.as_str(), events.data().await.as_str()),
        ("a", "[DONE]")
    );
    assert!(Events::next(&mut events).await.is_none());
}
