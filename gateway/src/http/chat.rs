//! `POST /v1/chat/completions`.

use std::time::SystemTime;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderName, HeaderValue};
use tokenbus_protocol::{Finish, RequestKind};
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use super::Edge;
use super::body;
use super::error::HttpError;
use super::headers::CallHeaders;
use super::limits::BACKSTOP;
use super::record::Record;
use super::request_id::RequestId;
use super::sse::EventStream;
use crate::api::chat::{ChatView, check};
use crate::api::chunk::ChunkEncoder;
use crate::api::collect::Collector;
use crate::api::{AnswerError, Identity};
use crate::call::{Call, CallError, Output, Stage};
use crate::core::{CallStream, Core};

const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// A request that has passed all checks.
struct Prepared {
    call: Call,
    view: ChatView,
    identity: Identity,
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
    let backstop = prepared.call.deadline + BACKSTOP;
    let stream = edge.core.open(prepared.call);
    if prepared.view.stream {
        let encoder = ChunkEncoder::new(prepared.identity, prepared.view.include_usage);
        streamed(&edge, stream, encoder, record, backstop).await
    } else {
        whole(stream, Collector::new(prepared.identity), record, backstop).await
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
    })
}

/// Waits for the first output, so that an error before it has a status of its own; not longer than
/// `commit_after`, so that proxies see life.
async fn streamed<S: CallStream>(
    edge: &Edge<impl Core>,
    mut call: S,
    encoder: ChunkEncoder,
    mut record: Record,
    backstop: Instant,
) -> Response {
    let commit = Instant::now() + edge.options.commit_after;
    let first = match timeout_at(commit.min(backstop), first_output(&mut call, &mut record)).await {
        Ok(Ok(output)) => Some(output),
        Ok(Err(error)) => return record.failed(&error, None).into_response(),
        Err(_) if commit >= backstop => return record.failed(&overdue(), None).into_response(),
        Err(_) => None,
    };
    let stream = EventStream {
        call,
        encoder,
        record,
        first,
        keep_alive: edge.options.keep_alive,
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

async fn first_output(call: &mut impl CallStream, record: &mut Record) -> Result<Output, HttpError> {
    loop {
        match call.next().await {
            Some(Ok(Output::Accepted { .. })) => record.placed(),
            Some(Ok(Output::Finish(_))) => return Err(AnswerError::NoAnswer.into()),
            Some(Ok(output)) => return Ok(output),
            Some(Err(error)) => return Err(error.into()),
            None => return Err(ended_early()),
        }
    }
}

async fn whole(mut call: impl CallStream, collector: Collector, mut record: Record, backstop: Instant) -> Response {
    match timeout_at(backstop, collect(&mut call, collector, &mut record)).await {
        Ok(Ok((answer, finish))) => {
            record.usage(finish.prompt_tokens, finish.completion_tokens);
            record.succeeded();
            ([(CONTENT_TYPE, "application/json")], answer).into_response()
        }
        Ok(Err(error)) => record.failed(&error, None).into_response(),
        Err(_) => record.failed(&overdue(), None).into_response(),
    }
}

async fn collect(
    call: &mut impl CallStream,
    mut collector: Collector,
    record: &mut Record,
) -> Result<(Bytes, Finish), HttpError> {
    loop {
        let happened = match call.try_next() {
            Some(happened) => Some(happened),
            None => {
                // One look at the clock per wake-up, however many tokens it brought.
                record.flush(Instant::now());
                call.next().await
            }
        };
        match happened.ok_or_else(ended_early)?? {
            Output::Accepted { .. } => record.placed(),
            Output::Delta(delta) => {
                record.saw(&delta);
                collector.delta(&delta)?;
            }
            Output::Finish(finish) => return Ok((collector.finish(&finish)?, finish)),
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
