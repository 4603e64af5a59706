//! Makes the response from a call's outputs: streamed or in one piece, in the form of its API.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderName, HeaderValue};
use tokenbus_api::{AnswerError, Collect, Form, Identity};
use tokio::time::{Instant, timeout_at};

use crate::call::{CallError, CallStream, Output};
use crate::fast_path::bypass::Bypass;
use crate::fast_path::handover::Streamed;
use crate::http::answer::event_stream::EventStream;
use crate::http::answer::faults::{ended_early, overdue, unasked};
use crate::http::answer::keeping::{Keeper, Keeping};
use crate::http::answer::record::Record;
use crate::http::error::HttpError;
use crate::http::options::HttpOptions;
use crate::http::request::headers::ESTIMATED;

const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// What an answer is made with, besides the call.
pub(crate) struct AnswerContext {
    /// The API's form.
    pub(crate) form: Box<dyn Form>,
    pub(crate) identity: Identity,
    /// When the request is answered, whatever the core does. Output of a stream moves it.
    pub(crate) backstop: Instant,
    /// Time that a stream may be without output, whatever the core does.
    pub(crate) silence: Duration,
    /// The answer's head says which worker gives it, and why.
    pub(crate) explain: bool,
    pub(crate) record: Record,
    /// The client's socket, if events may be sent past the HTTP library.
    pub(crate) bypass: Option<Arc<dyn Bypass>>,
    /// Stores the answer, if it is to be stored.
    pub(crate) keeper: Option<Keeper>,
}

/// Answers with the outputs of a call.
pub(crate) async fn answer(
    stream: impl CallStream,
    mut context: Box<AnswerContext>,
    options: &HttpOptions,
) -> Response {
    match context.keeper.take() {
        None => respond(stream, context, options).await,
        Some(keeper) => {
            let collector = context.form.collector(context.identity.clone());
            let stream = Keeping::new(stream, keeper, collector, context.identity.clone());
            // Boxed, so that requests whose answer is not stored do not reserve space for this.
            Box::pin(respond(stream, context, options)).await
        }
    }
}

async fn respond(stream: impl CallStream, context: Box<AnswerContext>, options: &HttpOptions) -> Response {
    if context.form.is_stream() {
        streamed(stream, context, options).await
    } else {
        in_one_piece(stream, context).await
    }
}

/// Waits for the first output, so that an error before it gets its own status; at most `commit_after`, so that proxies
/// do not cut the connection.
async fn streamed<S: CallStream>(mut stream: S, mut context: Box<AnswerContext>, options: &HttpOptions) -> Response {
    let commit = Instant::now() + options.commit_after;
    let backstop = context.backstop;
    let first = match timeout_at(commit.min(backstop), first_output(&mut stream, &mut context.record)).await {
        Ok(Ok(output)) => Some(output),
        Ok(Err(error)) => return refuse(&mut context.record, context.form.as_ref(), &error),
        Err(_) if commit >= backstop => return refuse(&mut context.record, context.form.as_ref(), &overdue()),
        Err(_) => None,
    };
    begin(stream, *context, first, options)
}

/// The response: its head, and the stream as its body.
fn begin<S: CallStream>(stream: S, context: AnswerContext, first: Option<Output>, options: &HttpOptions) -> Response {
    let kind = context.form.stream_type();
    let explained = context.explain.then(|| context.record.explained());
    let stream = EventStream {
        call: stream,
        encoder: context.form.encoder(context.identity),
        record: context.record,
        first,
        bypass: context.bypass.filter(|_| options.direct),
        keep_alive: options.keep_alive,
        backstop: context.backstop,
        silence: context.silence,
    };
    let mut response = Response::new(Body::from_stream(stream.into_body()));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    // Proxies must neither cache nor buffer events.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(ACCEL_BUFFERING, HeaderValue::from_static("no"));
    headers.extend(explained.into_iter().flatten());
    response.extensions_mut().insert(Streamed);
    response
}

async fn first_output<S: CallStream>(stream: &mut S, record: &mut Record) -> Result<Output, HttpError> {
    loop {
        let output = stream.next().await.ok_or_else(ended_early)??;
        match &output {
            Output::Accepted { worker, why, kind, .. } => record.placed(worker, *why, kind),
            Output::Finish(_) => return Err(AnswerError::NoAnswer.into()),
            Output::Delta(_) => return Ok(output),
            // A streamed answer never begins anew.
            Output::Written(_) | Output::Anew => return Err(unasked()),
        }
    }
}

async fn in_one_piece(mut stream: impl CallStream, mut context: Box<AnswerContext>) -> Response {
    let AnswerContext {
        form,
        identity,
        backstop,
        record,
        explain,
        ..
    } = context.as_mut();
    let collector = || form.collector(identity.clone());
    match timeout_at(*backstop, collect(&mut stream, collector, record)).await {
        Ok(Ok(answer)) => {
            let explained = explain.then(|| record.explained());
            record.succeeded();
            let mut response = ([(CONTENT_TYPE, "application/json")], answer).into_response();
            response.headers_mut().extend(explained.into_iter().flatten());
            response
        }
        Ok(Err(error)) => match form.estimate().filter(|_| is_unable(&error)) {
            Some(answer) => {
                record.succeeded();
                ([(CONTENT_TYPE, "application/json")], [(ESTIMATED, "true")], answer).into_response()
            }
            None => refuse(record, form.as_ref(), &error),
        },
        Err(_) => refuse(record, form.as_ref(), &overdue()),
    }
}

/// Whether no engine of the model can do what the request asks for.
fn is_unable(error: &HttpError) -> bool {
    matches!(error, HttpError::Call(CallError::Unsupported { .. }))
}

/// Ends a request with `error` instead of an answer.
pub(crate) fn refuse(record: &mut Record, form: &dyn Form, error: &HttpError) -> Response {
    let verdict = record.failed(error, None);
    let body = form.error(&verdict.failure().of(record.id()));
    verdict.into_response_with(body)
}

async fn collect(
    stream: &mut impl CallStream,
    begin: impl Fn() -> Box<dyn Collect>,
    record: &mut Record,
) -> Result<Bytes, HttpError> {
    let mut collector = begin();
    loop {
        let happened = match stream.try_next() {
            Some(happened) => Some(happened),
            None => {
                // One look at the clock per wake-up, however many tokens it brings.
                record.flush(Instant::now());
                stream.next().await
            }
        };
        match &happened.ok_or_else(ended_early)?? {
            Output::Accepted { worker, why, kind, .. } => record.placed(worker, *why, kind),
            Output::Anew => {
                record.anew();
                collector = begin();
            }
            Output::Delta(delta) => {
                record.saw(delta);
                collector.delta(delta)?;
            }
            Output::Written(_) => return Err(unasked()),
            Output::Finish(finish) => {
                let now = Instant::now();
                record.flush(now);
                collector.times(record.times(now));
                let answer = collector.finish(finish)?;
                record.finished(finish);
                return Ok(answer);
            }
        }
    }
}
