//! The state machine of one client stream: what each thing that happens means.
//!
//! Pure: no I/O, no clock (a time is an argument), no knowledge of the cluster. The driver feeds it
//! [`Event`]s and carries out its [`Action`]s. Frames of an attempt that is not the stream's own
//! never become output, whatever order they come in.

use std::time::Duration;

use tokenbus_protocol::{Accepted, Body, EngineError, ErrorCode, Frame, Name, Reject, RejectReason};
use tokio::time::Instant;

use super::delivered::Delivered;
use super::event::{Action, Attempt, Event};
use super::losses::{Blame, Losses};
use super::phase::{Open, Phase, Run};
use crate::call::{CallError, Output, Stage};
use crate::limits;

mod held;
mod looks;
mod lost;
mod short_cut;

/// A stream's state.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub struct StreamState {
    phase: Phase,
    delivered: Delivered,
    /// Published and not answered yet.
    open: Vec<Open>,
    next_attempt: u32,
    floor: u32,
    losses: Losses,
    /// Some worker has had it.
    begun: bool,
    /// Workers that would not or could not take it since it last waited.
    excluded: Vec<Name>,
    deadline: Instant,
    not_resumable: Option<&'static str>,
    in_one_piece: bool,
    /// Since when it looks for any worker of its model.
    without_worker: Option<Instant>,
    /// NATS said of the queue subject that nobody is there.
    queue_empty: bool,
    /// A worker whose engine cannot do what is asked said so.
    unsupported: bool,
    /// Publishes since it last waited or ran.
    tries: usize,
    /// A run was lost and has to move.
    moving: bool,
    /// The newest stray output that was cancelled, so that a burst of it is cancelled once.
    stray: Option<(Name, u32)>,
}

impl StreamState {
    /// A new stream; the driver's first step is to place it.
    pub fn new(deadline: Instant, not_resumable: Option<&'static str>) -> Self {
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
            not_resumable,
            in_one_piece: false,
            without_worker: None,
            queue_empty: false,
            unsupported: false,
            tries: 0,
            moving: false,
            stray: None,
        }
    }

    /// Whether a run was lost for which no other has been published yet. Asked once for each loss.
    pub fn take_loss(&mut self) -> bool {
        std::mem::take(&mut self.moving)
    }

    /// As it is for an answer of which nothing reaches the client before all of it is there.
    #[must_use]
    pub fn in_one_piece(mut self, yes: bool) -> Self {
        self.in_one_piece = yes;
        self
    }

    /// The client has left: tells every worker that may have the request. One that takes it from
    /// the queue subject later is told when its `Accepted` comes for a stream that is not there.
    pub fn abandon(&mut self, actions: &mut Vec<Action>) {
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

    /// When [`StreamState::tick`] has to be called, at the latest.
    pub fn timer(&self) -> Instant {
        let timer = match &self.phase {
            Phase::Placing { retry } | Phase::Waiting { retry } => *retry,
            Phase::Running(run) => run.heard + limits::STALL,
            Phase::Choosing | Phase::Done => self.deadline,
        };
        timer.min(self.deadline)
    }

    /// The driver publishes to `target` (`None`: the queue subject), and waits `patience` for an
    /// `Accepted`.
    ///
    /// # Errors
    /// Why the stream cannot be continued; it has then failed.
    pub fn publish(&mut self, target: Option<Name>, now: Instant, patience: Duration) -> Result<Attempt, CallError> {
        let resume = self.delivered.resume().map_err(|reason| {
            self.phase = Phase::Done;
            CallError::WorkerLost {
                reason: reason.to_owned(),
            }
        })?;
        let attempt = self.next_attempt;
        self.next_attempt += 1;
        self.tries += 1;
        // Each unanswered try is given longer than the one before: a loaded cluster must not be
        // loaded further by copies.
        let patience = patience
            .saturating_mul(1 << self.open.len().min(3))
            .min(limits::ACCEPT_MAX);
        self.open.retain(|open| open.attempt >= self.floor);
        if self.open.len() >= limits::MAX_OPEN {
            self.open.remove(0);
        }
        self.open.push(Open { attempt, target });
        self.phase = Phase::Placing { retry: now + patience };
        Ok(Attempt {
            attempt,
            floor: self.floor,
            resume,
        })
    }

    /// The driver found no room: the stream waits until [`Event::Go`] or for `pause`.
    pub fn wait(&mut self, now: Instant, pause: Duration) {
        self.excluded.clear();
        self.tries = 0;
        self.queue_empty = false;
        self.phase = Phase::Waiting { retry: now + pause };
    }

    /// No worker was found at all. True when the stream may wait for one to come: it had one a moment ago, however
    /// that was lost, or the bus was away (`recovering`).
    pub fn may_wait_for_worker(&mut self, now: Instant, recovering: bool) -> bool {
        let since = *self.without_worker.get_or_insert(now);
        (self.begun || recovering) && now < since + limits::NO_WORKER_GRACE
    }

    /// There are workers, although none has room: the grace for one to come begins anew when they are gone.
    pub fn found_worker(&mut self) {
        self.without_worker = None;
    }

    /// The driver gives up.
    pub fn fail(&mut self, error: CallError, actions: &mut Vec<Action>) {
        self.abandon(actions);
        actions.push(Action::Fail(error));
    }

    /// Time has passed; see [`StreamState::timer`].
    pub fn tick(&mut self, now: Instant, actions: &mut Vec<Action>) {
        if self.is_done() {
            return;
        }
        if now >= self.deadline {
            let stage = self.stage();
            return self.fail(CallError::Deadline { stage }, actions);
        }
        match &self.phase {
            Phase::Placing { retry } if now >= *retry => {
                if let Some(Open {
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
                self.lost(&reason, Blame::Worker, actions);
            }
            _ => {}
        }
    }

    /// Something happened.
    pub fn on_event(&mut self, event: Event, now: Instant, actions: &mut Vec<Action>) {
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
                    self.lost("it was restarted", Blame::Worker, actions);
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
                // A worker that still has the stream says so within a second of its own return;
                // one whose last frames were lost with the connection never will.
                if let Phase::Running(run) = &mut self.phase {
                    let until = now + limits::AFTER_RECONNECT;
                    run.heard = run.heard.min(until.checked_sub(limits::STALL).unwrap_or(run.heard));
                }
            }
            Event::Go => {
                if matches!(self.phase, Phase::Waiting { .. }) {
                    self.place(actions);
                }
            }
            Event::Displaced { .. } => {} // the driver knows whether it waits
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
                return self.lost(&reason, Blame::Worker, actions);
            }
            run.next_seq += 1;
            run.heard = now;
            return self.on_own(body, actions);
        }
        match body {
            Body::Accepted(accepted) if seq == 0 => self.on_accepted(attempt, worker, &accepted, now, actions),
            Body::Reject(reject) => self.on_reject(attempt, worker, &reject, now, actions),
            // Another attempt's output: of one whose `Accepted` was lost, or of one that was given
            // up. Either way somebody generates for nobody.
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
            Body::Room(_) | Body::Held(_) | Body::Unknown => {}
        }
    }

    /// A frame of the attempt that runs, in sequence.
    fn on_own(&mut self, body: Body<'static>, actions: &mut Vec<Action>) {
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
            Body::Error(error) => self.on_error(error, actions),
            Body::Reject(reject) => {
                let reason = format!("it gave the request back ({})", reject.reason);
                self.lost(&reason, Blame::Worker, actions);
            }
            Body::Accepted(_) | Body::Alive(_) | Body::Room(_) | Body::Held(_) | Body::Unknown => {}
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
        // The first to accept wins. The others are stopped where it is known where they went; one
        // that was taken from the queue subject is stopped when its own `Accepted` comes.
        for Open { attempt: other, target } in self.open.drain(..) {
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
            bus_was_away: false,
        });
        actions.push(Action::Output(Output::Accepted {
            worker: worker.clone(),
            queue_position: accepted.queue_position,
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
                // It runs or ran an earlier attempt, whose `Accepted` is on its way. Should that be
                // lost, the next attempt replaces it.
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
            Phase::Running(run) if run.worker == *worker => self.lost("its process is gone", Blame::Worker, actions),
            Phase::Placing { .. } => {
                let attempt = self.open.iter().find(|open| open.target.as_ref() == Some(worker));
                if let Some(attempt) = attempt.map(|open| open.attempt) {
                    self.retire(attempt, Some(worker), actions);
                }
            }
            _ => {}
        }
    }

    /// Nobody will answer this attempt any more; when the stream waits for it, it is placed anew.
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
