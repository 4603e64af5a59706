//! The state machine of one client stream.
//!
//! Pure: no I/O, no clock (time is an argument), no knowledge of the cluster. The driver feeds it [`Event`]s and carries
//! out its [`Action`]s. Only frames of the attempt that runs become output, in whatever order frames come.

use std::time::Duration;

use tokenbus_protocol::{Accepted, Body, EngineError, ErrorCode, Frame, LeftCause, Name, Reject, RejectReason};
use tokio::time::Instant;

use super::delivered::Delivered;
use super::event::{Action, Attempt, Event};
use super::losses::Losses;
use super::phase::{OpenAttempt, Phase, Run};
use crate::call::{Call, CallError, Output, Stage};
use crate::limits;

mod held;
mod lane;
mod lost;
mod queries;

/// A stream's state.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(crate) struct StreamState {
    phase: Phase,
    delivered: Delivered,
    /// Attempts that were published and not answered yet.
    open: Vec<OpenAttempt>,
    next_attempt: u32,
    floor: u32,
    losses: Losses,
    /// A worker took it once.
    begun: bool,
    /// Workers that refused or missed it since it last waited.
    excluded: Vec<Name>,
    deadline: Instant,
    /// Time that it may be without output once there was some; `None` if the deadline is that of the whole answer.
    silence: Option<Duration>,
    not_resumable: Option<&'static str>,
    in_one_piece: bool,
    /// Since when it finds no worker of its model.
    without_worker: Option<Instant>,
    /// The queue subject had no subscriber.
    queue_empty: bool,
    /// A worker rejected it because its engine lacks a feature.
    unsupported: bool,
    /// Publishes since it last waited or ran.
    tries: usize,
    /// A run was lost, and the stream must move.
    moving: bool,
    /// The last stray attempt that was cancelled, so that a burst of its frames is cancelled once.
    stray: Option<(Name, u32)>,
    /// The last run that ended before its answer, for the request's story.
    left: Option<LeftRun>,
}

/// A run that ended before its answer.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(crate) struct LeftRun {
    pub(crate) worker: Name,
    pub(crate) attempt: u32,
    pub(crate) cause: LeftCause,
    /// Why, for a human.
    pub(crate) why: String,
}

impl StreamState {
    /// A new stream, which the driver has to place first.
    pub(crate) fn new(deadline: Instant, not_resumable: Option<&'static str>) -> Self {
        Self {
            phase: Phase::Choosing,
            delivered: Delivered::new(not_resumable.is_none()),
            open: Vec::new(),
            next_attempt: 0,
            floor: 0,
            losses: Losses::default(),
            begun: false,
            excluded: Vec::new(),
            deadline,
            silence: None,
            not_resumable,
            in_one_piece: false,
            without_worker: None,
            queue_empty: false,
            unsupported: false,
            tries: 0,
            moving: false,
            stray: None,
            left: None,
        }
    }

    /// The state of a stream for `call`.
    pub(crate) fn of(call: &Call) -> Self {
        let state = Self::new(call.deadline, call.not_resumable).in_one_piece(call.in_one_piece);
        if call.in_one_piece {
            state
        } else {
            state.flowing(call.silence)
        }
    }

    /// Whether a run was lost and no attempt was published since. True once for each loss.
    pub(crate) fn take_loss(&mut self) -> bool {
        std::mem::take(&mut self.moving)
    }

    /// The last run that ended before its answer. Each is given once.
    pub(crate) fn take_left(&mut self) -> Option<LeftRun> {
        self.left.take()
    }

    /// Sets whether the client gets the answer in one piece, when it is complete.
    #[must_use]
    pub(crate) fn in_one_piece(mut self, yes: bool) -> Self {
        self.in_one_piece = yes;
        self
    }

    /// Lets each output move the deadline to `silence` after it.
    #[must_use]
    pub(crate) fn flowing(mut self, silence: Duration) -> Self {
        self.silence = Some(silence);
        self
    }

    /// When the stream times out.
    pub(crate) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// There was output at `at`.
    fn flowed(&mut self, at: Instant) {
        if let Some(silence) = self.silence {
            self.deadline = self.deadline.max(at + silence);
        }
    }

    /// The client has left: cancels at every worker that may have the request. A worker that takes it from the queue
    /// subject later is cancelled when its `Accepted` comes for an unknown stream.
    pub(crate) fn abandon(&mut self, actions: &mut Vec<Action>) {
        if let Phase::Running(run) = std::mem::replace(&mut self.phase, Phase::Done) {
            actions.push(Action::Cancel {
                worker: run.worker,
                attempt: run.attempt,
            });
        }
        for open in self.open.drain(..) {
            actions.extend(open.target.map(|worker| Action::Cancel {
                worker,
                attempt: open.attempt,
            }));
        }
    }

    /// The latest time for the next [`StreamState::tick`].
    pub(crate) fn timer(&self) -> Instant {
        let timer = match &self.phase {
            Phase::Placing { retry } | Phase::Waiting { retry } => *retry,
            Phase::Running(run) => run.heard + limits::STALL,
            Phase::Choosing | Phase::Done => self.deadline,
        };
        timer.min(self.deadline)
    }

    /// The driver publishes to `target`, or with `None` to the queue subject, and waits `patience` for an `Accepted`.
    ///
    /// # Errors
    /// The stream cannot be continued and has failed.
    pub(crate) fn publish(
        &mut self,
        target: Option<Name>,
        now: Instant,
        patience: Duration,
    ) -> Result<Attempt, CallError> {
        let resume = self.delivered.resume().map_err(|reason| {
            self.phase = Phase::Done;
            CallError::WorkerLost {
                reason: reason.to_owned(),
            }
        })?;
        let attempt = self.next_attempt;
        self.next_attempt += 1;
        self.tries += 1;
        // Each unanswered try waits longer than the one before, so that copies do not load a loaded cluster.
        let patience = patience
            .saturating_mul(1 << self.open.len().min(3))
            .min(limits::ACCEPT_MAX);
        self.open.retain(|open| open.attempt >= self.floor);
        if self.open.len() >= limits::MAX_OPEN {
            self.open.remove(0);
        }
        self.open.push(OpenAttempt { attempt, target });
        self.phase = Phase::Placing { retry: now + patience };
        Ok(Attempt {
            attempt,
            floor: self.floor,
            resume,
        })
    }

    /// The driver found no free slot: the stream waits until [`Event::Go`] or for `pause`.
    pub(crate) fn wait(&mut self, now: Instant, pause: Duration) {
        self.excluded.clear();
        self.tries = 0;
        self.queue_empty = false;
        self.phase = Phase::Waiting { retry: now + pause };
    }

    /// No worker was found at all. True if the stream may wait for one: it had one before, however that was lost, or the
    /// bus was away (`recovering`).
    pub(crate) fn may_wait_for_worker(&mut self, now: Instant, recovering: bool) -> bool {
        let since = *self.without_worker.get_or_insert(now);
        (self.begun || recovering) && now < since + limits::NO_WORKER_GRACE
    }

    /// There are workers, though none with a free slot: when they are gone, the grace begins anew.
    pub(crate) fn found_worker(&mut self) {
        self.without_worker = None;
    }

    /// The stream fails with `error`.
    pub(crate) fn fail(&mut self, error: CallError, actions: &mut Vec<Action>) {
        self.abandon(actions);
        actions.push(Action::Fail(error));
    }

    /// Time has passed; see [`StreamState::timer`].
    pub(crate) fn tick(&mut self, now: Instant, actions: &mut Vec<Action>) {
        if self.is_done() {
            return;
        }
        if now >= self.deadline {
            let stage = self.stage();
            return self.fail(CallError::Deadline { stage }, actions);
        }
        match &self.phase {
            Phase::Placing { retry } if now >= *retry => {
                if let Some(OpenAttempt {
                    target: Some(worker), ..
                }) = self.open.last()
                {
                    self.excluded.push(worker.clone());
                }
                self.place(actions);
            }
            Phase::Waiting { retry } if now >= *retry => self.place(actions),
            Phase::Running(run) if now >= run.heard + limits::STALL => {
                let reason = format!("no frame from it for {} s", limits::STALL.as_secs());
                self.lost(&reason, LeftCause::Silent, actions);
            }
            _ => {}
        }
    }

    /// Handles an event.
    pub(crate) fn on_event(&mut self, event: Event, now: Instant, actions: &mut Vec<Action>) {
        if self.is_done() {
            return;
        }
        match event {
            Event::Frame { worker, frame } => self.on_frame(worker, frame, now, actions),
            Event::NoResponders { attempt } => self.on_no_responders(attempt, actions),
            Event::WorkerGone { worker } => self.on_worker_gone(&worker, actions),
            Event::WorkerInstance { worker, instance } => {
                let old = |run: &Run| run.worker == worker && run.instance != instance;
                if matches!(&self.phase, Phase::Running(run) if old(run)) {
                    self.lost("it was restarted", LeftCause::Restarted, actions);
                }
            }
            Event::Held {
                worker,
                instance,
                place,
            } => self.on_held(&worker, instance, place, now, actions),
            Event::LinkLost => self.note_bus_away(),
            Event::LinkRestored => {
                self.note_bus_away();
                // A worker that still holds the stream sends a frame within a second of its own return. If its last
                // frames were lost with the connection, it never will.
                if let Phase::Running(run) = &mut self.phase {
                    let until = now + limits::AFTER_RECONNECT;
                    run.heard = run.heard.min(until.checked_sub(limits::STALL).unwrap_or(run.heard));
                }
            }
            Event::Go | Event::Look => {
                if matches!(self.phase, Phase::Waiting { .. }) {
                    self.place(actions);
                }
            }
            Event::Displaced { .. } => {} // for the driver, which knows whether it waits
            Event::Overflow => self.fail(CallError::SlowClient, actions),
            Event::ShutDown => self.fail(CallError::ShuttingDown, actions),
        }
    }

    fn on_frame(&mut self, worker: Name, frame: Frame<'static>, now: Instant, actions: &mut Vec<Action>) {
        let Frame { attempt, seq, body, .. } = frame;
        if let Phase::Running(run) = &mut self.phase
            && run.attempt == attempt
            && run.worker == worker
        {
            if seq < run.next_seq {
                return; // a duplicate
            }
            if seq > run.next_seq {
                let reason = format!("{} frames from it were lost", seq - run.next_seq);
                return self.lost(&reason, LeftCause::FramesLost, actions);
            }
            run.next_seq += 1;
            run.heard = now;
            if matches!(body, Body::Delta(_)) {
                run.silent_since = None;
                self.flowed(now);
            }
            return self.on_own(body, now, actions);
        }
        match body {
            Body::Accepted(accepted) if seq == 0 => self.on_accepted(attempt, worker, &accepted, now, actions),
            Body::Reject(reject) => self.on_reject(attempt, worker, &reject, now, actions),
            // Output of another attempt: its `Accepted` was lost, or the stream gave it up. Cancel it, nobody reads it.
            Body::Accepted(_) | Body::Delta(_) | Body::Alive(_) => {
                let stray = Some((worker.clone(), attempt));
                if self.stray != stray || matches!(body, Body::Alive(_)) {
                    actions.push(Action::Cancel {
                        worker: worker.clone(),
                        attempt,
                    });
                    self.stray = stray;
                }
                self.retire(attempt, Some(&worker), actions);
            }
            Body::Finish(_) | Body::Error(_) => self.retire(attempt, Some(&worker), actions),
            Body::Room(_) | Body::Held(_) | Body::Offer(_) | Body::Unknown => {}
        }
    }

    /// Handles a frame of the current run, in sequence.
    fn on_own(&mut self, body: Body<'static>, now: Instant, actions: &mut Vec<Action>) {
        match body {
            Body::Delta(delta) => {
                self.delivered.add(&delta);
                self.losses.progress();
                actions.push(Action::Output(Output::Delta(delta)));
            }
            Body::Finish(finish) => {
                actions.push(Action::Output(Output::Finish(self.delivered.complete(finish))));
                self.phase = Phase::Done;
            }
            Body::Error(error) => self.on_error(error, now, actions),
            Body::Reject(reject) => {
                let reason = format!("it gave the request back ({})", reject.reason);
                self.lost(&reason, LeftCause::GivenBack, actions);
            }
            Body::Accepted(_) | Body::Alive(_) | Body::Room(_) | Body::Held(_) | Body::Offer(_) | Body::Unknown => {}
        }
    }

    fn on_accepted(
        &mut self,
        attempt: u32,
        worker: Name,
        accepted: &Accepted,
        now: Instant,
        actions: &mut Vec<Action>,
    ) {
        let known = self.open.iter().any(|open| open.attempt == attempt);
        if !known || matches!(self.phase, Phase::Running(_)) {
            actions.push(Action::Cancel {
                worker: worker.clone(),
                attempt,
            });
            return self.retire(attempt, None, actions);
        }
        // The first to accept wins. The other attempts are cancelled if their worker is known; one from the queue
        // subject is cancelled when its own `Accepted` comes.
        for OpenAttempt { attempt: other, target } in self.open.drain(..) {
            let target = target.filter(|target| other != attempt && *target != worker);
            actions.extend(target.map(|worker| Action::Cancel { worker, attempt: other }));
        }
        self.floor = self.floor.max(attempt);
        self.begun = true;
        self.excluded.clear();
        self.tries = 0;
        self.without_worker = None;
        self.queue_empty = false;
        self.phase = Phase::Running(Run {
            attempt,
            worker: worker.clone(),
            instance: accepted.instance,
            next_seq: 1,
            resumable: accepted.resumable,
            heard: now,
            silent_since: Some(now),
            bus_was_away: false,
        });
        actions.push(Action::Output(Output::Accepted {
            worker: worker.clone(),
            queue_position: accepted.queue_position,
            why: None,
            kind: Default::default(),
        }));
        actions.push(Action::Taken { attempt, worker });
    }

    fn on_reject(&mut self, attempt: u32, worker: Name, reject: &Reject, now: Instant, actions: &mut Vec<Action>) {
        if !self.open.iter().any(|open| open.attempt == attempt) || matches!(self.phase, Phase::Running(_)) {
            return;
        }
        self.open.retain(|open| open.attempt != attempt);
        match reject.reason {
            RejectReason::Duplicate => {
                // The worker runs or ran an earlier attempt, whose `Accepted` is on its way. If that is lost, the next
                // attempt replaces it.
                self.floor = self.next_attempt;
                self.phase = Phase::Placing {
                    retry: now + limits::ACCEPT_MAX,
                };
                return;
            }
            RejectReason::Unsupported if self.in_one_piece && self.delivered.any() => {
                self.begin_anew(actions);
            }
            RejectReason::Unsupported if std::mem::replace(&mut self.unsupported, true) => {
                let error = EngineError {
                    code: ErrorCode::BadRequest,
                    message: reject.message.clone(),
                    param: None,
                    engine_code: Some("unsupported_feature".to_owned()),
                    retryable: false,
                    retry_after_ms: None,
                };
                return self.fail(CallError::Engine(error), actions);
            }
            _ => self.excluded.push(worker),
        }
        self.place(actions);
    }

    fn on_no_responders(&mut self, attempt: u32, actions: &mut Vec<Action>) {
        self.queue_empty |= self
            .open
            .iter()
            .any(|open| open.attempt == attempt && open.target.is_none());
        self.retire(attempt, None, actions);
    }

    fn on_worker_gone(&mut self, worker: &Name, actions: &mut Vec<Action>) {
        match &self.phase {
            Phase::Running(run) if run.worker == *worker => self.lost("its process is gone", LeftCause::Gone, actions),
            Phase::Placing { .. } => {
                let attempt = self.open.iter().find(|open| open.target.as_ref() == Some(worker));
                if let Some(attempt) = attempt.map(|open| open.attempt) {
                    self.retire(attempt, Some(worker), actions);
                }
            }
            _ => {}
        }
    }

    /// No worker will answer this attempt any more. If the stream waits for it, it is placed again.
    fn retire(&mut self, attempt: u32, worker: Option<&Name>, actions: &mut Vec<Action>) {
        let Some(at) = self.open.iter().position(|open| open.attempt == attempt) else {
            return;
        };
        let open = self.open.remove(at);
        self.excluded.extend(open.target.or_else(|| worker.cloned()));
        if matches!(self.phase, Phase::Placing { .. }) {
            self.place(actions);
        }
    }

    fn place(&mut self, actions: &mut Vec<Action>) {
        self.phase = Phase::Choosing;
        actions.push(Action::Place);
    }

    fn stage(&self) -> Stage {
        match &self.phase {
            Phase::Choosing | Phase::Waiting { .. } => Stage::Queue,
            Phase::Placing { .. } => Stage::Accept,
            Phase::Running(_) | Phase::Done if self.delivered.any() => Stage::Generation,
            Phase::Running(_) | Phase::Done => Stage::FirstToken,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
#[path = "state_tests.rs"]
mod tests;
