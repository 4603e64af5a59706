//! A real HTTP server that does what a test tells it, and reports what it saw.
#![allow(unreachable_pub)]

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::PATIENCE;

/// A request as the server saw it.
#[derive(Debug, Clone)]
pub struct Seen {
    pub path: String,
    pub headers: HeaderMap,
    pub body: String,
}

/// What the server does with a POST.
pub enum Reply {
    /// Status, headers, body.
    Plain(u16, Vec<(&'static str, String)>, String),
    /// 200, `text/event-stream`, and these pieces.
    Stream(Vec<Piece>),
    /// Headers after this event.
    After(oneshot::Receiver<()>, Vec<Piece>),
    /// No answer, ever.
    Hang,
    /// The connection is closed without a byte.
    Hangup,
}

pub enum Piece {
    Bytes(String),
    /// Waits for an event.
    Wait(oneshot::Receiver<()>),
    /// Breaks the connection.
    Break,
}

/// An event of a stream.
pub fn event(data: impl std::fmt::Display) -> Piece {
    Piece::Bytes(format!("data: {data}\n\n"))
}

/// A chunk with a text.
pub fn text(text: &str) -> Piece {
    event(serde_json::json!({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": null}]}))
}

pub fn finish(reason: &str) -> Piece {
    event(serde_json::json!({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}))
}

pub fn usage(prompt: u64, completion: u64) -> Piece {
    event(serde_json::json!({"choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": completion}}))
}

pub fn done() -> Piece {
    event("[DONE]")
}

/// A whole answer of these words.
pub fn answer(words: &[&str]) -> Reply {
    let mut pieces: Vec<Piece> = words.iter().map(|word| text(word)).collect();
    pieces.extend([finish("stop"), usage(3, words.len() as u64), done()]);
    Reply::Stream(pieces)
}

/// Which program the server passes for: path and body of its pages.
pub type Pages = Vec<(&'static str, String)>;

/// Pages of a vLLM that serves `model`.
pub fn vllm(model: &str) -> Pages {
    let models = format!(r#"{{"data":[{{"id":"{model}","owned_by":"vllm","max_model_len":4096}}]}}"#);
    vec![("/v1/models", models), ("/health", String::new())]
}

type Handler = dyn Fn(Seen) -> Reply + Send + Sync;

struct Inner {
    pages: Mutex<Pages>,
    handler: Box<Handler>,
    seen: mpsc::UnboundedSender<Seen>,
    aborted: mpsc::UnboundedSender<()>,
}

pub struct Server {
    pub address: SocketAddr,
    /// POSTs, in order.
    pub seen: mpsc::UnboundedReceiver<Seen>,
    /// One event per answer that the client did not take to its end.
    pub aborted: mpsc::UnboundedReceiver<()>,
    inner: Arc<Inner>,
    tasks: JoinSet<()>,
}

impl Server {
    pub async fn start(pages: Pages, handler: impl Fn(Seen) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_at(([127, 0, 0, 1], 0).into(), pages, handler).await
    }

    pub async fn start_at(
        address: SocketAddr,
        pages: Pages,
        handler: impl Fn(Seen) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let (seen_sender, seen) = mpsc::unbounded_channel();
        let (aborted_sender, aborted) = mpsc::unbounded_channel();
        let inner = Arc::new(Inner {
            pages: Mutex::new(pages),
            handler: Box::new(handler),
            seen: seen_sender,
            aborted: aborted_sender,
        });
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(address).unwrap();
        let listener = socket.listen(1024).unwrap();
        let address = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, inner.clone()));
        Self {
            address,
            seen,
            aborted,
            inner,
            tasks,
        }
    }

    pub fn url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    pub fn set_pages(&self, pages: Pages) {
        *self.inner.pages.lock().unwrap() = pages;
    }

    pub async fn next_seen(&mut self) -> Seen {
        tokio::time::timeout(PATIENCE, self.seen.recv())
            .await
            .expect("no request came")
            .unwrap()
    }

    pub async fn next_aborted(&mut self) {
        tokio::time::timeout(PATIENCE, self.aborted.recv())
            .await
            .expect("no connection was closed")
            .unwrap();
    }

    /// The server dies: every connection breaks, and its port refuses.
    pub async fn die(mut self) -> SocketAddr {
        self.tasks.shutdown().await;
        self.address
    }
}

async fn accept(listener: TcpListener, inner: Arc<Inner>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        connections.spawn(serve(stream, inner.clone()));
        while connections.try_join_next().is_some() {}
    }
}

async fn serve(stream: TcpStream, inner: Arc<Inner>) {
    stream.set_nodelay(true).unwrap();
    let service = service_fn(move |request| handle(request, inner.clone()));
    let _ = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn handle(request: Request<Incoming>, inner: Arc<Inner>) -> Result<Response<Script>, std::io::Error> {
    let path = request.uri().path().to_owned();
    if request.method() == http::Method::GET {
        let page = inner
            .pages
            .lock()
            .unwrap()
            .iter()
            .find(|(name, _)| *name == path)
            .map(|(_, body)| body.clone());
        let status = if page.is_some() { 200 } else { 404 };
        return Ok(plain(status, &[], page.unwrap_or_default()));
    }
    let headers = request.headers().clone();
    let body = request
        .into_body()
        .collect()
        .await
        .map_err(std::io::Error::other)?
        .to_bytes();
    // How a server is asked what it was started for; a page tells the status.
    if body == "{}" {
        let name = format!("POST {path}");
        let pages = inner.pages.lock().unwrap();
        let page = pages.iter().find(|(known, _)| *known == name);
        let status = page.map_or(404, |(_, status)| status.parse().unwrap());
        return Ok(plain(status, &[], r#"{"error":{"message":"of nothing"}}"#.to_owned()));
    }
    let seen = Seen {
        path,
        headers,
        body: String::from_utf8(body.to_vec()).unwrap(),
    };
    let _ = inner.seen.send(seen.clone());
    let mut guard = Guard {
        aborted: Some(inner.aborted.clone()),
    };
    match (inner.handler)(seen) {
        Reply::Plain(status, headers, body) => {
            guard.aborted = None;
            Ok(plain(status, &headers, body))
        }
        Reply::Stream(pieces) => Ok(stream(pieces, guard)),
        Reply::After(event, pieces) => {
            let _ = event.await;
            Ok(stream(pieces, guard))
        }
        Reply::Hang => std::future::pending().await,
        Reply::Hangup => {
            guard.aborted = None;
            Err(std::io::Error::other("hang up"))
        }
    }
}

fn plain(status: u16, headers: &[(&'static str, String)], body: String) -> Response<Script> {
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(*name, value);
    }
    response
        .body(Script {
            pieces: [Piece::Bytes(body)].into(),
            guard: Guard { aborted: None },
        })
        .unwrap()
}

fn stream(pieces: Vec<Piece>, guard: Guard) -> Response<Script> {
    Response::builder()
        .header("content-type", "text/event-stream; charset=utf-8")
        .body(Script {
            pieces: pieces.into(),
            guard,
        })
        .unwrap()
}

/// Reports when it is dropped before its answer has ended.
struct Guard {
    aborted: Option<mpsc::UnboundedSender<()>>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(aborted) = self.aborted.take() {
            let _ = aborted.send(());
        }
    }
}

struct Script {
    pieces: VecDeque<Piece>,
    guard: Guard,
}

impl Body for Script {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        loop {
            match self.pieces.front_mut() {
                None => {
                    self.guard.aborted = None;
                    return Poll::Ready(None);
                }
                Some(Piece::Bytes(_)) => {
                    let Some(Piece::Bytes(bytes)) = self.pieces.pop_front() else {
                        continue;
                    };
                    return Poll::Ready(Some(Ok(Frame::data(bytes.into()))));
                }
                Some(Piece::Wait(event)) => match Pin::new(event).poll(cx) {
                    Poll::Ready(_) => drop(self.pieces.pop_front()),
                    Poll::Pending => return Poll::Pending,
                },
                Some(Piece::Break) => {
                    self.guard.aborted = None;
                    return Poll::Ready(Some(Err(std::io::Error::other("broken"))));
                }
            }
        }
    }
}
