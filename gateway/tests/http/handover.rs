//! Streamed answers over HTTP/1.1 on the wire: they leave the HTTP library once they have begun, of which a client
//! sees nothing.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{Gateway, Opened, ask, counted, soon};

const END: &str = "\r\n0\r\n\r\n";

fn request(headers: &str) -> String {
    let body = ask(true).to_string();
    let length = body.len();
    format!("POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n{headers}content-length: {length}\r\n\r\n{body}")
}

/// Reads on until `text` ends so.
async fn read_to(tcp: &mut TcpStream, text: &mut String, end: &str) {
    while !text.ends_with(end) {
        let mut bytes = Vec::new();
        assert!(
            soon(tcp.read_buf(&mut bytes)).await.unwrap() > 0,
            "closed after {text:?}"
        );
        text.push_str(std::str::from_utf8(&bytes).unwrap());
    }
}

/// A call whose answer has begun with the text "a", what its client has of it, and the client.
async fn begun(gateway: &mut Gateway, headers: &str) -> (Opened, String, TcpStream) {
    let mut tcp = gateway.raw(request(headers).as_bytes()).await;
    let call = gateway.call().await;
    let mut response = String::new();
    call.say("a").await;
    read_to(&mut tcp, &mut response, "}\n\n\r\n").await;
    (call, response, tcp)
}

/// The body of a response in chunks.
fn body(response: &str) -> String {
    let (head, mut rest) = response.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("transfer-encoding: chunked"), "{head}");
    let mut body = String::new();
    loop {
        let (size, after) = rest.split_once("\r\n").unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        let (chunk, after) = after.split_at(size);
        body.push_str(chunk);
        rest = after.strip_prefix("\r\n").unwrap();
        if size == 0 {
            assert_eq!(rest, "", "nothing follows the last chunk");
            return body;
        }
    }
}

fn texts(body: &str) -> String {
    let events = body
        .split_terminator("\n\n")
        .map(|event| event.strip_prefix("data: ").unwrap());
    let events = events.filter(|event| *event != "[DONE]");
    let texts = events.filter_map(|event| {
        let event: serde_json::Value = serde_json::from_str(event).unwrap();
        event["choices"][0]["delta"]["content"].as_str().map(str::to_owned)
    });
    texts.collect()
}

#[tokio::test]
async fn every_chunk_is_whole_and_the_connection_goes_on() {
    let mut gateway = Gateway::start().await;
    let mut tcp = gateway.raw(&[]).await;
    for round in 0..3 {
        // As slowly as a head may come.
        for byte in request("").as_bytes() {
            tcp.write_all(&[*byte]).await.unwrap();
        }
        let call = gateway.call().await;
        let mut response = String::new();
        for text in ["a", "b", "c"] {
            call.say(text).await;
            read_to(&mut tcp, &mut response, "}\n\n\r\n").await;
        }
        call.say(counted(1, 3)).await;
        read_to(&mut tcp, &mut response, END).await;
        assert_eq!(texts(&body(&response)), "abc", "round {round}");
        assert!(response.contains("data: [DONE]"));
    }
}

#[tokio::test]
async fn what_a_client_sends_ahead_is_answered_afterwards() {
    let mut gateway = Gateway::start().await;
    // The second comes with the first, the third in the middle of the answer.
    let mut tcp = gateway.raw((request("") + &request("")).as_bytes()).await;
    for text in ["first", "second", "third"] {
        let call = gateway.call().await;
        let mut response = String::new();
        call.say("-").await;
        read_to(&mut tcp, &mut response, "}\n\n\r\n").await;
        if text == "first" {
            let third = request("");
            let (half, rest) = third.split_at(40);
            tcp.write_all(half.as_bytes()).await.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
            tcp.write_all(rest.as_bytes()).await.unwrap();
        }
        call.say(text).await;
        call.say(counted(1, 2)).await;
        read_to(&mut tcp, &mut response, END).await;
        assert_eq!(texts(&body(&response)), format!("-{text}"));
    }
}

#[tokio::test]
async fn a_client_that_wants_a_close_gets_it_at_the_end() {
    let mut gateway = Gateway::start().await;
    let (call, mut response, mut tcp) = begun(&mut gateway, "connection: close\r\n").await;
    call.say(counted(1, 1)).await;
    soon(tcp.read_to_string(&mut response)).await.unwrap();
    assert_eq!(texts(&body(&response)), "a");
}

#[tokio::test]
async fn a_client_that_leaves_in_the_middle_cancels_its_call() {
    let mut gateway = Gateway::start().await;
    for half in [false, true] {
        let (call, mut response, mut tcp) = begun(&mut gateway, "").await;
        call.say("b").await;
        read_to(&mut tcp, &mut response, "}\n\n\r\n").await;
        if half {
            // Such a client waits for its answer, until it leaves.
            tcp.shutdown().await.unwrap();
            let cancelled = tokio::time::timeout(std::time::Duration::from_millis(200), call.dropped.cancelled());
            assert!(cancelled.await.is_err());
        }
        drop(tcp);
        soon(call.dropped.cancelled()).await;
    }
}

#[tokio::test]
async fn a_shutdown_closes_the_connection_after_its_answer() {
    let mut gateway = Gateway::start().await;
    let (call, mut response, mut tcp) = begun(&mut gateway, "").await;
    let mut idle = gateway.raw(request("").as_bytes()).await;
    let other = gateway.call().await;
    other.say("x").await;
    other.say(counted(1, 1)).await;
    let mut done = String::new();
    read_to(&mut idle, &mut done, END).await;
    gateway.shutdown.cancel();
    // What is idle closes at once, what is answered when that is complete.
    assert_eq!(soon(idle.read(&mut [0; 16])).await.unwrap(), 0);
    call.say("b").await;
    call.say(counted(1, 2)).await;
    soon(tcp.read_to_string(&mut response)).await.unwrap();
    assert_eq!(texts(&body(&response)), "ab");
    soon(gateway.served).await.unwrap();
}
