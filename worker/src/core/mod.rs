//! The worker's mind: what is admitted, what runs, what ends. The loop in `worker.rs` feeds it
//! with messages, ends of streams and the passing of time.
//!
//! Nothing in here awaits. Requests are in `requests.rs`, control messages in `control.rs`.

mod accepted_request;
mod admission;
mod announced;
pub(crate) mod claim;
mod control;
mod drain;
mod gateway_watch;
mod gateways;
pub(crate) mod intake;
mod parts;
mod recent_keys;
pub(crate) mod refused;
mod requests;
mod tenure;
mod timers;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokenbus_placement::Turns;
use tokenbus_protocol::{Body, EngineError, ErrorCode, MAX_MODEL_NAME, Name, SlotsFrom, Subjects, WorkerState};
use tokenbus_telemetry::Tracer;
use tokio::sync::watch;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::core::accepted_request::AcceptedRequest;
use crate::core::admission::Admission;
use crate::core::drain::Drain;
use crate::core::gateway_watch::{Patience, Watch};
use crate::core::intake::Interest;
use crate::core::refused::Refused;
use crate::core::tenure::Tenure;
use crate::core::timers::{Due, Timers};
use crate::engine::{Engine, EngineInfo, Health};
use crate::limits;
use crate::options::Identity;
use crate::outbox::outboxes::Outboxes;
use crate::outbox::post::Post;
use crate::outbox::stream::{Ends, Key};
use crate::report::load::Load;
use crate::report::malformed::LogLimit;
use crate::report::metrics::{Metrics, Outcome};
use crate::report::pace::Pace;
use crate::report::reading::Readings;
use crate::report::status::Snapshot;

/// What the core is made of.
pub(crate) struct CoreParts {
    /// Who the worker is.
    pub(crate) identity: Identity,
    /// Makes its subjects.
    pub(crate) subjects: Subjects,
    /// What generates.
    pub(crate) engine: Arc<dyn Engine>,
    /// Requests that run at once, instead of what the engine tells.
    pub(crate) slots: Option<u32>,
    /// Requests accepted beyond the slots.
    pub(crate) queue: u32,
    /// How long streams may go on after the worker was asked to stop.
    pub(crate) grace: Duration,
    /// Largest frame in bytes that NATS takes.
    pub(crate) max_frame: usize,
    /// How full it is, shared.
    pub(crate) load: Arc<Load>,
    /// Counters, shared.
    pub(crate) metrics: Metrics,
    /// Makes traces.
    pub(crate) tracer: Tracer,
    /// Messages that could not be decoded.
    pub(crate) malformed: prometheus_client::metrics::counter::Counter,
    /// Where frames go.
    pub(crate) outboxes: Outboxes,
    /// Where other messages go.
    pub(crate) post: Post,
    /// Where streams tell their end.
    pub(crate) ends: Ends,
    /// Where the state is told.
    pub(crate) snapshot: watch::Sender<Snapshot>,
    /// What the engine reads and holds, shared.
    pub(crate) readings: Arc<Readings>,
}

/// All that the worker's loop owns and decides with.
pub(crate) struct Core {
    pub(crate) parts: CoreParts,
    pub(crate) info: EngineInfo,
    pub(crate) admission: Admission,
    pub(crate) jobs: HashMap<Uuid, AcceptedRequest>,
    pub(crate) timers: Timers,
    pub(crate) turns: Turns<Name>,
    pub(crate) drain: Drain,
    /// Bytes of bodies in parts that are announced or here.
    pub(crate) bodies: u64,
    /// Loading and unloading of models that is under way.
    pub(crate) commands: JoinSet<()>,
    pub(crate) log_limit: LogLimit,
    pub(crate) watch: Watch,
    pub(crate) pace: Pace,
    pub(crate) tenure: Tenure,
    pub(crate) refused: Refused,
    /// What the worker listens to may have changed.
    pub(crate) relisten: bool,
}

impl Core {
    /// A worker with nothing to do yet.
    pub(crate) fn new(parts: CoreParts, info: EngineInfo) -> Self {
        let slots = parts.slots.unwrap_or(info.slots);
        let admission = Admission::new(slots, parts.queue, limits::SEEN_REQUESTS, limits::EARLY_CANCELS);
        let mut core = Self {
            parts,
            info,
            admission,
            jobs: HashMap::new(),
            timers: Timers::default(),
            turns: Turns::new(limits::GATEWAYS, limits::OFFER_PATIENCE),
            drain: Drain::Serving,
            bodies: 0,
            commands: JoinSet::new(),
            log_limit: LogLimit::new(limits::MALFORMED_LOG_EVERY),
            watch: Watch::new(Patience {
                every: limits::GATEWAY_PROBE_EVERY,
                misses: limits::GATEWAY_MISSES,
                silence: limits::GATEWAY_SILENCE,
            }),
            pace: Pace::new(limits::DRAIN_WINDOW, limits::RETRY_AFTER_MAX),
            tenure: Tenure::default(),
            refused: Refused::default(),
            relisten: true,
        };
        core.tell_state();
        core
    }

    /// What the worker is to listen to: for each model the subjects of what its engine can do, so that
    /// no queue hands it what it cannot. The queue subject only while the engine can run what comes
    /// there: otherwise it would take requests from workers that can.
    pub(crate) fn interests(&self) -> BTreeSet<Interest> {
        let mut interests = BTreeSet::from([Interest::Control, Interest::Gateways]);
        if self.drain.is_draining() {
            return interests;
        }
        for model in &self.info.models {
            if model.name.is_empty() || model.name.len() > MAX_MODEL_NAME {
                continue;
            }
            for family in model.capabilities.families() {
                interests.insert(Interest::Direct(family, model.name.clone()));
                if self.info.health == Health::Ready {
                    interests.insert(Interest::Queue(family, model.name.clone()));
                }
            }
        }
        interests
    }

    /// The worker's state.
    pub(crate) fn state(&self) -> WorkerState {
        if self.drain.is_draining() {
            return WorkerState::Draining;
        }
        match self.info.health {
            Health::Starting => WorkerState::Starting,
            Health::Ready if self.is_cut_off() => WorkerState::Unavailable,
            Health::Ready => WorkerState::Ready,
            Health::Down(_) => WorkerState::Unavailable,
        }
    }

    /// The engine has changed.
    pub(crate) fn on_info(&mut self, info: EngineInfo, now: Instant) {
        if info.health != self.info.health {
            tracing::info!(from = ?self.info.health, to = ?info.health, "engine health");
        }
        self.admission.set_slots(self.parts.slots.unwrap_or(info.slots));
        let down = matches!(info.health, Health::Down(_));
        if down && matches!(self.info.health, Health::Ready) {
            self.parts.metrics.engine_losses.inc();
        }
        self.info = info;
        if down {
            // An engine that comes back begins with an empty cache.
            self.parts.readings.clear();
            // What waits would only fail later; another worker can have it now.
            let error = refusal(ErrorCode::EngineUnavailable, "The worker's engine is not available");
            self.end_waiting(&error, Outcome::HandedOver, now);
        }
        self.tell_state();
    }

    /// A stream has ended.
    pub(crate) fn on_ended(&mut self, key: Key) {
        if self.jobs.get(&key.id).is_some_and(|job| job.stream.key() == key) {
            self.admission.end(key.id, key.attempt);
            self.forget(key.id);
        }
    }

    /// Some timers are due.
    pub(crate) fn on_timers(&mut self, now: Instant) {
        while let Some(due) = self.timers.pop(now) {
            match due {
                Due::Deadline(id) => self.time_is_over(id, now),
                Due::Parts(id) => {
                    let error = refusal(ErrorCode::Timeout, "A part of the request did not come");
                    self.end(id, Some(error), Outcome::Failed, now);
                }
                // What follows from these is decided by `settle`.
                Due::Grace | Due::Offer => {}
            }
        }
    }

    /// The client of a request waits no longer.
    fn time_is_over(&mut self, id: Uuid, now: Instant) {
        let error = EngineError {
            retryable: false,
            ..refusal(ErrorCode::Timeout, "The request's time is over")
        };
        self.end(id, Some(error), Outcome::TimedOut, now);
    }

    /// A moment has passed: silent streams say that they live, gateways are probed, idle outboxes go.
    /// `connection` is the number of the worker's connection to NATS, `None` while there is none.
    pub(crate) fn on_tick(&mut self, connection: Option<u64>, now: Instant) {
        for job in self.jobs.values().filter(|job| job.has_slot) {
            job.stream.keep_alive(0, now);
        }
        for (position, id) in (1_u32..).zip(self.admission.waiting()) {
            if let Some(job) = self.jobs.get(&id) {
                job.stream.keep_alive(position, now);
            }
        }
        self.probe_gateways(connection, now);
        if connection.is_some() && self.tenure.is_due(now) {
            self.claim(now);
        }
        self.parts.outboxes.sweep(now);
        let totals = self.parts.metrics.totals();
        self.pace.note(totals.finished + totals.failed + totals.cancelled, now);
        let gauge = |gauge: &prometheus_client::metrics::gauge::Gauge, value: u32| gauge.set(i64::from(value));
        gauge(&self.parts.metrics.slots, self.parts.load.slots());
        gauge(&self.parts.metrics.running, self.parts.load.running());
        gauge(&self.parts.metrics.queued, self.parts.load.queued());
    }

    /// The process was asked to stop.
    pub(crate) fn on_shutdown(&mut self, now: Instant) {
        self.begin_drain(self.drain.stopping(now + self.parts.grace), now);
    }

    /// Draws the conclusions of whatever happened since the last call.
    pub(crate) fn settle(&mut self, now: Instant) {
        if self.drain.is_over(now) && !self.jobs.is_empty() {
            let left: Vec<Uuid> = self.jobs.keys().copied().collect();
            tracing::warn!(
                streams = left.len(),
                "the grace period is over: streams are handed over"
            );
            for id in left {
                self.end(id, Some(handed_over()), Outcome::HandedOver, now);
            }
        }
        while let Some(id) = self.admission.promote() {
            if let Some(job) = self.jobs.get_mut(&id) {
                job.has_slot = true;
                job.stream.hold(self.parts.load.occupy(job.stream.share()));
                self.start(id, now);
            }
        }
        self.parts.load.set_queued(self.admission.queued());
        self.offer_slots(now);
    }

    /// Whether nothing is left of a worker that was asked to stop.
    pub(crate) fn is_finished(&self) -> bool {
        self.drain.is_stopping() && self.jobs.is_empty()
    }

    /// Whether no request runs or waits here.
    pub(crate) fn is_idle(&self) -> bool {
        self.jobs.is_empty()
    }

    /// Enters a draining state: at once no room, what waits is handed over.
    pub(crate) fn begin_drain(&mut self, drain: Drain, now: Instant) {
        self.drain = drain;
        if let Some(until) = drain.until() {
            self.timers.set(until, Due::Grace);
        }
        tracing::info!(streams = self.jobs.len(), "draining");
        self.end_waiting(&handed_over(), Outcome::HandedOver, now);
        self.tell_state();
    }

    /// Ends a request, with an error for its gateway if it waits for one.
    pub(crate) fn end(&mut self, id: Uuid, error: Option<EngineError>, outcome: Outcome, now: Instant) {
        if let Some(job) = self.jobs.get(&id) {
            let key = job.stream.key();
            job.stream.end(error.map(Body::Error), outcome, now);
            self.admission.end(id, key.attempt);
            self.forget(id);
        }
    }

    /// Removes a job whose stream has ended; what runs of it stops.
    pub(crate) fn forget(&mut self, id: Uuid) {
        if let Some(job) = self.jobs.remove(&id) {
            self.timers.clear(job.deadline, Due::Deadline(id));
            if let Some(at) = job.parts_due {
                self.timers.clear(at, Due::Parts(id));
            }
            self.bodies = self.bodies.saturating_sub(job.announced);
        }
    }

    /// Tells the state to whoever watches it, if it has changed.
    pub(crate) fn tell_state(&mut self) {
        self.relisten = true;
        let slots = self.parts.slots.unwrap_or(self.info.slots);
        let state = self.state();
        self.parts.load.set_capacity(slots, state == WorkerState::Ready);
        let context = self.info.models.iter().filter_map(|model| model.context_length).max();
        self.parts
            .readings
            .set_room(context.map(|context| context.saturating_mul(u64::from(slots))));
        let names = self.info.models.iter().map(|model| model.name.as_str());
        self.parts.load.set_models(names);
        let snapshot = Snapshot {
            state,
            engine: self.info.engine,
            models: self.announced(),
            slots,
            slots_from: self.parts.slots.map_or(self.info.slots_from, |_| SlotsFrom::Flag),
            kv_used: self.info.kv_used,
        };
        self.parts.snapshot.send_if_modified(|old| {
            let changed = *old != snapshot;
            *old = snapshot;
            changed
        });
    }

    fn end_waiting(&mut self, error: &EngineError, outcome: Outcome, now: Instant) {
        let waiting: Vec<Uuid> = self.admission.waiting().collect();
        for id in waiting {
            self.end(id, Some(error.clone()), outcome, now);
        }
    }
}

/// An error after which another worker may be tried.
pub(crate) fn refusal(code: ErrorCode, message: &str) -> EngineError {
    EngineError {
        code,
        message: message.to_owned(),
        param: None,
        engine_code: None,
        retryable: true,
        retry_after_ms: None,
    }
}

fn handed_over() -> EngineError {
    refusal(ErrorCode::Draining, "The worker is shutting down")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
pub(crate) mod fixture;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests;
