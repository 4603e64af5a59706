//! Tests of who gets which bytes.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Wake;

use tokenbus_bus::task;
use tokio::io::{AsyncWriteExt as _, DuplexStream, duplex};

use super::*;

const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";

/// A connection, and the server's end of it.
fn line() -> (Line<DuplexStream>, DuplexStream) {
    let (ours, server) = duplex(64 * 1024);
    (Line::new(ours), server)
}

/// A connection on which a stream has begun, with `body` after its head, the server's end, and the body's number.
async fn begun(body: &str) -> (Line<DuplexStream>, DuplexStream, u64) {
    let (mut line, mut server) = line();
    begin(&mut line, &mut server, body).await;
    let number = line.tapped().unwrap();
    (line, server, number)
}

/// Begins a stream, with `body` after its head.
async fn begin(line: &mut Line<DuplexStream>, server: &mut DuplexStream, body: &str) {
    line.sends(b"POST /v1/chat/completions HTTP/1.1\r\n");
    server.write_all(format!("{HEAD}{body}").as_bytes()).await.unwrap();
    assert_eq!(http(line, 8192).await, HEAD);
}

/// What the library reads at once, into a buffer of `size` bytes.
async fn http(line: &mut Line<DuplexStream>, size: usize) -> String {
    let mut space = vec![0; size];
    let mut buffer = ReadBuf::new(&mut space);
    poll_fn(|cx| line.poll_http(cx, &mut buffer)).await.unwrap();
    String::from_utf8(buffer.filled().to_vec()).unwrap()
}

/// What the reader of a body gets at once.
async fn body(line: &mut Line<DuplexStream>, number: u64) -> io::Result<Option<String>> {
    let mut data = Vec::new();
    let more = poll_fn(|cx| line.poll_body(number, cx, &mut |bytes| data.extend_from_slice(bytes))).await?;
    Ok(more.then(|| String::from_utf8(data).unwrap()))
}

#[tokio::test]
async fn the_body_of_a_stream_goes_past_the_library_and_the_next_answer_does_not() {
    let (mut line, mut server, first) = begun("3\r\none\r\n").await;
    assert_eq!(body(&mut line, first).await.unwrap().as_deref(), Some("one"));
    server.write_all(b"3\r\ntwo\r\n4\r\nmore\r\n0\r\n\r\n").await.unwrap();
    assert_eq!(body(&mut line, first).await.unwrap().as_deref(), Some("twomore"));
    assert_eq!(http(&mut line, 8192).await, "0\r\n\r\n");
    assert_eq!(line.tapped(), None);

    // The next answer comes before the first one's reader looks for its end.
    begin(&mut line, &mut server, "5\r\nthree\r\n0\r\n\r\n").await;
    assert_eq!(body(&mut line, first).await.unwrap(), None, "another's body");
    let second = line.tapped().unwrap();
    assert_eq!(body(&mut line, second).await.unwrap().as_deref(), Some("three"));
    assert_eq!(body(&mut line, second).await.unwrap(), None);
    assert_eq!(http(&mut line, 8192).await, "0\r\n\r\n");
}

#[tokio::test]
async fn a_head_in_pieces_is_given_in_one_and_to_a_small_buffer_in_several() {
    let (mut line, mut server) = line();
    line.sends(b"POST / HTTP/1.1\r\n");
    let sent = HEAD.to_owned();
    let sending = task::spawn("test-server", async move {
        for byte in sent.as_bytes() {
            server.write_all(&[*byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
        server
    });
    let (mut head, mut pieces) = (String::new(), 0);
    while head.len() < HEAD.len() {
        head.push_str(&http(&mut line, 40).await);
        pieces += 1;
    }
    assert_eq!((head.as_str(), pieces), (HEAD, HEAD.len().div_ceil(40)));
    assert!(line.tapped().is_some());
    drop(sending.await.unwrap());
}

#[tokio::test]
async fn other_answers_are_the_librarys() {
    for answer in [
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 3\r\n\r\none",
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n1\r\n",
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: gzip, chunked\r\n\r\n1\r\n",
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n",
        "HTTP/1.1 500 No\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n1\r\n",
        "HTTP/1.1 100 Continue\r\n\r\n",
        "HTTP/1.0 200 OK\r\ncontent-type: text/event-stream\r\n\r\n",
        "nothing of the kind\r\n\r\n",
    ] {
        let (mut line, mut server) = line();
        line.sends(b"POST / HTTP/1.1\r\n");
        server.write_all(answer.as_bytes()).await.unwrap();
        assert_eq!(http(&mut line, 8192).await, answer);
        assert_eq!(line.tapped(), None, "{answer}");
        server.write_all(b"on it goes").await.unwrap();
        assert_eq!(http(&mut line, 8192).await, "on it goes");
    }
}

#[tokio::test]
async fn answers_to_other_requests_are_not_looked_at() {
    let (mut line, mut server) = line();
    line.sends(b"GET /health HTTP/1.1\r\n");
    server.write_all(HEAD.as_bytes()).await.unwrap();
    assert_eq!(http(&mut line, 10).await, &HEAD[..10]);
    assert_eq!(line.tapped(), None);
}

#[tokio::test]
async fn a_head_that_is_cut_off_or_endless_is_left_to_the_library() {
    let (mut line, mut server) = self::line();
    line.sends(b"POST / HTTP/1.1\r\n");
    server.write_all(b"HTTP/1.1 200 OK\r\n").await.unwrap();
    drop(server);
    assert_eq!(http(&mut line, 8192).await, "HTTP/1.1 200 OK\r\n");
    assert_eq!(http(&mut line, 8192).await, "", "the end");

    let (mut line, mut server) = self::line();
    line.sends(b"POST / HTTP/1.1\r\n");
    let endless = format!("HTTP/1.1 200 OK\r\nx: {}", "y".repeat(LINE_HEAD * 2));
    server.write_all(endless.as_bytes()).await.unwrap();
    let mut read = String::new();
    while read.len() < endless.len() {
        read.push_str(&http(&mut line, 8192).await);
    }
    assert_eq!(read, endless);
}

/// Whether somebody was woken.
#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[tokio::test]
async fn the_library_waits_while_the_body_is_read_and_is_woken_at_its_end_however_it_comes() {
    for (rest, reason) in [
        ("1\r\nx\r\n0\r\n\r\n", None),
        ("1\r\nx\r\n", Some(io::ErrorKind::UnexpectedEof)),
        ("1\r\nx\r\nno size", Some(io::ErrorKind::InvalidData)),
    ] {
        let (mut line, mut server, number) = begun("").await;
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        let mut space = [0; 100];
        let mut buffer = ReadBuf::new(&mut space);
        assert!(
            line.poll_http(&mut Context::from_waker(&waker), &mut buffer)
                .is_pending()
        );
        server.write_all(rest.as_bytes()).await.unwrap();
        drop(server);
        let mut end = Ok(Some(String::new()));
        while matches!(end, Ok(Some(_))) {
            end = body(&mut line, number).await;
        }
        assert_eq!(end.as_ref().err().map(io::Error::kind), reason, "{rest:?}");
        assert!(woken.0.load(Ordering::Relaxed), "{rest:?}");
        let left = if reason.is_none() { "0\r\n\r\n" } else { "" };
        assert_eq!(http(&mut line, 8192).await, left);
    }
}

#[tokio::test]
async fn what_follows_the_end_is_the_librarys_to_judge() {
    let (mut line, _server, number) = begun("0\r\n\r\nHTTP/1.1 408 Too late\r\n\r\n").await;
    assert_eq!(body(&mut line, number).await.unwrap(), None);
    assert_eq!(http(&mut line, 8192).await, "0\r\n\r\nHTTP/1.1 408 Too late\r\n\r\n");
}

#[tokio::test]
async fn a_closed_connection_is_no_hang() {
    let (mut line, _server, number) = begun("").await;
    line.close();
    assert_eq!(
        body(&mut line, number).await.unwrap_err().kind(),
        io::ErrorKind::NotConnected
    );
}
