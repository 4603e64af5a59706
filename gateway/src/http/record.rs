//! What is measured and logged of one request to a model: every end of one passes here, once.

use http::StatusCode;
use tokenbus_protocol::Delta;
use tokio::time::Instant;

use super::error::{HttpError, Verdict};
use super::request_id::RequestId;
use crate::call::{Call, CallError, Written};
use crate::metrics::{CLIENT_GONE, Histogram, Meter, Metrics, Outcome};

/// The record of one request. Dropped before its end, it tells of a client that went away.
#[derive(Debug)]
pub(super) struct Record {
    meter: Meter,
    request: RequestId,
    call: Option<(uuid::Uuid, String)>,
    tokens: u64,
    paced: u64,
    replayed: bool,
    /// Its answer is no stream of tokens: there is no pace to measure.
    whole: bool,
    ended: bool,
}

impl Record {
    pub(super) fn begin(metrics: &Metrics, request: RequestId, now: Instant) -> Self {
        Self {
            meter: metrics.begin(now),
            request,
            call: None,
            tokens: 0,
            paced: 0,
            replayed: false,
            whole: false,
            ended: false,
        }
    }

    /// The request's id.
    pub(super) fn id(&self) -> &str {
        &self.request.0
    }

    /// The request has become `call`.
    pub(super) fn called(&mut self, call: &Call) {
        self.call = Some((call.id, call.model.clone()));
        self.whole = !call.kind.is_generated();
    }

    /// Something came of it, so its model exists.
    pub(super) fn placed(&mut self) {
        if let Some((_, model)) = &self.call {
            self.meter.model(model);
        }
    }

    /// The answer is that of an earlier request: its tokens and their pace have been counted.
    pub(super) fn replayed(&mut self) {
        self.replayed = true;
    }

    /// Output that will be written with the next flush. Engines that do not count their tokens
    /// send one at a time.
    pub(super) fn saw(&mut self, delta: &Delta<'_>) {
        if self.replayed || self.whole {
            return;
        }
        let piece = delta.extra.as_ref().is_some_and(|extra| extra.delta.is_some());
        let tokens = u64::from(delta.tokens).max(u64::from(piece || !delta.text.is_empty()));
        self.tokens += tokens;
        if delta.choice == 0 {
            self.paced += tokens;
        }
    }

    /// Plain text that was sent already, or will be with the next flush.
    pub(super) fn saw_text(&mut self, written: &Written) {
        if let Some(at) = written.sent_at {
            self.meter.sent(at, written.sent);
        }
        self.tokens += written.tokens;
        self.paced += written.tokens;
    }

    /// Where the pace of its model's tokens is noted.
    pub(super) fn pace(&self) -> Option<Histogram> {
        self.meter.pace()
    }

    /// What was seen of the answer is void, it begins anew.
    pub(super) fn anew(&mut self) {
        (self.tokens, self.paced) = (0, 0);
        self.meter.anew();
    }

    /// What was seen since the last flush leaves at `now`.
    pub(super) fn flush(&mut self, now: Instant) {
        let (tokens, paced) = (std::mem::take(&mut self.tokens), std::mem::take(&mut self.paced));
        if tokens > 0 {
            self.placed();
            self.meter.output(now, tokens, paced);
        }
    }

    pub(super) fn usage(&mut self, prompt: Option<u64>, completion: Option<u64>) {
        self.placed();
        if !self.replayed {
            self.meter.usage(prompt, completion);
        }
    }

    /// Answered in full.
    pub(super) fn succeeded(&mut self) {
        self.end(Outcome::Succeeded, StatusCode::OK.as_u16(), None);
    }

    /// Ended with `error`; `sent` is the status where one had been sent before. What the client is
    /// told is returned.
    pub(super) fn failed(&mut self, error: &HttpError, sent: Option<u16>) -> Verdict {
        let verdict = error.verdict();
        self.name_model(error);
        let status = sent.unwrap_or_else(|| verdict.status.as_u16());
        self.end(verdict.outcome, status, Some(&verdict));
        verdict
    }

    // A name that only the client says exists must not become a label.
    fn name_model(&mut self, error: &HttpError) {
        let Some((_, model)) = &self.call else { return };
        match error {
            HttpError::Call(
                CallError::NoWorker { .. }
                | CallError::Full { .. }
                | CallError::Unsupported { .. }
                | CallError::Engine(_)
                | CallError::WorkerLost { .. }
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
        self.log(outcome, status, verdict, now);
    }

    fn log(&self, outcome: Outcome, status: u16, verdict: Option<&Verdict>, now: Instant) {
        let (id, model) = match &self.call {
            Some((id, model)) => (Some(tracing::field::display(id)), model.as_str()),
            None => (None, ""),
        };
        let request = self.request.0.as_str();
        let seconds = self.meter.elapsed(now).as_secs_f64();
        let code = verdict.and_then(|verdict| verdict.code.as_deref());
        let error = verdict.map(|verdict| verdict.message.as_str());
        let outcome_text = outcome.as_str();
        match outcome {
            Outcome::Failed | Outcome::TimedOut => tracing::warn!(
                request,
                call = id,
                model,
                outcome = outcome_text,
                status,
                code,
                error,
                seconds,
                "request ended"
            ),
            Outcome::Succeeded | Outcome::Rejected | Outcome::Cancelled => tracing::debug!(
                request,
                call = id,
                model,
                outcome = outcome_text,
                status,
                code,
                error,
                seconds,
                "request ended"
            ),
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if !self.ended {
            // The meter counts it as cancelled when it is dropped in turn.
            self.flush(Instant::now());
            self.log(Outcome::Cancelled, CLIENT_GONE, None, Instant::now());
        }
    }
}
