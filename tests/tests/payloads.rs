//! Requests of any size below the limit cross the bus, whatever the bus's own limit is.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods
)]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::stream;
use http::Method;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Frame;
use hyper::client::conn::http2::handshake;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokenbus_tests::ask::{ask, ask_for, sim_text};
use tokenbus_tests::http::CHAT;
use tokenbus_tests::wait::within_time;
use tokenbus_tests::{Client, Cluster, Gate, NatsOptions, Role, Script, Upstream, within};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

/// `bytes` bytes of text in which a lost, doubled or swapped part shows.
fn content(bytes: usize) -> String {
    let mut text = String::with_capacity(bytes + 16);
    let mut number = 0_u64;
    while text.len() < bytes {
        text.push_str(&format!("{number:x} "));
        number += 1;
    }
    text.truncate(bytes);
    text
}

fn request(content: &str) -> Value {
    json!({"model": "m", "messages": [{"role": "user", "content": content}]})
}

#[tokio::test]
async fn payloads_of_100_bytes_to_20_megabytes_cross_a_bus_of_1_megabyte() {
    let upstream = Upstream::start(&["m"]).await;
    let cluster = Cluster::plan().worker(Role::proxy(&upstream, 4)).start().await;
    let mebibyte = 1024 * 1024;
    let sizes = [
        100,
        64 * 1024,
        mebibyte - 4096,
        mebibyte - 100,
        mebibyte,
        mebibyte + 1,
        3 * mebibyte,
        20 * 1_000_000,
    ];
    for (number, size) in sizes.into_iter().enumerate() {
        let sent = request(&content(size));
        assert_eq!(
            cluster.client().chat(&sent).await.content(),
            "Hello world",
            "{size} bytes"
        );
        let received = upstream.request(number).await.json();
        let same = received["messages"] == sent["messages"];
        assert!(same, "{size} bytes were changed on the way");
    }
    assert_eq!(upstream.requests().len(), sizes.len(), "a request was sent twice");
}

#[tokio::test]
async fn large_requests_cross_a_bus_with_a_very_small_limit_at_the_same_time() {
    let upstream = Upstream::start(&["m"]).await;
    let nats = NatsOptions {
        max_payload: 128 * 1024,
        ..NatsOptions::default()
    };
    let cluster = Cluster::plan()
        .nats(nats)
        .gateways(2)
        .worker(Role::proxy(&upstream, 2))
        .start()
        .await;
    let clients: Vec<Client> = cluster.gateways.iter().map(|gateway| gateway.client()).collect();
    let sent: Vec<Value> = (0..8)
        .map(|number| request(&format!("{number} {}", content(700_000))))
        .collect();
    let answers = join_all(sent.iter().enumerate().map(|(number, sent)| {
        let client = clients[number % 2];
        async move { client.chat(sent).await.content() }
    }));
    assert_eq!(answers.await, vec!["Hello world"; 8]);
    let mut received: Vec<Value> = upstream
        .requests()
        .iter()
        .map(|one| one.json()["messages"].clone())
        .collect();
    received.sort_by_key(Value::to_string);
    let mut expected: Vec<Value> = sent.iter().map(|one| one["messages"].clone()).collect();
    expected.sort_by_key(Value::to_string);
    assert!(received == expected, "requests were changed on the way");
}

#[tokio::test]
async fn a_body_over_the_limit_is_a_413_before_anything_is_published() {
    let upstream = Upstream::start(&["m"]).await;
    let cluster = Cluster::plan().worker(Role::proxy(&upstream, 1)).start().await;
    let sent = request(&content(33 * 1024 * 1024)).to_string();
    let answer = cluster
        .client()
        .request(Method::POST, CHAT, &[], Bytes::from(sent))
        .await;
    let error = answer.error(413);
    assert!(
        error["message"].as_str().unwrap().contains("32"),
        "the limit is named: {error}"
    );
    assert_eq!(cluster.client().chat(&ask("m")).await.content(), "Hello world");
    assert_eq!(upstream.requests().len(), 1);
}

#[tokio::test]
async fn a_large_request_whose_client_leaves_frees_the_slot() {
    let upstream = Upstream::start(&["m"]).await;
    let cluster = Cluster::plan().worker(Role::proxy(&upstream, 1)).start().await;
    let never = Gate::new();
    upstream.next(Script::texts(&["never"]).after(&never));
    let client = cluster.client();
    let large = tokio::spawn(async move { client.chat(&request(&content(4_000_000))).await });
    let asked = upstream.request(0).await;
    large.abort();
    asked.abandoned().await;
    assert_eq!(
        client.chat(&request(&content(4_000_000))).await.content(),
        "Hello world"
    );
}

#[tokio::test]
async fn large_answers_come_back_whole() {
    let upstream = Upstream::start(&["m"]).await;
    let cluster = Cluster::plan().worker(Role::proxy(&upstream, 1)).start().await;
    let client = cluster.client();
    for size in [600_000, 3_000_000] {
        let large = content(size);
        upstream.always(Script::texts(&["a", &large, "b"]));
        let expected = format!("a{large}b");
        assert!(
            client.chat(&ask("m")).await.content() == expected,
            "the answer was changed"
        );
        assert!(
            client.transcript(&ask("m")).await.whole() == expected,
            "the stream was changed"
        );
    }
    let argument = json!({"text": content(1_500_000)});
    upstream.always(Script::call("write", &argument));
    let answer = client.chat(&ask("m")).await.ok();
    let arguments = &answer["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"];
    assert!(
        serde_json::from_str::<Value>(arguments.as_str().unwrap()).unwrap() == argument,
        "the call was changed"
    );
    let transcript = client.transcript(&ask("m")).await;
    let pieces: String = transcript
        .chunks()
        .filter_map(|chunk| chunk["choices"][0]["delta"]["tool_calls"][0]["function"]["arguments"].as_str())
        .collect();
    assert!(
        serde_json::from_str::<Value>(&pieces).unwrap() == argument,
        "the streamed call was changed"
    );
}

#[tokio::test]
async fn long_streams_come_back_whole() {
    let cluster = Cluster::plan().worker(Role::sim("m", 2)).start().await;
    let client = cluster.client();
    let long = ask_for("m", 20_000);
    let (whole, streamed) = tokio::join!(client.chat(&long), client.transcript(&long));
    assert!(whole.content() == sim_text(20_000), "the answer was changed");
    assert!(streamed.whole() == sim_text(20_000), "the stream was changed");
}

/// Bytes of a body that nobody wants, its pieces, and the pause before each: longer than a short linger.
const UNWANTED: usize = 40 * 1024 * 1024;
const PIECES: usize = 40;
const PAUSE: Duration = Duration::from_millis(100);

/// Requests that are answered before their body is read: what stands in their first lines, and the status.
const EARLY: [(&str, &str, u16); 3] = [
    (CHAT, "X-Any: thing", 413),
    (CHAT, "Content-Encoding: br", 415),
    ("/v1/nothing", "X-Any: thing", 404),
];

/// Sends `body` at `gateway` all the way before it looks for an answer, as many clients do.
async fn send_all(gateway: SocketAddr, head: String, piece: Vec<u8>, end: &[u8]) -> String {
    let mut tcp = TcpStream::connect(gateway).await.unwrap();
    tcp.write_all(head.as_bytes()).await.unwrap();
    for number in 0..PIECES {
        tokio::time::sleep(PAUSE).await;
        let sent = tcp.write_all(&piece).await;
        sent.unwrap_or_else(|error| panic!("piece {number} could not be sent: {error}"));
    }
    tcp.write_all(end).await.unwrap();
    let mut answer = Vec::new();
    tcp.read_to_end(&mut answer).await.unwrap();
    String::from_utf8(answer).unwrap()
}

fn is_refusal(answer: &str, status: u16) {
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .unwrap_or_else(|| panic!("no answer: {answer:?}"));
    assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
    let body: Value = serde_json::from_str(body).unwrap();
    assert!(body["error"]["message"].is_string(), "{body}");
}

#[tokio::test]
async fn a_client_that_is_still_sending_its_body_gets_the_early_answer() {
    let cluster = Cluster::plan().start().await;
    let gateway = cluster.gateways[0].address();
    let size = UNWANTED / PIECES;
    let sends = EARLY.iter().flat_map(|(path, header, status)| {
        let head = move |length: &str| {
            format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{header}\r\n{length}\r\n\r\n")
        };
        [false, true].map(|chunked| async move {
            let answer = if chunked {
                let mut piece = format!("{size:x}\r\n").into_bytes();
                piece.extend(vec![b' '; size]);
                piece.extend(b"\r\n");
                send_all(gateway, head("Transfer-Encoding: chunked"), piece, b"0\r\n\r\n").await
            } else {
                let head = head(&format!("Content-Length: {UNWANTED}"));
                send_all(gateway, head, vec![b' '; size], b"").await
            };
            is_refusal(&answer, *status);
        })
    });
    within_time(Duration::from_secs(60), "the answers", join_all(sends)).await;
}

#[tokio::test]
async fn a_client_that_asks_before_it_sends_is_answered_and_sends_nothing() {
    let cluster = Cluster::plan().start().await;
    let mut tcp = TcpStream::connect(cluster.gateways[0].address()).await.unwrap();
    let head = format!(
        "POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {UNWANTED}\r\nExpect: 100-continue\r\n\r\n"
    );
    tcp.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    within("the answer and the end", tcp.read_to_string(&mut answer))
        .await
        .unwrap();
    is_refusal(&answer, 413);
}

#[tokio::test]
async fn a_client_over_http2_that_is_still_sending_gets_the_early_answer_and_keeps_its_connection() {
    let upstream = Upstream::start(&["m"]).await;
    let cluster = Cluster::plan().worker(Role::proxy(&upstream, 1)).start().await;
    let gateway = cluster.gateways[0].address();
    let tcp = TcpStream::connect(gateway).await.unwrap();
    let (mut sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(tcp)).await.unwrap();
    tokio::spawn(connection);
    let post = |length: usize, body: BoxBody<Bytes, Infallible>| {
        http::Request::post(format!("http://{gateway}{CHAT}"))
            .header("content-type", "application/json")
            .header("content-length", length)
            .body(body)
            .unwrap()
    };
    let (done, sent) = oneshot::channel();
    let pieces = stream::unfold((0, Some(done)), |(number, mut done)| async move {
        if number == PIECES {
            done.take()?.send(()).unwrap();
            return None;
        }
        tokio::time::sleep(PAUSE).await;
        let piece = Bytes::from(vec![b' '; UNWANTED / PIECES]);
        Some((Ok(Frame::data(piece)), (number + 1, done)))
    });
    let body = BoxBody::new(StreamBody::new(Box::pin(pieces)));
    let response = within("the head", sender.send_request(post(UNWANTED, body)))
        .await
        .unwrap();
    assert_eq!(response.status(), 413);
    let answer = within("the answer", response.into_body().collect()).await;
    let answer: Value = serde_json::from_slice(&answer.unwrap().to_bytes()).unwrap();
    assert_eq!(answer["error"]["code"], "request_too_large");
    within("the whole body to be taken", sent).await.unwrap();

    let next = Bytes::from(ask("m").to_string());
    let request = post(next.len(), BoxBody::new(Full::new(next)));
    let response = within("another answer", sender.send_request(request)).await.unwrap();
    assert_eq!(response.status(), 200);
}
