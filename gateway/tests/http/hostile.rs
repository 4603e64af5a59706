//! Clients that take what they can: slow and endless heads, too many connections, two lengths, resets without end; and
//! clients that leave, or only end their side, with bytes of theirs unread.

use std::time::{Duration, Instant};

use tokenbus_gateway::MostConnections;
use tokenbus_gateway::testing::HttpOptions;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{Gateway, ask, counted, soon};

fn request(body: &str, more: &str) -> String {
    let length = body.len();
    format!("POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n{more}content-length: {length}\r\n\r\n{body}")
}

async fn all(tcp: &mut TcpStream) -> String {
    let mut text = Vec::new();
    // A reset ends it as well.
    let _ = soon(tcp.read_to_end(&mut text)).await;
    String::from_utf8_lossy(&text).into_owned()
}

async fn until(tcp: &mut TcpStream, end: &str) -> String {
    let mut text = Vec::new();
    while !String::from_utf8_lossy(&text).ends_with(end) {
        let count = soon(tcp.read_buf(&mut text)).await.unwrap();
        assert!(count > 0, "{}", String::from_utf8_lossy(&text));
    }
    String::from_utf8_lossy(&text).into_owned()
}

#[tokio::test]
async fn a_head_that_never_ends_is_cut_and_refused() {
    let gateway = Gateway::start().await;
    let mut tcp = gateway.raw(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nx: ").await;
    let mut sent = 0;
    let refused = async {
        while sent < 1 << 20 && tcp.write_all(&[b'y'; 4096]).await.is_ok() {
            sent += 4096;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    soon(refused).await;
    let answer = all(&mut tcp).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    // A head within the bound is served.
    let long = format!(
        "GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\nx: {}\r\n\r\n",
        "y".repeat(32 << 10)
    );
    let mut tcp = gateway.raw(long.as_bytes()).await;
    assert!(all(&mut tcp).await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn a_body_of_two_lengths_is_refused_and_the_connection_closes() {
    let mut gateway = Gateway::start().await;
    for lengths in [
        "content-length: 6\r\ntransfer-encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 6\r\n",
        "content-length: 5\r\ncontent-length: 6\r\n",
        "content-length: 5, 6\r\n",
        "transfer-encoding: chunked, x\r\n",
    ] {
        let smuggled = "GET /v1/models HTTP/1.1\r\nhost: localhost\r\n\r\n";
        let head = format!("POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n{lengths}\r\n0\r\n\r\n{smuggled}");
        let mut tcp = gateway.raw(head.as_bytes()).await;
        let answer = all(&mut tcp).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{lengths}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{lengths}: {answer}");
        assert!(gateway.untouched());
    }
    // On a connection that is kept, too.
    let mut tcp = gateway.raw(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    let mut first = [0; 1024];
    let count = soon(tcp.read(&mut first)).await.unwrap();
    assert!(first[..count].starts_with(b"HTTP/1.1 200 "));
    tcp.write_all(
        b"POST / HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n",
    )
    .await
    .unwrap();
    assert!(all(&mut tcp).await.contains("ambiguous_length"));
}

#[tokio::test]
async fn connections_beyond_the_limit_are_told_and_places_come_back() {
    let gateway = Gateway::with(HttpOptions {
        max_connections: MostConnections { all: 3, per_address: 3 },
        ..HttpOptions::default()
    })
    .await;
    let hello = b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    let held = [gateway.raw(b"G").await, gateway.raw(b"").await];
    // The third place.
    assert!(all(&mut gateway.raw(hello).await).await.starts_with("HTTP/1.1 200 "));
    let third = gateway.raw(b"").await;
    for _ in 0..100 {
        let answer = all(&mut gateway.raw(hello).await).await;
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        assert!(answer.contains("retry-after: 1") && answer.contains("too_many_connections"));
    }
    drop((held, third));
    let served = async {
        loop {
            let answer = all(&mut gateway.raw(hello).await).await;
            if answer.starts_with("HTTP/1.1 200 ") {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let metrics = soon(served).await;
    assert!(metrics.contains("tokenbus_connections_limit 3"), "{metrics}");
    assert!(metrics.contains("tokenbus_connections 1"), "{metrics}");
    let refused = metrics
        .lines()
        .find_map(|line| line.strip_prefix("tokenbus_connections_refused_total "));
    assert!(refused.unwrap().parse::<u32>().unwrap() >= 100);
}

#[tokio::test]
async fn all_bodies_together_are_bounded_and_their_bytes_come_back() {
    const MIB: usize = 1 << 20;
    let mut gateway = Gateway::with(HttpOptions {
        body_memory: 3 * MIB,
        ..HttpOptions::default()
    })
    .await;
    let long = |bytes: usize| {
        let content = "x".repeat(bytes);
        format!(r#"{{"model":"m","messages":[{{"role":"user","content":"{content}"}}]}}"#)
    };
    let whole = request(&long(2 * MIB), "connection: close\r\n");
    let holds = async |gateway: &Gateway, bytes: std::ops::Range<usize>| loop {
        let metrics = gateway.get("/metrics").await.text;
        let held = metrics
            .lines()
            .find_map(|line| line.strip_prefix("tokenbus_bodies_bytes "));
        if bytes.contains(&held.unwrap().parse().unwrap()) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    // Half sent, and being answered: both are held.
    let half = gateway.raw(&whole.as_bytes()[..2 * MIB - 1000]).await;
    soon(holds(&gateway, 2 * MIB - 4000..2 * MIB)).await;
    let refused = gateway.exchange(whole.as_bytes()).await;
    assert!(refused.starts_with("HTTP/1.1 503 "), "{refused}");
    assert!(
        refused.contains("retry-after: 1") && refused.contains("server_busy"),
        "{refused}"
    );
    assert!(gateway.untouched());
    drop(half);
    soon(holds(&gateway, 0..1)).await;
    let answered = gateway.raw(whole.as_bytes()).await;
    let call = gateway.call().await;
    soon(holds(&gateway, 2 * MIB..3 * MIB)).await;
    assert!(gateway.exchange(whole.as_bytes()).await.starts_with("HTTP/1.1 503 "));
    call.say("x").await;
    call.say(counted(1, 1)).await;
    assert!(all(&mut { answered }).await.starts_with("HTTP/1.1 200 "));
    soon(holds(&gateway, 0..1)).await;
}

/// Clients that leave are noticed at once, whatever of theirs is unread.
#[tokio::test]
async fn a_client_that_leaves_is_noticed_behind_its_unread_bytes() {
    let mut gateway = Gateway::start().await;
    let next = request(&ask(true).to_string(), "");
    for behind in [String::new(), "\r\n".to_owned(), next.clone(), next.repeat(1000)] {
        for close in ["", "connection: close\r\n"] {
            // Before the answer, streamed or not.
            for streamed in [false, true] {
                let sent = request(&ask(streamed).to_string(), close) + &behind;
                let tcp = gateway.raw(sent.as_bytes()).await;
                let call = gateway.call().await;
                let start = Instant::now();
                drop(tcp);
                soon(call.dropped.cancelled()).await;
                assert!(
                    start.elapsed() < Duration::from_secs(1),
                    "{streamed} {close} {}",
                    behind.len()
                );
            }
            // In its middle.
            let sent = request(&ask(true).to_string(), close) + &behind;
            let mut tcp = gateway.raw(sent.as_bytes()).await;
            let call = gateway.call().await;
            call.say("a").await;
            until(&mut tcp, "\n\n\r\n").await;
            let start = Instant::now();
            drop(tcp);
            soon(call.dropped.cancelled()).await;
            assert!(start.elapsed() < Duration::from_secs(1), "mid {close} {}", behind.len());
        }
    }
}

#[tokio::test]
async fn a_client_that_only_ends_its_side_gets_its_whole_answer() {
    let mut gateway = Gateway::start().await;
    for close in ["", "connection: close\r\n"] {
        for behind in ["", "\r\n"] {
            // In one piece.
            let mut tcp = gateway
                .raw((request(&ask(false).to_string(), close) + behind).as_bytes())
                .await;
            tcp.shutdown().await.unwrap();
            let call = gateway.call().await;
            tokio::time::sleep(Duration::from_millis(700)).await;
            call.say("whole").await;
            call.say(counted(1, 1)).await;
            let answer = all(&mut tcp).await;
            assert!(
                answer.contains("HTTP/1.1 200 OK") && answer.contains("whole"),
                "{answer}"
            );
            // Streamed, with its side ended before the answer or within it.
            for early in [true, false] {
                let mut tcp = gateway
                    .raw((request(&ask(true).to_string(), close) + behind).as_bytes())
                    .await;
                if early {
                    tcp.shutdown().await.unwrap();
                }
                let call = gateway.call().await;
                call.say("one").await;
                let head = until(&mut tcp, "\n\n\r\n").await;
                if !early {
                    tcp.shutdown().await.unwrap();
                }
                tokio::time::sleep(Duration::from_millis(700)).await;
                call.say("two").await;
                call.say(counted(1, 2)).await;
                let rest = all(&mut tcp).await;
                let text = unchunked(&(head + &rest));
                assert!(
                    text.contains("one") && text.contains("two") && text.contains("[DONE]"),
                    "{rest}"
                );
            }
        }
    }
}

/// The body of a chunked answer, which must be well formed to its end.
fn unchunked(answer: &str) -> String {
    let start = answer.find("HTTP/1.1 200 OK").unwrap();
    let (_, mut rest) = answer[start..].split_once("\r\n\r\n").unwrap();
    let mut text = String::new();
    loop {
        let (size, more) = rest.split_once("\r\n").unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        text.push_str(&more[..size]);
        assert_eq!(&more[size..size + 2], "\r\n");
        rest = &more[size + 2..];
        if size == 0 {
            assert_eq!(rest, "");
            return text;
        }
    }
}

#[tokio::test]
async fn http2_connections_that_open_and_reset_streams_without_end_are_closed() {
    let gateway = Gateway::start().await;
    let mut tcp = gateway.raw(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    tcp.write_all(&settings).await.unwrap();
    let (mut reader, mut writer) = tcp.into_split();
    let reading = tokenbus_bus::task::spawn("reader", async move {
        let mut all = Vec::new();
        let _ = reader.read_to_end(&mut all).await;
        all
    });
    let mut opened = 0_u32;
    let flood = async {
        // GET / and a reset, in the static table's indexes.
        for stream in (1..2_000_000_u32).step_by(2) {
            let id = stream.to_be_bytes();
            let mut frames = vec![0, 0, 3, 1, 5];
            frames.extend_from_slice(&id);
            frames.extend_from_slice(&[0x82, 0x84, 0x86]);
            frames.extend_from_slice(&[0, 0, 4, 3, 0]);
            frames.extend_from_slice(&id);
            frames.extend_from_slice(&8_u32.to_be_bytes());
            // The gateway reads on for a while after its last word, so that the word arrives.
            if reading.is_finished() || writer.write_all(&frames).await.is_err() {
                return;
            }
            opened += 1;
        }
    };
    soon(flood).await;
    let all = soon(reading).await.unwrap();
    assert!(opened < 1_000_000, "the connection lives on");
    assert!(all.len() < 1 << 20, "{}", all.len());
    // Others are served.
    assert_eq!(gateway.get("/healthz").await.status, 200);
}
