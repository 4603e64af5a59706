//! A request's way in: decoded, admitted or refused, its body put together, the engine started.

use std::borrow::Cow;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokenbus_placement::Prompt;
use tokenbus_protocol::{
    Accepted, Body, Capabilities, ErrorCode, Frame, Part, Reject, RejectReason, Request, RequestKind, Resume,
    can_be_repeated,
};
use tokenbus_telemetry::Trace;
use uuid::Uuid;

use crate::core::accepted_request::{AcceptedRequest, Stage};
use crate::core::admission::{Ask, Verdict};
use crate::core::parts::{Collector, PartsError};
use crate::core::timers::Due;
use crate::core::{Core, refusal};
use crate::engine::{self, Health};
use crate::limits;
use crate::outbox::stream::{Key, Stream, StreamParts, StreamSink, internal};
use crate::outbox::{Outbox, Press};
use crate::report::metrics::Outcome;
use crate::report::spans::{ENGINE_CALL, Traced};

impl Core {
    /// A message on one of the request subjects.
    pub(crate) fn on_request(&mut self, payload: &Bytes, now: Instant) {
        let request: Request<'_> = match tokenbus_protocol::decode(payload) {
            Ok(request) => request,
            Err(error) => return self.on_malformed(&error, "request", payload.len(), now),
        };
        if request.stream == 0 {
            return self.on_malformed(&"stream 0 is no stream", "request", payload.len(), now);
        }
        self.watch.heard(&request.gateway);
        let Some(outbox) = self.parts.outboxes.of(&request.gateway, now) else {
            // Nobody can be told; a real gateway publishes again elsewhere.
            self.parts.metrics.unsent_answers.inc();
            return;
        };
        let obstacle = self.obstacle(&request, &outbox);
        let decision = self.admission.request(&Ask {
            id: request.id,
            attempt: request.attempt,
            floor: request.floor,
            priority: request.priority,
            kept: self.turns.kept().saturating_sub(self.turns.kept_for(&request.gateway)),
            obstacle,
        });
        if decision.stop.is_some() {
            self.stop(request.id, now);
        }
        if decision.verdict != Verdict::Reject(RejectReason::Duplicate) {
            self.redeem(&request.gateway);
        }
        match decision.verdict {
            Verdict::Run => self.accept(payload, request, outbox, 0, now),
            Verdict::Queue(position) => self.accept(payload, request, outbox, position, now),
            Verdict::Reject(reason) => self.reject(&request, &outbox, reason),
            Verdict::Forget => {}
        }
    }

    /// A further part of a request's body. One for a request that is not here any more is
    /// nothing: it was cancelled or has failed.
    pub(crate) fn on_part(&mut self, part: Part, now: Instant) {
        let Some(job) = self.jobs.get_mut(&part.id) else { return };
        let Stage::Collecting(collector) = &mut job.stage else {
            return;
        };
        if job.stream.key().attempt != part.attempt {
            return;
        }
        match collector.add(part.index, Bytes::from(part.data.into_vec())) {
            Ok(None) => self.expect_parts(part.id, now),
            Ok(Some(body)) => {
                job.stage = Stage::Complete(body);
                if let Some(at) = job.parts_due.take() {
                    self.timers.clear(at, Due::Parts(part.id));
                }
                self.start(part.id, now);
            }
            Err(error) => self.bad_parts(part.id, error, now),
        }
    }

    /// Stops what runs under `id`: its gateway does not listen any more. Admission knows.
    pub(crate) fn stop(&mut self, id: Uuid, now: Instant) {
        if let Some(job) = self.jobs.get(&id) {
            job.stream.end(None, Outcome::Cancelled, now);
        }
        self.forget(id);
    }

    /// Starts the engine on a request that has a slot and its whole body.
    pub(crate) fn start(&mut self, id: Uuid, now: Instant) {
        let Some(job) = self.jobs.get_mut(&id).filter(|job| job.has_slot) else {
            return;
        };
        if job.deadline <= now {
            // The timer that says so comes behind what made room for it.
            return self.time_is_over(id, now);
        }
        let Stage::Complete(body) = &job.stage else { return };
        let task = engine::Job {
            id,
            kind: job.kind,
            model: job.model.clone(),
            body: body.clone(),
            prompt: job.prompt.clone(),
            deadline: job.deadline,
            resume: job.resume.clone(),
            trace: job.trace.for_call(ENGINE_CALL),
        };
        if !job.prompt.cuts().is_empty() {
            let reading = self.parts.readings.begin(&job.model, &job.prompt, now);
            job.stream.reads(reading);
        }
        job.stream.starts(now);
        let sink = Box::new(StreamSink::new(Arc::clone(&job.stream)));
        // A panic of the engine drops the sink, which ends the stream with an error.
        let engine = &self.parts.engine;
        let running = std::panic::catch_unwind(AssertUnwindSafe(|| engine.generate(task, sink)));
        match running {
            Ok(running) => job.stage = Stage::Running(Some(running)),
            Err(_) => {
                job.stage = Stage::Running(None);
                tracing::error!(%id, "the engine panicked when it was given a request");
                let error = internal("The worker's engine failed", true);
                self.end(id, Some(error), Outcome::Failed, now);
            }
        }
    }

    /// A message that cannot be understood: counted, and logged now and then.
    pub(crate) fn on_malformed(&mut self, error: &dyn std::fmt::Display, what: &str, bytes: usize, now: Instant) {
        self.parts.malformed.inc();
        if let Some(more) = self.log_limit.note(now) {
            tracing::warn!(%error, what, bytes, more, "malformed message");
        }
    }

    fn accept(&mut self, payload: &Bytes, request: Request<'_>, outbox: Arc<Outbox>, position: u32, now: Instant) {
        let id = request.id;
        let trace = self.parts.tracer.begin(request.trace.clone());
        let stream = Stream::new(StreamParts {
            key: Key {
                id,
                attempt: request.attempt,
            },
            number: request.stream,
            outbox,
            metrics: self.parts.metrics.clone(),
            share: self.parts.load.share(&request.model),
            ends: self.parts.ends.clone(),
            max_frame: self.parts.max_frame,
            arrived: now,
            traced: self.traced(&request, &trace, now),
            paced: request.kind.is_generated(),
        });
        let has_slot = position == 0;
        let load = &self.parts.load;
        stream.hold(if has_slot {
            load.occupy(stream.share())
        } else {
            load.queue(stream.share())
        });
        let accepted = Accepted {
            id,
            worker: self.parts.identity.worker.clone(),
            instance: self.parts.identity.instance,
            queue_position: position,
            resumable: self.can_be_resumed(&request),
        };
        self.parts.load.set_queued(self.admission.queued());
        // The parts of its body are sent when it was accepted.
        let told = stream.accept(accepted, request.parts.is_some(), now);
        let deadline = now + Duration::from_millis(request.budget_ms).min(limits::MAX_BUDGET);
        let body = body_of(payload, request.body);
        let (stage, wrong) = match request.parts.map(|parts| Collector::new(body.clone(), parts)) {
            None => (Stage::Complete(body), None),
            Some(Ok(collector)) => (Stage::Collecting(collector), None),
            Some(Err(error)) => (Stage::Complete(Bytes::new()), Some(error)),
        };
        let announced = request.parts.map_or(0, |parts| parts.bytes);
        self.bodies = self.bodies.saturating_add(announced);
        self.timers.set(deadline, Due::Deadline(id));
        let job = AcceptedRequest {
            stream,
            gateway: request.gateway,
            deadline,
            has_slot,
            parts_due: None,
            announced,
            stage,
            kind: request.kind,
            model: request.model,
            resume: request.resume,
            prompt: Prompt::from_bytes(&request.prompt),
            trace,
        };
        let collecting = matches!(job.stage, Stage::Collecting(_));
        self.jobs.insert(id, job);
        match wrong {
            Some(error) => self.bad_parts(id, error, now),
            None if !told => self.end(id, None, Outcome::Failed, now),
            None if collecting => self.expect_parts(id, now),
            None => self.start(id, now),
        }
    }

    /// What the trace of `request` is made of, where traces are on.
    fn traced(&self, request: &Request<'_>, trace: &Trace, now: Instant) -> Option<Box<Traced>> {
        trace.ids()?;
        Some(Box::new(Traced {
            tracer: self.parts.tracer.clone(),
            trace: trace.clone(),
            worker: self.parts.identity.worker.clone(),
            engine: self.info.engine,
            id: request.id,
            attempt: request.attempt,
            kind: request.kind,
            model: request.model.clone(),
            arrived: now,
            started: None,
            first_output: None,
        }))
    }

    fn reject(&mut self, request: &Request<'_>, outbox: &Outbox, reason: RejectReason) {
        self.parts.metrics.refused(reason);
        let mut retry_after_ms = None;
        if reason == RejectReason::Busy {
            // Another slot would not help where something else is in the way, as the bytes of its body.
            if self.admission.free() <= self.turns.kept() {
                self.turns.waits(&request.gateway);
            }
            retry_after_ms = self.pace.retry_after_ms(self.admission.queued());
        }
        let message = match (reason, &self.info.health) {
            (RejectReason::Unavailable, Health::Starting) => "The engine is starting".to_owned(),
            (RejectReason::Unavailable, Health::Down(why)) => why.clone(),
            (RejectReason::Unsupported, _) => self.unsupported(request).unwrap_or_default(),
            _ => String::new(),
        };
        let frame = Frame {
            stream: request.stream,
            attempt: request.attempt,
            seq: 0,
            body: Body::Reject(Reject {
                reason,
                worker: self.parts.identity.worker.clone(),
                room: self.parts.load.room_with(self.turns.kept_for(&request.gateway)),
                message,
                retry_after_ms,
                id: Some(request.id),
            }),
        };
        if let Err(error) = outbox.push(&frame, Press::Answer) {
            self.parts.metrics.unsent_answers.inc();
            tracing::debug!(%error, id = %request.id, "a refusal was not sent");
        }
    }

    /// Why a request would not be taken even with a free slot.
    fn obstacle(&self, request: &Request<'_>, outbox: &Outbox) -> Option<RejectReason> {
        let announced = request.parts.map_or(0, |parts| parts.bytes);
        if request.budget_ms == 0 {
            Some(RejectReason::Expired)
        } else if self.drain.is_draining() {
            Some(RejectReason::Draining)
        } else if self.info.health != Health::Ready {
            Some(RejectReason::Unavailable)
        } else if !self.info.models.iter().any(|model| model.name == request.model) {
            Some(RejectReason::UnknownModel)
        } else if self.unsupported(request).is_some() {
            Some(RejectReason::Unsupported)
        } else if outbox.is_full() || self.bodies.saturating_add(announced) > limits::BODIES {
            Some(RejectReason::Busy)
        } else {
            None
        }
    }

    /// What the engine cannot do of what is asked.
    fn unsupported(&self, request: &Request<'_>) -> Option<String> {
        let can = self.can(&request.model);
        let missing = request.needs.with(request.kind.feature()).minus(can.features());
        let begun = |resume: &Resume| {
            resume
                .choices
                .iter()
                .any(|choice| choice.tokens > 0 || !choice.text.is_empty() || !choice.reasoning.is_empty())
        };
        if !self.parts.identity.labels.cover(&request.labels) {
            Some("The worker does not have the labels that the request requires".to_owned())
        } else if request.kind == RequestKind::Other {
            Some("The worker does not know this kind of request".to_owned())
        } else if !missing.is_empty() {
            Some(format!(
                "The engine of {:?} is not capable of: {missing}",
                request.model
            ))
        } else if request.resume.as_ref().is_some_and(begun) && !self.can_be_resumed(request) {
            Some("The engine cannot continue an answer".to_owned())
        } else {
            None
        }
    }

    /// Whether an answer to the request can go on after a part of it was delivered: on an engine that
    /// continues it, or on one that generates it again. The body of a text completion only grows.
    fn can_be_resumed(&self, request: &Request<'_>) -> bool {
        let whole = request.parts.is_none();
        match request.kind {
            RequestKind::Completion => true,
            RequestKind::Chat => self.can(&request.model).continuation || (whole && can_be_repeated(&request.body)),
            _ => false,
        }
    }

    fn can(&self, model: &str) -> Capabilities {
        let model = self.info.models.iter().find(|info| info.name == model);
        model.map(|model| model.capabilities).unwrap_or_default()
    }

    fn expect_parts(&mut self, id: Uuid, now: Instant) {
        if let Some(job) = self.jobs.get_mut(&id) {
            let at = now + limits::PARTS_TIMEOUT;
            if let Some(old) = job.parts_due.replace(at) {
                self.timers.clear(old, Due::Parts(id));
            }
            self.timers.set(at, Due::Parts(id));
        }
    }

    fn bad_parts(&mut self, id: Uuid, error: PartsError, now: Instant) {
        tracing::warn!(%error, %id, "a request's parts make no body");
        let code = match error {
            PartsError::TooLarge(_) => ErrorCode::TooLarge,
            PartsError::Count(_) | PartsError::Index(_) | PartsError::Bytes { .. } => ErrorCode::Internal,
        };
        let mut answer = refusal(code, &error.to_string());
        answer.retryable = false;
        self.end(id, Some(answer), Outcome::Failed, now);
    }
}

/// The body without a copy: it keeps the message alive that it came in.
fn body_of(payload: &Bytes, body: Cow<'_, [u8]>) -> Bytes {
    match body {
        // What is borrowed was decoded from `payload`, and so is a part of it.
        Cow::Borrowed(part) => payload.slice_ref(part),
        Cow::Owned(bytes) => Bytes::from(bytes),
    }
}

#[cfg(test)]
#[path = "requests_tests.rs"]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests;
