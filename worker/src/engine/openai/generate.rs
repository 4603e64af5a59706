//! One job: its request to the server, and the server's stream into the sink.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use futures_util::future::try_join_all;
use http::{Response, StatusCode};
use tokenbus_bus::task::{self, AbortOnDrop};
use tokenbus_protocol::{Delta, EngineError, ErrorCode, Finish};

use super::client::{AnswerBody, Path, SendError, header_text, read_to_end};
use super::error;
use super::limits;
use super::request::{self, Call, Plan, Target};
use super::seam::{Seam, without_skipped};
use super::shared::Shared;
use super::sse::SseParser;
use super::stream::{Answer, Step, Stopped, UsageRule, merge};
use super::unary;
use crate::engine::{Closed, Job, Running, Sink};

/// Several upstream answers may write to one sink (a failover with `n > 1`).
pub(super) type Output = Mutex<Box<dyn Sink>>;

/// Starts `job`; dropping what is returned closes its connection to the server.
pub(super) fn start(shared: Arc<Shared>, job: Job, sink: Box<dyn Sink>) -> Running {
    Running::new(AbortOnDrop::new(task::spawn("openai-generate", run(shared, job, sink))))
}

async fn run(shared: Arc<Shared>, job: Job, sink: Box<dyn Sink>) {
    let output = Mutex::new(sink);
    let deadline = tokio::time::Instant::from_std(job.deadline);
    let driven = async {
        if job.kind.is_generated() {
            drive(&shared, &job, &output).await
        } else {
            Ok((unary::drive(&shared, &job, &output).await?, Vec::new()))
        }
    };
    let outcome = tokio::time::timeout_at(deadline, driven).await;
    let sink = output.into_inner().unwrap_or_else(PoisonError::into_inner);
    match outcome {
        Ok(Ok((finish, leftovers))) => {
            sink.finish(finish);
            leftovers.into_iter().for_each(drain);
        }
        Ok(Err(Stopped::Closed)) => {}
        Ok(Err(Stopped::Failed(error))) => sink.fail(error),
        Err(_elapsed) => sink.fail(error::timeout()),
    }
}

/// All that the server does for the job. Dropped, it closes the connections.
async fn drive(shared: &Arc<Shared>, job: &Job, output: &Output) -> Result<(Finish, Vec<AnswerBody>), Stopped> {
    let catalog = shared.catalog();
    let Some(path) = request::path(job.kind) else {
        return Err(error::plain(ErrorCode::BadRequest, "this engine does not serve that API", false).into());
    };
    let Some(target) = catalog.target(&job.model) else {
        let message = format!("the engine does not serve the model {:?}", job.model);
        return Err(error::plain(ErrorCode::ModelNotFound, message, true).into());
    };
    let Plan { calls, exhausted } = planned(job, target).await?;
    for choice in exhausted {
        emit(
            output,
            Delta {
                choice,
                finish_reason: Some("length".to_owned()),
                ..Delta::default()
            },
        )?;
    }
    if calls.is_empty() {
        return Ok((merge(Vec::new()), Vec::new()));
    }
    let asked = Asked {
        server: Server {
            shared,
            traceparent: job.traceparent.as_deref(),
        },
        output,
        path,
        rule: catalog.kind.usage_rule(),
    };
    let calls = try_join_all(calls.iter().map(|call| asked.call(call)));
    let (finishes, leftovers): (Vec<_>, Vec<_>) = permitted(shared, calls).await?.into_iter().unzip();
    Ok((merge(finishes), leftovers.into_iter().flatten().collect()))
}

/// Lets `work` run if the circuit breaker does, and tells it how that went.
pub(super) async fn permitted<T>(
    shared: &Arc<Shared>,
    work: impl Future<Output = Result<T, Stopped>>,
) -> Result<T, Stopped> {
    let Some(permit) = shared.permit(Instant::now()) else {
        let message = "the engine failed repeatedly and is left alone for a while";
        return Err(error::plain(ErrorCode::EngineUnavailable, message, true).into());
    };
    let outcome = work.await;
    match &outcome {
        Ok(_) => permit.success(),
        Err(Stopped::Failed(error)) if error::is_fault(error) => permit.failure(Instant::now()),
        Err(Stopped::Failed(_)) => permit.success(),
        Err(Stopped::Closed) => drop(permit),
    }
    outcome
}

async fn planned(job: &Job, target: &Target) -> Result<Plan, EngineError> {
    if job.body.len() <= limits::INLINE_BODY {
        return request::plan(job.kind, &job.body, target, job.resume.as_ref());
    }
    let (kind, body, target, resume) = (job.kind, job.body.clone(), target.clone(), job.resume.clone());
    let blocking = tokio::task::spawn_blocking(move || request::plan(kind, &body, &target, resume.as_ref()));
    match blocking.await {
        Ok(plan) => plan,
        Err(_panic_or_shutdown) => Err(error::nonsense("the request could not be prepared for the engine")),
    }
}

pub(super) fn emit(output: &Output, delta: Delta<'_>) -> Result<(), Closed> {
    output.lock().unwrap_or_else(PoisonError::into_inner).delta(delta)
}

/// What the calls of one job have in common.
struct Asked<'j> {
    server: Server<'j>,
    output: &'j Output,
    path: Path<'static>,
    rule: UsageRule,
}

/// The server, as one job speaks to it.
pub(super) struct Server<'j> {
    pub(super) shared: &'j Shared,
    pub(super) traceparent: Option<&'j str>,
}

impl Asked<'_> {
    /// One request and its stream. The body comes back where it was not read to its very end.
    async fn call(&self, call: &Call) -> Result<(Finish, Option<AnswerBody>), Stopped> {
        let answer = self.server.post(self.path, &call.body).await?;
        let secrets = self.server.shared.client.secrets();
        if header_text(answer.headers(), "content-type").is_some_and(|kind| kind.contains("json")) {
            return Err(no_stream(answer, &secrets).await.into());
        }
        let mut body = answer.into_body();
        let mut parser = SseParser::new();
        let mut answer = Answer::new(call, self.rule, &secrets);
        for (choice, text) in (0..).zip(&call.echoes) {
            let text = text.as_str().into();
            emit(
                self.output,
                Delta {
                    choice,
                    text,
                    ..Delta::default()
                },
            )?;
        }
        let mut seam = call.seam.clone();
        while let Some(fed) = body.feed(&mut |bytes| parser.push(bytes)).await {
            fed.map_err(|reason| self.server.broken(&reason))?;
            self.server.shared.output_came();
            while let Some(event) = parser.next().map_err(|reason| error::nonsense(&reason.to_string()))? {
                let mut out = |delta: Delta<'_>| emit(self.output, delta);
                let step = answer.event(event, &mut |delta| seam.pass(delta, &mut out))?;
                match &seam {
                    // The body is dropped, and with it the connection: the engine stops too.
                    Seam::Stopped(tokens) => return Ok((stopped(*tokens), None)),
                    Seam::Differs { retryable } => return Err(error::came_out_otherwise(*retryable).into()),
                    Seam::Open | Seam::Stops(_) | Seam::Skip(_) => {}
                }
                if step == Step::Done {
                    return Ok((without_skipped(answer.finish(), call.again), Some(body)));
                }
            }
        }
        answer.ended()?;
        Ok((without_skipped(answer.finish(), call.again), None))
    }
}

impl Server<'_> {
    /// Posts `body`; what comes back is an answer that began well.
    pub(super) async fn post(&self, path: Path<'_>, body: &Bytes) -> Result<Response<AnswerBody>, EngineError> {
        let sent = self.shared.client.post(path, body, self.traceparent).await;
        let answer = sent.map_err(|error| self.send_error(&error))?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let secrets = self.shared.client.secrets();
        Err(self.refusal(answer, &secrets).await)
    }

    fn send_error(&self, error: &SendError) -> EngineError {
        tracing::warn!(%error, "the engine cannot be reached");
        match error {
            SendError::Invalid(_) | SendError::TooLarge => {
                error::plain(ErrorCode::Internal, "the request cannot be sent to the engine", false)
            }
            SendError::Connect(_) | SendError::Broken(_) | SendError::Timeout => {
                self.shared.connection_failed();
                error::unreachable()
            }
        }
    }

    pub(super) fn broken(&self, reason: &SendError) -> EngineError {
        tracing::warn!(%reason, "the engine's stream broke");
        self.shared.connection_failed();
        error::truncated()
    }

    async fn refusal(&self, answer: Response<AnswerBody>, secrets: &error::Secrets) -> EngineError {
        let (parts, body) = answer.into_parts();
        if matches!(
            parts.status,
            StatusCode::NOT_FOUND | StatusCode::SERVICE_UNAVAILABLE | StatusCode::BAD_GATEWAY
        ) {
            self.shared.look_again();
        }
        let body = error_body(body).await;
        let retry_after = header_text(&parts.headers, "retry-after");
        let error = error::from_response(parts.status, retry_after, &body, SystemTime::now(), secrets);
        if error::is_fault(&error) || error.code == ErrorCode::UpstreamUnauthorized {
            tracing::warn!(status = parts.status.as_u16(), message = %error.message, "the engine failed");
        }
        error
    }
}

/// The end of an answer that a stop string across the seam has ended: the engine did not get to
/// tell its usage.
fn stopped(tokens: u64) -> Finish {
    Finish {
        completion_tokens: Some(tokens),
        ..Finish::default()
    }
}

async fn no_stream(answer: Response<AnswerBody>, secrets: &error::Secrets) -> EngineError {
    let body = error_body(answer.into_body()).await;
    let is_error = serde_json::from_slice::<serde_json::Value>(&body).is_ok_and(|body| body.get("error").is_some());
    match std::str::from_utf8(&body) {
        Ok(text) if is_error => error::from_stream(text, secrets),
        _ => error::plain(ErrorCode::Internal, "the engine does not stream its answers", false),
    }
}

/// What there is of an error's body within its bounds; the status alone says enough.
async fn error_body(body: AnswerBody) -> Bytes {
    match tokio::time::timeout(limits::ERROR_BODY_TIMEOUT, read_to_end(body, limits::MAX_ERROR_BODY)).await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) | Err(_) => Bytes::new(),
    }
}

/// Reads the end of an answer, so that its connection can serve the next request. The client does
/// not wait for it.
fn drain(mut body: AnswerBody) {
    task::spawn("openai-drain", async move {
        let rest = async { while let Some(Ok(())) = body.feed(&mut |_| {}).await {} };
        let _ = tokio::time::timeout(limits::DRAIN_TIMEOUT, rest).await;
    });
}
