//! The record of one request to a model: metrics, log, usage. Every request ends here exactly once.

use std::time::SystemTime;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode};
use tokenbus_api::{Times, cached_tokens, estimated_tokens};
use tokenbus_protocol::{Delta, Finish, Name, RequestKind, Story, UsageRecord};
use tokenbus_telemetry::{Trace, Tracer};
use tokio::time::Instant;
use uuid::Uuid;

use crate::auth::{Caller, Grant};
use crate::call::{Call, CallError, Written};
use crate::http::answer::access_log;
use crate::http::edge::Edge;
use crate::http::error::{HttpError, Verdict};
use crate::http::format::millis;
use crate::http::held::Held;
use crate::http::request::headers::{DECISION, WORKER};
use crate::http::request::refusals::{self, Refused};
use crate::http::request::request_id::RequestId;
use crate::limits::STORY_WHY;
use crate::metrics::{CLIENT_GONE, Meter, Metrics, Outcome, Pace, Tokens};
use crate::model_config::{ModelConfig, Served};
use crate::placement::{Why, WorkerKind};
use crate::story::{self, KeptStories, Way};
use crate::usage::Usage;
use tokenbus_bus::clock::unix_ms;

/// The record of one request. If it is dropped before its end, the client went away.
#[derive(Debug)]
pub(crate) struct Record {
    meter: Meter,
    metrics: Metrics,
    usage: Usage,
    stories: KeptStories,
    tracer: Tracer,
    trace: Trace,
    models: ModelConfig,
    request: RequestId,
    /// The path of the API.
    api: &'static str,
    caller: Option<Caller>,
    call: Option<Called>,
    worker: Option<Name>,
    /// Why that worker was chosen.
    why: Option<Why>,
    /// Of which kind it is.
    kind: WorkerKind,
    tokens: u64,
    paced: u64,
    /// The answer is not a stream of tokens: it has no inter-token latency.
    in_one_piece: bool,
    ended: bool,
    /// The request's share of all bodies' bytes, as long as it lives.
    held: Option<Held>,
}

/// The call that a request has become.
#[derive(Debug)]
struct Called {
    id: Uuid,
    kind: RequestKind,
    model: String,
    /// The model that serves it, if its name is an alias.
    served: Option<Served>,
    tenant: Option<String>,
    /// To estimate the prompt's tokens.
    body: Bytes,
    /// The request's share of its key's limits.
    grant: Option<Grant>,
    way: Way,
}

impl Called {
    fn served(&self) -> Option<String> {
        self.served.as_ref()?.model().filter(|served| *served != self.model)
    }
}

impl Record {
    /// A request of `caller` for the API at `api` came at `now`; `trace` is its trace.
    pub(crate) fn begin<C>(
        edge: &Edge<C>,
        (request, api): (RequestId, &'static str),
        caller: Option<Caller>,
        (trace, now): (Trace, Instant),
    ) -> Self {
        Self {
            meter: edge.metrics.begin(now),
            metrics: edge.metrics.clone(),
            usage: edge.usage.clone(),
            stories: edge.stories.clone(),
            tracer: edge.tracer.clone(),
            trace,
            models: edge.models.clone(),
            request,
            api,
            caller,
            call: None,
            worker: None,
            why: None,
            kind: WorkerKind::default(),
            tokens: 0,
            paced: 0,
            in_one_piece: false,
            ended: false,
            held: None,
        }
    }

    /// The request holds a share of all bodies' bytes.
    pub(crate) fn holds(&mut self, held: Held) {
        self.held = Some(held);
    }

    /// The request's trace.
    pub(crate) fn trace(&self) -> &Trace {
        &self.trace
    }

    /// The request's id.
    pub(crate) fn id(&self) -> &str {
        &self.request.0
    }

    /// The request has become `call`; its key gave `grant`, if there are keys.
    pub(crate) fn called(&mut self, call: &Call, grant: Option<Grant>, served: Option<Served>) {
        self.call = Some(Called {
            id: call.id,
            kind: call.kind,
            model: call.model.clone(),
            served,
            tenant: call.tenant.clone(),
            body: call.body.clone(),
            grant,
            way: call.way.clone(),
        });
        self.in_one_piece = !call.kind.is_generated();
    }

    /// A worker took it, so its model exists.
    pub(crate) fn placed(&mut self, worker: &Name, why: Option<Why>, kind: &WorkerKind) {
        self.worker = Some(worker.clone());
        self.why = why;
        self.kind = kind.clone();
        self.name();
    }

    /// The headers that say which worker gives the answer, and why.
    pub(crate) fn explained(&self) -> [(HeaderName, HeaderValue); 2] {
        let worker = self.worker.as_ref().map_or("", Name::as_str);
        let why = self.why.map_or_else(|| "queue".to_owned(), |why| why.to_string());
        let value = |text: &str| HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""));
        [(WORKER, value(worker)), (DECISION, value(&why))]
    }

    fn name(&mut self) {
        let Some(call) = self.call.as_ref().filter(|_| !self.meter.is_named()) else {
            return;
        };
        match call.served() {
            Some(served) => self.meter.model(&served),
            None => self.meter.model(&call.model),
        }
    }

    /// Books output that leaves with the next flush. Engines that do not count their tokens send one at a time.
    pub(crate) fn saw(&mut self, delta: &Delta<'_>) {
        if self.in_one_piece {
            return;
        }
        let piece = delta.extra.as_ref().is_some_and(|extra| extra.delta.is_some());
        let tokens = u64::from(delta.tokens).max(u64::from(piece || !delta.text.is_empty()));
        self.tokens += tokens;
        if delta.choice == 0 {
            self.paced += tokens;
        }
    }

    /// Books plain text that has left, or leaves with the next flush.
    pub(crate) fn saw_text(&mut self, written: &Written) {
        if let Some(at) = written.sent_at {
            self.meter.sent(at, written.sent);
        }
        self.tokens += written.tokens;
        self.paced += written.tokens;
    }

    /// Where its inter-token latency is recorded.
    pub(crate) fn pace(&self) -> Option<Pace> {
        self.meter.pace()
    }

    /// The answer begins anew: what was booked of it is void.
    pub(crate) fn anew(&mut self) {
        (self.tokens, self.paced) = (0, 0);
        self.meter.anew();
    }

    /// The output booked since the last flush leaves at `now`.
    pub(crate) fn flush(&mut self, now: Instant) {
        let (tokens, paced) = (std::mem::take(&mut self.tokens), std::mem::take(&mut self.paced));
        if tokens > 0 {
            self.name();
            self.meter.output(now, tokens, paced);
        }
    }

    /// Books the counts of the answer's finish.
    pub(crate) fn finished(&mut self, finish: &Finish) {
        self.name();
        let cached = cached_tokens(finish);
        self.meter.usage(finish.prompt_tokens, finish.completion_tokens, cached);
    }

    /// How long the request has taken until now.
    pub(crate) fn times(&self, now: Instant) -> Times {
        Times {
            total: self.meter.elapsed(now),
            first: self.meter.ttft(),
        }
    }

    /// The request was answered completely.
    pub(crate) fn succeeded(&mut self) {
        self.end(Outcome::Succeeded, StatusCode::OK.as_u16(), None);
    }

    /// The request ended with `error`; `sent` is the status if one was sent before. Returns the verdict for the client.
    pub(crate) fn failed(&mut self, error: &HttpError, sent: Option<u16>) -> Verdict {
        let verdict = self.visible(error).as_ref().unwrap_or(error).verdict();
        let model = self.call.as_ref().map(|call| call.model.clone());
        self.name_model(error);
        let status = sent.unwrap_or_else(|| verdict.status.as_u16());
        self.end(verdict.outcome, status, Some(&verdict));
        if verdict.status.is_client_error() {
            self.meter.refused(verdict.code.as_ref());
            refusals::tell(self.refused(model.as_deref()), &verdict);
        }
        verdict
    }

    fn refused<'a>(&'a self, model: Option<&'a str>) -> Refused<'a> {
        Refused {
            request: &self.request.0,
            api: self.api,
            key: self.caller.as_ref().map(|caller| caller.key().name.as_str()),
            model,
        }
    }

    /// The error for this client, if it differs: only the models that its key may use are listed.
    fn visible(&self, error: &HttpError) -> Option<HttpError> {
        let HttpError::Call(CallError::UnknownModel { model, known }) = error else {
            return None;
        };
        let key = self.call.as_ref().and_then(|call| call.grant.as_ref()).map(Grant::key);
        let mut known: Vec<String> = known.iter().cloned().chain(self.models.aliases()).collect();
        known.retain(|model| key.is_none_or(|key| key.may_use(model)));
        known.sort_unstable();
        known.dedup();
        let model = model.clone();
        Some(CallError::UnknownModel { model, known }.into())
    }

    // A name that only this client claims must not become a label.
    fn name_model(&mut self, error: &HttpError) {
        let Some(Called { model, .. }) = &self.call else {
            return;
        };
        match error {
            HttpError::Call(
                CallError::NoWorker { .. }
                | CallError::Full { .. }
                | CallError::WaitTooLong { .. }
                | CallError::Unsupported { .. }
                | CallError::Engine(_)
                | CallError::WorkerLost { .. }
                | CallError::Deadly
                | CallError::SlowClient,
            ) => self.meter.model(model),
            HttpError::Call(CallError::UnknownModel { .. }) => {}
            _ => self.meter.claimed_model(model),
        }
    }

    fn end(&mut self, outcome: Outcome, status: u16, verdict: Option<&Verdict>) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let now = Instant::now();
        self.flush(now);
        self.meter.end(now, outcome, status);
        let used = self
            .call
            .as_ref()
            .map(|call| self.used(call, outcome))
            .unwrap_or_default();
        let story = self.story((outcome, status), verdict, used.0, now);
        access_log::write(&story);
        self.stories.keep(&story, now);
        let kind = self.call.as_ref().map(|call| call.kind);
        story::tell(&self.tracer, &self.trace, kind, &story, SystemTime::now());
        self.account(now, (outcome, status), used);
    }

    /// Books the request's tokens: on its key's limits, in the metrics, in a usage record.
    fn account(&mut self, now: Instant, (outcome, status): (Outcome, u16), (tokens, estimated): (Tokens, bool)) {
        let Some(mut call) = self.call.take() else { return };
        let served = call.served.as_ref().and_then(Served::model);
        let price = self.models.price(&call.model, served.as_deref(), &self.kind.labels);
        if let Some(grant) = &mut call.grant {
            grant.used(tokens, price);
            self.metrics.key_used(grant.key().name.as_str(), tokens);
        }
        self.usage.offer(UsageRecord {
            id: call.id,
            request: self.request.0.clone(),
            gateway: self.usage.gateway().clone(),
            worker: self.worker.take(),
            tier: self.kind.tier,
            served: call.served(),
            key: call.grant.as_ref().map(|grant| grant.key().name.as_str().to_owned()),
            tenant: call.tenant,
            kind: call.kind,
            model: call.model,
            prompt_tokens: tokens.prompt,
            completion_tokens: tokens.completion,
            cached_tokens: tokens.cached,
            estimated,
            cost: price.of(tokens).cost,
            outcome: outcome.into(),
            status,
            ttft_ms: self.meter.ttft().map(millis),
            duration_ms: millis(self.meter.elapsed(now)),
            at_ms: unix_ms(),
        });
    }

    /// The tokens that the request is charged for, and whether its prompt was estimated. A request that no worker took,
    /// or that failed without output, is charged nothing.
    fn used(&self, call: &Called, outcome: Outcome) -> (Tokens, bool) {
        let (prompt, completion) = (self.meter.prompt(), self.meter.completion());
        let failed = matches!(outcome, Outcome::Failed | Outcome::Rejected);
        let nothing = prompt.is_none() && completion == 0 && (failed || self.worker.is_none());
        if nothing {
            return (Tokens::default(), false);
        }
        let tokens = Tokens {
            prompt: prompt.unwrap_or_else(|| estimated_tokens(&call.body)),
            completion,
            cached: self.meter.cached(),
        };
        (tokens, prompt.is_none())
    }

    /// The request's story, at its end.
    fn story(
        &self,
        (outcome, status): (Outcome, u16),
        verdict: Option<&Verdict>,
        tokens: Tokens,
        now: Instant,
    ) -> Story {
        let call = self.call.as_ref();
        let way = call
            .map(|call| call.way.told(self.meter.started(), now))
            .unwrap_or_default();
        let key = call.and_then(|call| call.grant.as_ref()).map(Grant::key);
        Story {
            request: self.request.0.clone(),
            call: call.map(|call| call.id),
            api: self.api.to_owned(),
            key: key.map(|key| key.name.as_str().to_owned()),
            tenant: call.and_then(|call| call.tenant.clone()),
            model: call.map(|call| call.model.clone()),
            served: call.and_then(Called::served),
            worker: self.worker.clone(),
            at_ms: unix_ms(),
            steps: way.steps,
            more_steps: way.more,
            attempts: way.attempts,
            wait_ms: millis(way.waited),
            outcome: outcome.into(),
            status,
            code: verdict.and_then(|verdict| verdict.code.as_deref()).map(str::to_owned),
            error: verdict.map(|verdict| verdict.message.chars().take(STORY_WHY).collect()),
            prompt_tokens: tokens.prompt,
            cached_tokens: tokens.cached,
            completion_tokens: tokens.completion,
            ttft_ms: self.meter.ttft().map(millis),
            itl_p99_ms: self.meter.itl_p99().map(millis),
            duration_ms: millis(self.meter.elapsed(now)),
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.end(Outcome::Cancelled, CLIENT_GONE, None);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
#[path = "record_tests.rs"]
mod tests;
