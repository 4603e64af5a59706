//! The order in which a gateway stops: readiness, then new connections, then running streams.

use tokenbus_bus::task::spawn;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{Events, Gateway, ask, counted, soon};

const READY: &[u8] = b"GET /readyz HTTP/1.1\r\nhost: localhost\r\n\r\n";

/// Reads one response with a body of known length; its head and body.
async fn response(tcp: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "))
                .unwrap();
            if body.len() >= length.parse::<usize>().unwrap() {
                return text;
            }
        }
        assert!(
            soon(tcp.read_buf(&mut bytes)).await.unwrap() > 0,
            "closed after {text:?}"
        );
    }
}

#[tokio::test]
async fn readiness_fails_first_while_requests_are_still_served() {
    let mut gateway = Gateway::start().await;
    assert_eq!(gateway.get("/readyz").await.status, 200);
    let (mut running, call) = gateway.stream("a").await;
    gateway.draining.cancel();
    let ready = gateway.get("/readyz").await;
    assert_eq!((ready.status, ready.error()["code"].as_str()), (503, Some("not_ready")));
    assert_eq!(gateway.get("/healthz").await.status, 200);
    // A connection of its own, as a load balancer that has not noticed would make.
    gateway.client = reqwest::Client::builder().no_proxy().build().unwrap();
    let answer = gateway.chat(ask(false));
    let new = gateway.call().await;
    new.say("served").await;
    new.say(counted(1, 1)).await;
    let answer = answer.await.unwrap();
    assert_eq!((answer.status, answer.header("connection")), (200, "close"));
    let (mut begun, late) = gateway.stream("b").await;
    assert!(!gateway.served.is_finished());

    gateway.shutdown.cancel();
    soon(async { while TcpStream::connect(gateway.addr).await.is_ok() {} }).await;
    // Both streams end in their own time.
    for (events, call) in [(&mut running, &call), (&mut begun, &late)] {
        call.say("!").await;
        call.say(counted(1, 2)).await;
        events.chunk().await;
        events.text().await;
        assert_eq!(events.text().await, "!");
        assert_eq!(events.data().await, "[DONE]");
        assert!(events.next().await.is_none());
    }
    soon(gateway.served).await.unwrap();
}

#[tokio::test]
async fn an_idle_connection_is_closed_with_its_next_response() {
    let gateway = Gateway::start().await;
    let mut idle = gateway.raw(READY).await;
    assert!(!response(&mut idle).await.contains("connection: close"));
    idle.write_all(READY).await.unwrap();
    assert!(!response(&mut idle).await.contains("connection: close"));
    gateway.draining.cancel();
    // It is not closed under a client that may be about to send.
    idle.write_all(READY).await.unwrap();
    let last = response(&mut idle).await;
    assert!(
        last.starts_with("HTTP/1.1 503") && last.contains("connection: close"),
        "{last}"
    );
    assert_eq!(soon(idle.read(&mut [0; 16])).await.unwrap(), 0);
}

#[tokio::test]
async fn a_stream_that_begins_during_the_delay_ends_its_connection() {
    let mut gateway = Gateway::start().await;
    gateway.draining.cancel();
    let body = ask(true).to_string();
    let length = body.len();
    let mut tcp = gateway
        .raw(
            format!("POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n\r\n{body}")
                .as_bytes(),
        )
        .await;
    let call = gateway.call().await;
    call.say("x").await;
    call.say(counted(1, 1)).await;
    let mut all = Vec::new();
    soon(tcp.read_to_end(&mut all)).await.unwrap();
    let all = String::from_utf8(all).unwrap();
    assert!(
        all.contains("connection: close") && all.contains("[DONE]") && all.ends_with("\r\n0\r\n\r\n"),
        "{all}"
    );
}

#[tokio::test]
async fn http2_goes_on_over_its_connection_until_the_closing() {
    let mut gateway = Gateway::start().await;
    gateway.client = reqwest::Client::builder()
        .http2_prior_knowledge()
        .no_proxy()
        .build()
        .unwrap();
    let (mut old, call) = gateway.stream("a").await;
    gateway.draining.cancel();
    let (mut new, second) = gateway.stream("b").await;
    assert!(!new.response.headers().contains_key("connection"));
    gateway.shutdown.cancel();
    for (events, call, text) in [(&mut old, &call, "a"), (&mut new, &second, "b")] {
        call.say(counted(1, 1)).await;
        events.chunk().await;
        assert_eq!(events.text().await, text);
        assert_eq!(events.data().await, "[DONE]");
        assert!(Events::next(events).await.is_none());
    }
    soon(gateway.served).await.unwrap();
}

#[tokio::test]
async fn a_shutdown_without_a_delay_is_a_drain_as_well() {
    let mut gateway = Gateway::start().await;
    let answer = spawn("client", gateway.post(ask(false)).send());
    let call = gateway.call().await;
    gateway.shutdown.cancel();
    call.say("x").await;
    call.say(counted(1, 1)).await;
    let answer = answer.await.unwrap().unwrap();
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["connection"]),
        (200, &"close".parse().unwrap())
    );
    soon(gateway.served).await.unwrap();
}
