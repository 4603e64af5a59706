//! `POST /v1/chat/completions`.

use std::borrow::Borrow as _;
use std::time::SystemTime;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderName, HeaderValue};
use tokenbus_protocol::RequestKind;
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use super::body;
use super::error::HttpError;
use super::headers::CallHeaders;
use super::idempotent;
use super::limits::BACKSTOP;
use super::record::Record;
use super::request_id::RequestId;
use super::source::Source;
use super::sse::EventStream;
use super::{Edge, HttpOptions};
use crate::api::chat::{ChatView, check};
use crate::api::chunk::ChunkEncoder;
use crate::api::collect::Collector;
use crate::api::{AnswerError, Identity};
use crate::call::{Call, CallError, Output, Stage};
use crate::core::Core;

const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// The path.
pub(super) const PATH: &str = "/v1/chat/completions";

/// A request that has passed all checks.
struct Prepared {
    call: Call,
    view: ChatView,
    identity: Identity,
    idempotency_key: Option<String>,
}

/// In which form the answer is wanted, and what there is to make it of.
pub(super) struct Asked {
    view: ChatView,
    pub(super) identity: Identity,
    /// When the request is answered whatever the core does.
    backstop: Instant,
    pub(super) record: Record,
}

/// Answers a chat request. While it waits it is part of the connection's task: a client that goes
/// away ends it, which drops the call's stream and so cancels the call.
pub(super) async fn create<C: Core>(
    State(edge): State<Edge<C>>,
    Extension(id): Extension<RequestId>,
    request: Request,
) -> Response {
    let arrived = Instant::now();
    let mut record = Record::begin(&edge.metrics, id.clone(), arrived);
    let prepared = match prepare(&edge, id, request, arrived).await {
        Ok(prepared) => prepared,
        Err(error) => return record.failed(&error, None).into_response(),
    };
    record.called(&prepared.call);
    let call = prepared.call;
    let asked = Asked {
        view: prepared.view,
        identity: prepared.identity,
        backstop: call.deadline + BACKSTOP,
        record,
    };
    match prepared.idempotency_key {
        None => answer(edge.core.open(call), asked, &edge.options).await,
        // In a box, so that requests without a key do not hold room for this.
        Some(key) => Box::pin(idempotent::answer(&edge, key, PATH, call, asked)).await,
    }
}

/// Answers with what comes of a call.
pub(super) async fn answer(source: impl Source, asked: Asked, options: &HttpOptions) -> Response {
    if asked.view.stream {
        streamed(source, asked, options).await
    } else {
        whole(source, asked).await
    }
}

async fn prepare<C: Core>(
    edge: &Edge<C>,
    id: RequestId,
    request: Request,
    arrived: Instant,
) -> Result<Prepared, HttpError> {
    let headers = CallHeaders::read(request.headers(), edge.options.request_timeout)?;
    let body = body::read(request, edge.options.body_limit).await?;
    let view = check(&body)?;
    let call = Call {
        id: Uuid::now_v7(),
        kind: RequestKind::Chat,
        model: view.model.clone(),
        body,
        deadline: arrived + headers.timeout,
        priority: headers.priority,
        tenant: headers.tenant,
        client_id: id.0,
        trace: headers.trace,
        not_resumable: view.not_resumable,
    };
    let created = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let created = created.map_or(0, |since| since.as_secs());
    Ok(Prepared {
        identity: Identity::new(call.id, created, &call.model),
        call,
        view,
        idempotency_key: headers.idempotency_key,
    })
}

/// Waits for the first output, so that an error before it has a status of its own; not longer than
/// `commit_after`, so that proxies see life.
async fn streamed<S: Source>(mut source: S, asked: Asked, options: &HttpOptions) -> Response {
    let Asked {
        view,
        identity,
        backstop,
        mut record,
    } = asked;
    let commit = Instant::now() + options.commit_after;
    let first = match timeout_at(commit.min(backstop), first_output(&mut source, &mut record)).await {
        Ok(Ok(output)) => Some(output),
        Ok(Err(error)) => return record.failed(&error, None).into_response(),
        Err(_) if commit >= backstop => return record.failed(&overdue(), None).into_response(),
        Err(_) => None,
    };
    let stream = EventStream {
        call: source,
        encoder: ChunkEncoder::new(identity, view.include_usage),
        record,
        first,
        keep_alive: options.keep_alive,
        backstop,
    };
    let mut response = Response::new(Body::from_stream(stream.into_body()));
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/event-stream; charset=utf-8"),
    );
    // Proxies must neither keep nor gather events.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(ACCEL_BUFFERING, HeaderValue::from_static("no"));
    response
}

async fn first_output<S: Source>(source: &mut S, record: &mut Record) -> Result<S::Said, HttpError> {
    loop {
        let said = source.next().await.ok_or_else(ended_early)??;
        match said.borrow() {
            Output::Accepted { .. } => record.placed(),
            Output::Finish(_) => return Err(AnswerError::NoAnswer.into()),
            Output::Delta(_) => return Ok(said),
        }
    }
}

async fn whole(mut source: impl Source, asked: Asked) -> Response {
    let Asked {
        identity,
        backstop,
        mut record,
        ..
    } = asked;
    let collector = Collector::new(identity);
    match timeout_at(backstop, collect(&mut source, collector, &mut record)).await {
        Ok(Ok(answer)) => {
            record.succeeded();
            ([(CONTENT_TYPE, "application/json")], answer).into_response()
        }
        Ok(Err(error)) => record.failed(&error, None).into_response(),
        Err(_) => record.failed(&overdue(), None).into_response(),
    }
}

async fn collect(source: &mut impl Source, mut collector: Collector, record: &mut Record) -> Result<Bytes, HttpError> {
    loop {
        let happened = match source.try_next() {
            Some(happened) => Some(happened),
            None => {
                // One look at the clock per wake-up, however many tokens it brought.
                record.flush(Instant::now());
                source.next().await
            }
        };
        match happened.ok_or_else(ended_early)??.borrow() {
            Output::Accepted { .. } => record.placed(),
            Output::Delta(delta) => {
                record.saw(delta);
                collector.delta(delta)?;
            }
            Output::Finish(finish) => {
                let answer = collector.finish(finish)?;
                record.usage(finish.prompt_tokens, finish.completion_tokens);
                return Ok(answer);
            }
        }
    }
}

/// The core has said nothing up to the backstop.
pub(super) fn overdue() -> HttpError {
    tracing::error!("a call outlived its deadline in the core");
    CallError::Deadline {
        stage: Stage::Generation,
    }
    .into()
}

/// The core's stream has ended with neither finish nor error.
pub(super) fn ended_early() -> HttpError {
    CallError::Internal("the stream ended without its finish".to_owned()).into()
}
