//! The simulated engine behind an OpenAI-compatible HTTP endpoint: connections, requests, and which answer each gets.
//!
//! Benchmarks run proxies in front of it, and tests `--engine openai`. The simulated engine makes the text, the schedule
//! and the scripted faults; this module is only the HTTP around it. [`answer`] carries an answer from the engine to its
//! connection, [`events`] and [`documents`] write the JSON.

mod answer;
mod documents;
mod events;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Either, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokenbus_engine::{Engine as _, Job};
use tokenbus_protocol::{EngineError, ErrorCode, RequestKind};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

use self::answer::{AnyBody, Broken, End, Fixed, Form, Held, Shared, Stream, answer};
use self::events::{Chunks, Identity};
use crate::engine::SimEngine;
use crate::limits::BODY_BYTES;
use crate::refusal::refusal;

const JSON: &str = "application/json";

/// The engine behind its HTTP endpoint.
pub struct Server {
    engine: Arc<SimEngine>,
    models: Vec<String>,
    slots: Option<Arc<Semaphore>>,
    /// See [`answer::answer`].
    blocks: bool,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    running: AtomicU64,
    waiting: AtomicU64,
    requests: AtomicU64,
    tokens: AtomicU64,
}

/// A running request. Dropping it counts it as ended.
struct RunningRequest {
    counts: Arc<Counts>,
    shared: Arc<Shared>,
}

impl Drop for RunningRequest {
    fn drop(&mut self) {
        self.counts.running.fetch_sub(1, Ordering::Relaxed);
        self.counts.requests.fetch_add(1, Ordering::Relaxed);
        self.counts.tokens.fetch_add(self.shared.tokens(), Ordering::Relaxed);
    }
}

/// A request that waits for a slot. Dropping it ends the wait.
struct Waits<'a>(&'a Counts);

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The members of a request that the server reads; the engine reads the rest.
#[derive(Debug, Deserialize)]
struct Body {
    model: String,
    #[serde(default)]
    stream: Option<bool>,
    #[serde(default)]
    stream_options: Option<StreamOptions>,
}

#[derive(Debug, Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: Option<bool>,
}

/// Serves until the future is dropped.
// Not an `async fn`, so that its code is compiled in this crate and not in its caller's.
pub fn serve(listener: TcpListener, server: Arc<Server>) -> BoxFuture<'static, ()> {
    Box::pin(accept(listener, server))
}

async fn accept(listener: TcpListener, server: Arc<Server>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((tcp, _)) => drop(connections.spawn(connection(tcp, Arc::clone(&server)))),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    // Without a free file descriptor the next accept fails at once as well.
                    tokio::task::yield_now().await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(tcp: TcpStream, server: Arc<Server>) {
    if tcp.set_nodelay(true).is_err() {
        // The client is gone already.
        return;
    }
    let service = service_fn(move |request| {
        let server = Arc::clone(&server);
        async move { Ok::<_, Infallible>(server.answer(request).await) }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(tcp), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "connection ended");
    }
}

impl Server {
    /// A server of `engine`'s models.
    pub fn new(engine: Arc<SimEngine>, models: &[String], slots: Option<u32>, blocks: bool) -> Self {
        let permits = |slots: u32| Arc::new(Semaphore::new(usize::try_from(slots).unwrap_or(Semaphore::MAX_PERMITS)));
        Self {
            engine,
            models: models.to_vec(),
            slots: slots.map(permits),
            blocks,
            counts: Arc::default(),
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<AnyBody> {
        match (request.method(), request.uri().path()) {
            (&Method::POST, "/v1/chat/completions") => match self.chat(request).await {
                Ok(response) => response,
                Err(error) => failure(&error),
            },
            (&Method::GET, "/v1/models") => fixed(StatusCode::OK, JSON, documents::models(&self.models)),
            (&Method::GET, "/health") => fixed(StatusCode::OK, "text/plain", String::new()),
            (&Method::GET, "/metrics") => {
                let count = |one: &AtomicU64| one.load(Ordering::Relaxed);
                let Counts {
                    running,
                    waiting,
                    requests,
                    tokens,
                } = &*self.counts;
                let metrics = documents::metrics(count(running), count(waiting), count(requests), count(tokens));
                fixed(StatusCode::OK, "text/plain; version=0.0.4", metrics)
            }
            (method, path) => {
                let message = format!("There is no {method} {path} here");
                let error = refusal(ErrorCode::ModelNotFound, message, None);
                fixed(StatusCode::NOT_FOUND, JSON, documents::envelope(&error))
            }
        }
    }

    async fn chat(&self, request: Request<Incoming>) -> Result<Response<AnyBody>, EngineError> {
        let body = Limited::new(request.into_body(), BODY_BYTES).collect().await;
        let body = body.map_err(|error| refusal(ErrorCode::BadRequest, error.to_string(), None))?;
        let body = body.to_bytes();
        let asked: Body = serde_json::from_slice(&body).map_err(|error| {
            let message = format!("The request cannot be read: {error}");
            refusal(ErrorCode::BadRequest, message, None)
        })?;
        if !self.models.contains(&asked.model) {
            let message = format!("The model {:?} does not exist", asked.model);
            return Err(refusal(ErrorCode::ModelNotFound, message, Some("model")));
        }
        let slot = self.slot().await;
        let id = uuid::Uuid::now_v7();
        let identity = Identity::new(id, asked.model.clone());
        let usage = asked.stream_options.and_then(|options| options.include_usage);
        let stream = asked.stream.unwrap_or(false);
        let form = if stream {
            Form::Stream(Chunks::new(&identity, usage.unwrap_or(false)))
        } else {
            Form::Whole(Vec::new())
        };
        let (sink, shared) = answer(form, self.blocks);
        self.counts.running.fetch_add(1, Ordering::Relaxed);
        let counted = RunningRequest {
            counts: Arc::clone(&self.counts),
            shared: Arc::clone(&shared),
        };
        let job = Job {
            id,
            kind: RequestKind::Chat,
            model: asked.model,
            body,
            prompt: Default::default(),
            // A client that stops waiting closes the connection.
            deadline: Instant::now(),
            resume: None,
            trace: None,
        };
        let running = self.engine.generate(job, sink);
        let held = Held::new(running, slot, counted);
        if stream {
            return streamed(shared, held);
        }
        shared.ended().await;
        drop(held);
        whole(&identity, &shared)
    }

    async fn slot(&self) -> Option<OwnedSemaphorePermit> {
        let slots = Arc::clone(self.slots.as_ref()?);
        self.counts.waiting.fetch_add(1, Ordering::Relaxed);
        let waits = Waits(&self.counts);
        // The semaphore is never closed.
        let permit = slots.acquire_owned().await.ok();
        drop(waits);
        permit
    }
}

/// The answer as a stream; an error before the first token is a status instead.
fn streamed(shared: Arc<Shared>, held: Held) -> Result<Response<AnyBody>, EngineError> {
    if let Some((End::Failed(error), _)) = shared.end() {
        return Err(error);
    }
    let held = Some(held);
    let mut response = Response::new(Either::Left(Stream { shared, held }));
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/event-stream; charset=utf-8"),
    );
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    Ok(response)
}

fn whole(identity: &Identity, shared: &Shared) -> Result<Response<AnyBody>, EngineError> {
    match shared.end() {
        Some((End::Finished(finish), choices)) => {
            let document = documents::completion(identity, &choices, &finish);
            Ok(fixed(StatusCode::OK, JSON, document))
        }
        Some((End::Failed(error), _)) => Err(error),
        Some((End::Dropped, _)) | None => {
            let message = "The answer was dropped, as its script says".to_owned();
            Err(refusal(ErrorCode::Internal, message, None))
        }
    }
}

fn failure(error: &EngineError) -> Response<AnyBody> {
    let status = StatusCode::from_u16(documents::status(error.code)).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = fixed(status, JSON, documents::envelope(error));
    if let Some(wait) = error.retry_after_ms {
        let seconds = HeaderValue::from(wait.div_ceil(1000));
        response.headers_mut().insert(http::header::RETRY_AFTER, seconds);
    }
    response
}

fn fixed(status: StatusCode, content_type: &'static str, text: String) -> Response<AnyBody> {
    let never: fn(Infallible) -> Broken = |never| match never {};
    let body = Fixed::new(Bytes::from(text)).map_err(never);
    let mut response = Response::new(Either::Right(body));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
