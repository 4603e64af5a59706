//! One job: its request to the server, and the server's stream into the sink.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use futures_util::future::try_join_all;
use http::Response;
use tokenbus_bus::task::{self, AbortOnDrop};
use tokenbus_http_parts::EventParser;
use tokenbus_protocol::{Delta, EngineError, ErrorCode, Finish};

use super::answer::exchange::{Output, Server, emit, error_body, permitted};
use super::answer::streamed::{Answer, Step, Stopped, merge};
use super::answer::unary;
use super::error;
use super::limits;
use super::request;
use super::request::engine_request::{Call, Plan};
use super::request::seam::Seam;
use super::target::{Target, UsageRule};
use super::watch::shared::Shared;
use super::wire::client::{AnswerBody, Path, header_text};
use crate::engine::{Job, Running, Sink};

/// Starts `job`; dropping what is returned closes its connection to the server.
pub(super) fn start(shared: Arc<Shared>, job: Job, sink: Box<dyn Sink>) -> Running {
    Running::new(AbortOnDrop::new(task::spawn("openai-generate", run(shared, job, sink))))
}

async fn run(shared: Arc<Shared>, job: Job, sink: Box<dyn Sink>) {
    let output = Mutex::new(sink);
    let driven = async {
        if job.kind.is_generated() {
            drive(&shared, &job, &output).await
        } else {
            Ok((unary::drive(&shared, &job, &output).await?, Vec::new()))
        }
    };
    let outcome = tokio::select! {
        biased;
        outcome = driven => outcome,
        given_up = given_up(&shared, job.deadline) => Err(given_up.into()),
    };
    let sink = output.into_inner().unwrap_or_else(PoisonError::into_inner);
    match outcome {
        Ok((finish, leftovers)) => {
            sink.finish(finish);
            leftovers.into_iter().for_each(drain);
        }
        Err(Stopped::Closed) => {}
        Err(Stopped::Failed(error)) => sink.fail(error),
    }
}

/// Waits until the job is not worth waiting for: its time is over, or its server is lost.
async fn given_up(shared: &Shared, deadline: Instant) -> EngineError {
    loop {
        let now = Instant::now();
        if now >= deadline {
            return error::timeout();
        }
        if shared.is_lost(now) {
            return error::lost();
        }
        tokio::time::sleep_until(deadline.min(now + limits::LOST_CHECK).into()).await;
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

/// What the calls of one job have in common.
struct Asked<'j> {
    server: Server<'j>,
    output: &'j Output,
    path: Path<'static>,
    rule: UsageRule,
}

impl Asked<'_> {
    /// One choice's request, and another where the engine refuses the first or answers otherwise than
    /// the client has it already.
    async fn call(&self, call: &Call) -> Result<(Finish, Option<AnswerBody>), Stopped> {
        let mut next = Some(call);
        let mut last = Err(Stopped::Closed);
        while let Some(call) = next.take() {
            let mut told = false;
            last = self.stream(call, &mut told).await;
            let Err(Stopped::Failed(error)) = &mut last else { break };
            if call.continues && error::refuses_continuation(error) {
                *error = error::continuation_refused(error);
            }
            if !told && error::is_not_continuable(error) {
                next = call.otherwise.as_deref();
            }
        }
        last
    }

    /// One request and its stream; `told` is set when the client gets something of it. The body comes
    /// back where it was not read to its very end.
    async fn stream(&self, call: &Call, told: &mut bool) -> Result<(Finish, Option<AnswerBody>), Stopped> {
        let answer = self.server.post(self.path, &call.body).await?;
        let secrets = self.server.shared.client.secrets();
        if header_text(answer.headers(), "content-type").is_some_and(|kind| kind.contains("json")) {
            return Err(no_stream(answer, &secrets).await.into());
        }
        let mut body = answer.into_body();
        let (mut parser, mut read) = (EventParser::new(limits::MAX_EVENT), Vec::new());
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
        while let Some(fed) = body.feed(&mut |bytes| read.extend_from_slice(bytes)).await {
            match fed {
                // All was said but the end of the stream.
                Err(reason) if answer.is_complete() => {
                    self.server.broken(&reason);
                    break;
                }
                fed => fed.map_err(|reason| self.server.broken(&reason))?,
            }
            self.server.shared.output_came();
            let mut unread = read.as_slice();
            while let Some(event) = parser
                .next(&mut unread)
                .map_err(|reason| error::nonsense(&reason.to_string()))?
            {
                let mut out = |delta: Delta<'_>| {
                    *told = true;
                    emit(self.output, delta)
                };
                let step = answer.event(event, &mut |delta| seam.pass(delta, &mut out))?;
                match &seam {
                    // The body is dropped, and with it the connection: the engine stops too.
                    Seam::Stopped(tokens) => return Ok((stopped(*tokens), None)),
                    Seam::Differs { retryable } => return Err(error::came_out_otherwise(*retryable).into()),
                    Seam::Open | Seam::Stops(_) | Seam::Skip(_) | Seam::Blank(_) => {}
                }
                if step == Step::Done {
                    if answer.is_unsaid() {
                        self.server.shared.unsaid_finish();
                    }
                    return Ok((call.joined(answer.finish(), &seam), Some(body)));
                }
            }
            read.clear();
        }
        answer.ended()?;
        Ok((call.joined(answer.finish(), &seam), None))
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

/// Reads the end of an answer, so that its connection can serve the next request. The client does
/// not wait for it.
fn drain(mut body: AnswerBody) {
    task::spawn("openai-drain", async move {
        let rest = async { while let Some(Ok(())) = body.feed(&mut |_| {}).await {} };
        let _ = tokio::time::timeout(limits::DRAIN_TIMEOUT, rest).await;
    });
}
