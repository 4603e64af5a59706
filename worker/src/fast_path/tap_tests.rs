//! The tap on real connections, with the HTTP library on them.

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tokenbus_bus::task;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;

const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";

struct Server {
    listener: TcpListener,
    client: Client<Connector, Full<Bytes>>,
}

impl Server {
    async fn new() -> Self {
        let connector = Connector(HttpConnector::new());
        Self {
            listener: TcpListener::bind("127.0.0.1:0").await.unwrap(),
            client: Client::builder(TokioExecutor::new()).build(connector),
        }
    }

    /// Posts a body of one byte, and reads it at the server: on `at`, or on a new connection.
    async fn post(&self, at: Option<TcpStream>) -> (impl Future<Output = Response<Incoming>>, TcpStream) {
        let uri = format!("http://{}/v1/chat/completions", self.listener.local_addr().unwrap());
        let request = Request::post(uri).body(Full::new(Bytes::from_static(b"!"))).unwrap();
        let answer = task::spawn("test-request", self.client.request(request));
        let mut at = match at {
            Some(at) => at,
            None => self.listener.accept().await.unwrap().0,
        };
        let mut seen = Vec::new();
        while !seen.ends_with(b"\r\n\r\n!") {
            assert_ne!(at.read_buf(&mut seen).await.unwrap(), 0);
        }
        (async { answer.await.unwrap().unwrap() }, at)
    }
}

fn tapped(answer: Response<Incoming>) -> TappedBody {
    TappedBody::of(answer).into_body().unwrap()
}

/// What comes next, and `None` at the end.
async fn next(body: &mut TappedBody) -> Option<String> {
    let mut data = Vec::new();
    let fed = body.feed(&mut |bytes| data.extend_from_slice(bytes)).await;
    fed.map(|fed| {
        fed.unwrap();
        String::from_utf8(data).unwrap()
    })
}

#[tokio::test]
async fn a_connection_serves_stream_after_stream() {
    let server = Server::new().await;
    let mut connection = None;
    for round in 0..3 {
        let (answer, mut at) = server.post(connection.take()).await;
        at.write_all(HEAD).await.unwrap();
        let mut body = tapped(answer.await);
        for token in ["one", "two"] {
            at.write_all(format!("3\r\n{token}\r\n").as_bytes()).await.unwrap();
            assert_eq!(next(&mut body).await.as_deref(), Some(token), "round {round}");
        }
        at.write_all(b"0\r\n\r\n").await.unwrap();
        assert_eq!(next(&mut body).await, None);
        connection = Some(at);
    }
}

#[tokio::test]
async fn a_body_that_is_dropped_closes_its_connection() {
    let server = Server::new().await;
    let (answer, mut at) = server.post(None).await;
    at.write_all(HEAD).await.unwrap();
    let mut body = tapped(answer.await);
    at.write_all(b"3\r\none\r\n").await.unwrap();
    assert_eq!(next(&mut body).await.as_deref(), Some("one"));
    drop(body);
    assert_eq!(at.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test]
async fn a_stream_that_is_cut_off_is_an_error_and_its_connection_is_not_used_again() {
    for rest in [&b"3\r\non"[..], b"3\r\none\r\nwhat?\r\n"] {
        let server = Server::new().await;
        let (answer, mut at) = server.post(None).await;
        at.write_all(HEAD).await.unwrap();
        let mut body = tapped(answer.await);
        at.write_all(rest).await.unwrap();
        at.shutdown().await.unwrap();
        let mut ended = Some(Ok(()));
        while matches!(ended, Some(Ok(()))) {
            ended = body.feed(&mut |_| {}).await;
        }
        assert!(ended.unwrap().is_err(), "{rest:?}");
        drop(body);
        assert_eq!(at.read(&mut [0]).await.unwrap_or(0), 0);
        let (answer, mut another) = server.post(None).await;
        another.write_all(HEAD).await.unwrap();
        tapped(answer.await);
    }
}

#[tokio::test]
async fn an_answer_in_one_piece_is_the_librarys() {
    let server = Server::new().await;
    let (answer, mut at) = server.post(None).await;
    at.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}")
        .await
        .unwrap();
    let library = TappedBody::of(answer.await).into_body().unwrap_err();
    assert_eq!(&library.collect().await.unwrap().to_bytes()[..], b"{}");
}
