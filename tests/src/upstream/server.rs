//! The upstream's HTTP side.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{self, Stream};
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::Shared;
use super::exchange::{Exchange, Outcome};
use super::script::{Script, Step};

type Body = BoxBody<Bytes, std::io::Error>;

pub(super) async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((stream, _)) = accepted {
                    connections.spawn(connection(stream, Arc::clone(&shared)));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(stream: TcpStream, shared: Arc<Shared>) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| answer(request, Arc::clone(&shared)));
    // Many tests let a peer go away; the exchange records that.
    let _ = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn answer(request: Request<Incoming>, shared: Arc<Shared>) -> Result<Response<Body>, std::io::Error> {
    match (request.method(), request.uri().path()) {
        (&Method::POST, path) if PATHS.contains(&path) => scripted(request, shared).await,
        (&Method::GET, "/v1/models") => {
            let list = json!({"object": "list", "data": shared.models()});
            Ok(page(StatusCode::OK, list.to_string()))
        }
        (&Method::GET, "/metrics") if let Some(metrics) = shared.metrics() => Ok(page(StatusCode::OK, metrics)),
        (&Method::GET, "/health") => Ok(page(StatusCode::OK, json!({"status": "ok"}).to_string())),
        _ => Ok(page(
            StatusCode::NOT_FOUND,
            json!({"error": {"message": "no such page"}}).to_string(),
        )),
    }
}

fn page(status: StatusCode, body: String) -> Response<Body> {
    let body = Full::new(Bytes::from(body))
        .map_err(|never: Infallible| match never {})
        .boxed();
    let mut page = Response::new(body);
    *page.status_mut() = status;
    page
}

/// The paths that it answers by script.
const PATHS: [&str; 7] = [
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/rerank",
    "/v1/score",
    "/tokenize",
    "/detokenize",
];

async fn scripted(request: Request<Incoming>, shared: Arc<Shared>) -> Result<Response<Body>, std::io::Error> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(std::io::Error::other)?.to_bytes();
    let Script {
        before_head,
        status,
        headers,
        steps,
    } = shared.take_script(&body);
    let running = Running::begin(Exchange::new(head.uri.path().to_owned(), head.headers, body), shared);
    for step in before_head {
        if let Some(sent) = play(step, &running).await {
            sent?;
        }
    }
    let body = StreamBody::new(frames(steps, running));
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(name, value);
    }
    Ok(response.body(body.boxed()).expect("a script's head is legal"))
}

/// The frames of a script's body. If it is dropped early, the exchange is recorded as abandoned.
fn frames(steps: Vec<Step>, running: Running) -> impl Stream<Item = Result<Frame<Bytes>, std::io::Error>> {
    stream::unfold((steps.into_iter(), Some(running)), |(mut steps, running)| async move {
        let running = running?;
        for step in steps.by_ref() {
            match play(step, &running).await {
                Some(Ok(bytes)) => return Some((Ok(Frame::data(bytes)), (steps, Some(running)))),
                Some(Err(cut)) => return Some((Err(cut), (steps, None))),
                None => {}
            }
        }
        running.exchange.ended(Outcome::Complete);
        None
    })
}

/// Runs one step; returns the bytes to send, if any.
async fn play(step: Step, running: &Running) -> Option<Result<Bytes, std::io::Error>> {
    match step {
        Step::Send(bytes) => return Some(Ok(bytes)),
        Step::Wait(gate) => gate.opened().await,
        Step::Pause(pause) => tokio::time::sleep(pause).await,
        Step::Break => {
            // hyper sends its buffer once the body pauses. Without this yield it would close the connection with
            // the first half of the answer still in its buffer.
            tokio::task::yield_now().await;
            running.exchange.ended(Outcome::Cut);
            return Some(Err(std::io::Error::other("the script says so")));
        }
    }
    None
}

/// An exchange in progress. Dropping it before its end means that the peer went away.
#[derive(Debug)]
struct Running {
    exchange: Arc<Exchange>,
    shared: Arc<Shared>,
}

impl Running {
    fn begin(exchange: Exchange, shared: Arc<Shared>) -> Self {
        let exchange = Arc::new(exchange);
        shared.begin(&exchange);
        Self { exchange, shared }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.exchange.outcome() == Outcome::Running {
            self.exchange.ended(Outcome::Abandoned(std::time::Instant::now()));
        }
        self.shared.end();
    }
}
