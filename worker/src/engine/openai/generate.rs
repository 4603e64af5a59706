//! One job: its request to the server, and the server's stream into the sink.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use futures_util::future::try_join_all;
use http::StatusCode;
use tokenbus_bus::task::{self, AbortOnDrop};
use tokenbus_http_parts::EventParser;
use tokenbus_protocol::{Delta, EngineError, ErrorCode, Finish};

use super::answer::call_check::HeldAnswer;
use super::answer::exchange::{Output, Server, emit, permitted, room};
use super::answer::streamed::{Answer, Step, Stopped, merge};
use super::answer::{unary, whole};
use super::error;
use super::limits;
use super::manner::{Manner, Refused};
use super::request;
use super::request::engine_request::{Call, Plan};
use super::request::seam::Seam;
use super::target::{ServerKind, Target, UsageRule};
use super::watch::shared::Shared;
use super::wire::client::{AnswerBody, Path, header_text};
use crate::engine::{Closed, Job, Running, Sink};

/// Starts `job`; dropping what is returned closes its connection to the server.
pub(super) fn start(shared: Arc<Shared>, job: Job, sink: Box<dyn Sink>, slot: Option<u32>) -> Running {
    let generating = run(shared, job, sink, slot);
    Running::new(AbortOnDrop::new(task::spawn("openai-generate", generating)))
}

async fn run(shared: Arc<Shared>, job: Job, sink: Box<dyn Sink>, slot: Option<u32>) {
    let output = Mutex::new(sink);
    let driven = async {
        if job.kind.is_generated() {
            drive(&shared, &job, &output, slot).await
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
        if shared.pulse.is_hung() {
            return error::hung();
        }
        shared.pulse.check(now);
        tokio::time::sleep_until(deadline.min(now + limits::LOST_CHECK).into()).await;
    }
}

/// All that the server does for the job. Dropped, it closes the connections.
async fn drive(
    shared: &Arc<Shared>,
    job: &Job,
    output: &Output,
    slot: Option<u32>,
) -> Result<(Finish, Vec<AnswerBody>), Stopped> {
    let catalog = shared.catalog();
    let Some(path) = request::path(job.kind) else {
        return Err(error::plain(ErrorCode::BadRequest, "this engine does not serve that API", false).into());
    };
    let Some(target) = catalog.target(&job.model) else {
        let message = format!("the engine does not serve the model {:?}", job.model);
        return Err(error::plain(ErrorCode::ModelNotFound, message, true).into());
    };
    let (manner, proven) = shared.manner(&target.upstream);
    let manner = Manner { slot, ..manner };
    let plan = planned(job, target, &manner).await?;
    for choice in &plan.exhausted {
        emit(
            output,
            Delta {
                choice: *choice,
                finish_reason: Some("length".to_owned()),
                ..Delta::default()
            },
        )?;
    }
    if plan.calls.is_empty() {
        return Ok((merge(Vec::new()), Vec::new()));
    }
    let asking = async {
        let (mut manner, mut plan) = (manner, plan);
        loop {
            let kind = catalog.kind;
            let asked = Asked {
                server: Server::new(shared, job),
                output,
                path,
                rule: kind.usage_rule(),
                holds_back: plan.sent.tools && matches!(kind, ServerKind::Ollama | ServerKind::Unknown),
                touched: AtomicBool::new(false),
                worked: &|| shared.worked(&target.upstream, &manner, &plan.sent),
            };
            let outcome = try_join_all(plan.calls.iter().map(|call| asked.call(call))).await;
            let Err(Stopped::Failed(error)) = outcome else {
                return outcome;
            };
            // A refusal of what the client did not ask for: the server is asked once more, otherwise.
            let refused = asked.refused();
            let Some(next) = refused.and_then(|refused| manner.after(&refused, &plan.sent, &proven)) else {
                return Err(error.into());
            };
            plan = planned(job, target, &next).await?;
            manner = next;
        }
    };
    let (finishes, leftovers): (Vec<_>, Vec<_>) = permitted(shared, job, asking).await?.into_iter().unzip();
    Ok((merge(finishes), leftovers.into_iter().flatten().collect()))
}

async fn planned(job: &Job, target: &Target, manner: &Manner) -> Result<Plan, EngineError> {
    if job.body.len() <= limits::INLINE_BODY {
        return request::plan_as(job.kind, &job.body, target, job.resume.as_ref(), manner);
    }
    let (kind, body, resume) = (job.kind, job.body.clone(), job.resume.clone());
    let (target, manner) = (target.clone(), manner.clone());
    let blocking =
        tokio::task::spawn_blocking(move || request::plan_as(kind, &body, &target, resume.as_ref(), &manner));
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
    /// Whether the server may keep a tool call until it is complete.
    holds_back: bool,
    /// Whether output has been sent on: from then on the job is not asked otherwise.
    touched: AtomicBool,
    /// Told once the server has answered.
    worked: &'j (dyn Fn() + Sync),
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
        let mut flow = self.server.shared.pulse.stream(self.holds_back, Instant::now());
        let answer = self.server.post(self.path, &call.body).await?;
        if header_text(answer.headers(), "content-type").is_some_and(|kind| kind.contains("json")) {
            // What comes in one piece has no first token.
            drop(flow);
            return Ok((self.whole(call, answer.into_body(), told).await?, None));
        }
        let secrets = self.server.shared.client.secrets();
        let mut body = answer.into_body();
        let (mut parser, mut read) = (EventParser::new(limits::MAX_EVENT), Vec::new());
        let mut answer = Answer::new(call, self.rule, &secrets);
        self.echo(call)?;
        let mut seam = call.seam.clone();
        let mut held = call.asked.check_calls.then(HeldAnswer::default);
        while let Some(fed) = body.feed(&mut |bytes| read.extend_from_slice(bytes)).await {
            if let Err(reason) = fed {
                let mut out = |delta: Delta<'_>| self.send(delta, &mut held, told);
                answer.flush(&mut |delta| seam.pass(delta, &mut out))?;
                let broken = self.server.broken(&reason);
                if answer.is_complete() {
                    // All was said but the end of the stream.
                    break;
                }
                return Err(broken.into());
            }
            let now = Instant::now();
            self.server.shared.output_came(now);
            // Comments are no output.
            let mut events = false;
            let mut unread = read.as_slice();
            while let Some(event) = parser
                .next(&mut unread)
                .map_err(|reason| error::nonsense(&reason.to_string()))?
            {
                events = true;
                let mut out = |delta: Delta<'_>| self.send(delta, &mut held, told);
                let stepped = answer.event(event, &mut |delta| seam.pass(delta, &mut out));
                // A held answer is not taken before it is checked.
                if !self.touched.load(Ordering::Relaxed) && (held.is_none() || stepped.is_err()) {
                    self.begins(&stepped);
                }
                let step = stepped?;
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
                    self.settle(held, told).await?;
                    return Ok((call.joined(answer.finish(), &seam), Some(body)));
                }
            }
            let begun = *told || held.as_ref().is_some_and(HeldAnswer::has_begun);
            if events && (begun || flow.has_begun()) {
                flow.chunk(now);
            }
            read.clear();
        }
        let mut out = |delta: Delta<'_>| self.send(delta, &mut held, told);
        answer.flush(&mut |delta| seam.pass(delta, &mut out))?;
        answer.ended()?;
        self.settle(held, told).await?;
        Ok((call.joined(answer.finish(), &seam), None))
    }

    /// Sends a delta on, or holds it with the others of an answer whose calls are to be checked.
    fn send(&self, delta: Delta<'_>, held: &mut Option<HeldAnswer>, told: &mut bool) -> Result<(), Closed> {
        let Some(answer) = held.as_mut() else {
            *told = true;
            return emit(self.output, delta);
        };
        if !answer.hold(delta) {
            *told = true;
            let deltas = answer.release();
            *held = None;
            self.takes();
            return deltas.into_iter().try_for_each(|delta| emit(self.output, delta));
        }
        Ok(())
    }

    /// Sends a complete held answer on if its calls are whole; else the server is to be asked in one piece.
    async fn settle(&self, held: Option<HeldAnswer>, told: &mut bool) -> Result<(), Stopped> {
        let Some(mut answer) = held else { return Ok(()) };
        if !answer.is_whole() {
            self.server
                .note(StatusCode::NOT_IMPLEMENTED, b"the calls of a stream are no JSON");
            tracing::warn!("the engine streamed a tool call whose arguments are no JSON");
            return Err(error::nonsense("the engine streamed a tool call whose arguments are no JSON").into());
        }
        self.takes();
        *told = true;
        for delta in answer.release() {
            room(self.output).await;
            emit(self.output, delta)?;
        }
        Ok(())
    }

    /// The first event: either the server has taken the request, or it refuses it here.
    fn begins(&self, stepped: &Result<Step, Stopped>) {
        match stepped {
            Err(Stopped::Failed(error)) => self.server.note_failure(error),
            Err(Stopped::Closed) => {}
            Ok(_) => self.takes(),
        }
    }

    fn takes(&self) {
        if !self.touched.swap(true, Ordering::Relaxed) {
            (self.worked)();
        }
    }

    /// What the server said when it refused, where nothing has been sent on.
    fn refused(&self) -> Option<Refused> {
        if self.touched.load(Ordering::Relaxed) {
            return None;
        }
        self.server.take_refused()
    }

    fn echo(&self, call: &Call) -> Result<(), Closed> {
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
        Ok(())
    }

    /// An answer in one piece, whether or not it was asked for so.
    async fn whole(&self, call: &Call, body: AnswerBody, told: &mut bool) -> Result<Finish, Stopped> {
        let bytes = unary::read_whole(&self.server, body).await?;
        self.server.shared.output_came(Instant::now());
        let (secrets, its) = (self.server.shared.client.secrets(), call.clone());
        let read = unary::beside(bytes.len(), move || {
            let text =
                std::str::from_utf8(&bytes).map_err(|_| error::nonsense("the engine sent bytes that are no text"))?;
            whole::deltas(text, &its, &secrets)
        });
        let read = read.await?;
        let (deltas, finish) = read.inspect_err(|error| self.server.note_failure(error))?;
        self.takes();
        self.echo(call)?;
        let mut seam = call.seam.clone();
        for delta in deltas {
            room(self.output).await;
            seam.pass(delta, &mut |delta: Delta<'_>| self.send(delta, &mut None, told))?;
            match &seam {
                Seam::Stopped(tokens) => return Ok(stopped(*tokens)),
                Seam::Differs { retryable } => return Err(error::came_out_otherwise(*retryable).into()),
                Seam::Open | Seam::Stops(_) | Seam::Skip(_) | Seam::Blank(_) => {}
            }
        }
        Ok(call.joined(finish, &seam))
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

/// Reads the end of an answer, so that its connection can serve the next request. The client does
/// not wait for it.
fn drain(mut body: AnswerBody) {
    task::spawn("openai-drain", async move {
        let rest = async { while let Some(Ok(())) = body.feed(&mut |_| {}).await {} };
        let _ = tokio::time::timeout(limits::DRAIN_TIMEOUT, rest).await;
    });
}
