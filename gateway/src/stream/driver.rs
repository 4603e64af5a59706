//! Drives one stream: feeds its state machine with events and carries out its actions.
//!
//! The driver runs in the task of the client's connection: a stream has no task of its own. A client that leaves drops
//! the driver, which cancels the request wherever it is.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use tokenbus_protocol::{Body, Frame, Name, RejectReason};
use tokio::time::{Instant, Sleep};

use super::event::{Action, Event};
use super::inbox::{Inbox, Next};
use super::seek::{Destination, Hold, Seeker};
use super::state::StreamState;
use crate::fast_path::splice::Splice;
use tokenbus_bus::clock::unix_seconds;

use crate::call::{Call, CallError, Output, Written};
use crate::limits;
use crate::placement::Target;
use crate::shared::Shared;
use crate::waiting_room::{NotAdmitted, Ticket};

mod bus;
mod call_stream;
mod reading;
mod waiting;

/// Drives one stream.
pub(crate) struct Driver {
    shared: Arc<Shared>,
    call: Call,
    number: u64,
    inbox: Arc<Inbox>,
    state: StreamState,
    actions: Vec<Action>,
    outputs: VecDeque<Output>,
    failure: Option<CallError>,
    /// The steps that need an await, in order.
    steps: VecDeque<Step>,
    timer: Pin<Box<Sleep>>,
    ticket: Option<Ticket>,
    in_room: bool,
    /// It has paused instead of being refused.
    paused: bool,
    /// The worker that it waits for, or was called to.
    hold: Option<Hold>,
    /// It has waited for one worker as long as it should.
    held_out: bool,
    /// A slot is free for it, of any worker or of the one that it waited for, and it was not sent there yet.
    called: Option<Option<Name>>,
    /// Attempts that their workers have not answered.
    pending: Vec<Pending>,
    /// The chosen worker, and why it was chosen.
    chosen: Option<Target>,
    /// What the chosen worker has still to read of the prompt.
    reading: Option<Reading>,
    /// Attempts whose answer is timed, the newest last.
    published: Vec<Published>,
    running: Option<Name>,
    /// The worker that it left before its end, until another one takes it.
    left: Option<Name>,
    /// When a worker first got it; `None` while none has it.
    under_way: Option<Instant>,
    /// What the client's side lends the lane.
    splice: Option<Splice>,
    /// It lost its worker, and the budget does not let it move yet.
    throttled: bool,
    /// Since when it waits for the bus.
    bus_away_since: Option<Instant>,
    /// Bytes of the body in the first message; the rest goes in parts of this size.
    part: usize,
    ended: bool,
}

/// An attempt that was published to a worker.
struct Pending {
    attempt: u32,
    worker: Name,
}

/// Tokens of the prompt that the chosen worker has to read.
struct Reading {
    tokens: u32,
    /// It took the request.
    taken: bool,
}

/// When an attempt was published.
struct Published {
    attempt: u32,
    at: Instant,
}

enum Step {
    Place,
    /// Send the body's parts from `next` on.
    Parts {
        attempt: u32,
        worker: Name,
        next: u32,
    },
}

impl Driver {
    /// Opens a stream for `call`. Sends nothing before [`CallStream::next`] is polled.
    pub(crate) fn new(shared: Arc<Shared>, mut call: Call) -> Self {
        if !call.labels.is_empty() {
            call.needs = call.needs.or(shared.view().require(&call.labels));
        }
        let (number, inbox) = shared.streams.open(call.id, call.reader_bound());
        let deadly = shared.is_deadly(&call, Instant::now());
        Self {
            state: StreamState::of(&call),
            timer: Box::pin(tokio::time::sleep_until(call.deadline)),
            steps: if deadly {
                VecDeque::new()
            } else {
                VecDeque::from([Step::Place])
            },
            shared,
            call,
            number,
            inbox,
            actions: Vec::new(),
            outputs: VecDeque::new(),
            failure: deadly.then_some(CallError::Deadly),
            ticket: None,
            in_room: false,
            paused: false,
            hold: None,
            held_out: false,
            called: None,
            pending: Vec::new(),
            chosen: None,
            reading: None,
            published: Vec::new(),
            running: None,
            left: None,
            under_way: None,
            splice: None,
            throttled: false,
            bus_away_since: None,
            part: usize::MAX,
            ended: false,
        }
    }

    fn absorb(&mut self, event: Event) {
        let now = Instant::now();
        match &event {
            Event::Frame {
                worker,
                frame:
                    Frame {
                        attempt,
                        body: Body::Accepted(accepted),
                        ..
                    },
            } => {
                let mut view = self.shared.view();
                view.learnt(worker, &self.call.model, now, unix_seconds());
                view.took(worker);
                drop(view);
                self.answered(*attempt, worker, now);
                self.reading_begins(worker);
                self.call.way.accepted(now, *attempt, worker);
                let (worker, instance) = (worker.clone(), accepted.instance);
                if self.shared.view().instance(&worker, instance) {
                    self.shared.restarted(worker, instance);
                }
                self.settle(*attempt);
            }
            Event::Frame {
                worker,
                frame:
                    Frame {
                        attempt,
                        body: Body::Reject(reject),
                        ..
                    },
            } => {
                let mut view = self.shared.view();
                if reject.reason == RejectReason::Busy {
                    // A worker that is busy with the model serves it.
                    view.learnt(worker, &self.call.model, now, unix_seconds());
                }
                view.refused(worker, reject.reason, reject.room, now);
                drop(view);
                self.call.way.refused(now, *attempt, worker, reject.reason.as_str());
                self.answered(*attempt, worker, now);
                self.settle(*attempt);
                if self.chosen.as_ref().is_some_and(|chosen| chosen.worker == *worker) {
                    self.read();
                }
            }
            Event::NoResponders { attempt } => {
                let worker = self.settle(*attempt);
                self.call.way.unanswered(now, *attempt, worker.as_ref());
                if let Some(worker) = worker {
                    self.shared.gone(&worker);
                }
            }
            Event::Go | Event::Look => self.leaves_room(matches!(event, Event::Go), now),
            Event::Displaced { retry_after } if self.in_room => {
                let retry_after = *retry_after;
                self.not_admitted(NotAdmitted::Full { retry_after }, now);
            }
            _ => {}
        }
        self.state.on_event(event, now, &mut self.actions);
        if self.called.is_some() && !self.state.is_choosing() {
            // It has found a worker by itself, or has ended.
            self.come();
            self.shared.wake(&self.call.model);
        }
        self.carry_out(now);
    }

    /// It was taken out of the waiting room, for a free slot if it is its `turn`.
    fn leaves_room(&mut self, turn: bool, now: Instant) {
        self.release();
        self.in_room = false;
        self.come();
        self.called = turn.then(|| self.hold.as_ref().map(|hold| hold.worker.clone()));
        if !turn {
            self.hold = None;
        }
        self.call.way.waits_no_longer(now);
        if let Some(ticket) = &mut self.ticket {
            ticket.had_turn = turn;
        }
    }

    /// Records how long `worker` took to answer `attempt`, even if the stream was published again since.
    fn answered(&mut self, attempt: u32, worker: &Name, now: Instant) {
        let index = self.published.iter().position(|published| published.attempt == attempt);
        if let Some(index) = index {
            let published = self.published.remove(index);
            self.shared.view().answered(worker, published.at, now);
        }
    }

    /// Carries out the actions that need no await, and queues the others.
    fn carry_out(&mut self, now: Instant) {
        for action in std::mem::take(&mut self.actions) {
            match action {
                Action::Output(output) => self.output(output),
                Action::Place => self.steps.push_back(Step::Place),
                Action::Taken { attempt, worker } => {
                    self.settle_all();
                    if self.part < self.call.body.len() {
                        self.steps.push_back(Step::Parts {
                            attempt,
                            worker,
                            next: 1,
                        });
                    }
                }
                Action::Cancel { worker, attempt } => self.shared.cancel(&worker, self.call.id, attempt),
                Action::Fail(error) => {
                    if error == CallError::Deadly {
                        self.shared.note_deadly(&self.call, now);
                    }
                    self.failed(&error, now);
                    self.failure = Some(self.told(error, now));
                }
            }
        }
        if let Some(left) = self.state.take_left() {
            self.call
                .way
                .left(now, left.attempt, &left.worker, (left.cause, &left.why));
            if self.failure.is_none() {
                self.shared.metrics.moved(left.cause.as_str());
            }
        }
        self.follow_run(now);
        self.follow_worker(now);
    }

    fn output(&mut self, mut output: Output) {
        match &mut output {
            Output::Accepted { worker, why, kind, .. } => {
                *kind = self.shared.view().kind_of(worker, &self.call.model);
                let chosen = self.chosen.as_ref().filter(|chosen| chosen.worker == *worker);
                *why = chosen.map(|chosen| chosen.why);
            }
            Output::Finish(finish) => {
                self.read();
                self.compare(finish);
            }
            Output::Delta(_) | Output::Written(_) | Output::Anew => self.read(),
        }
        if self.outputs.is_empty() {
            // Outputs are usually taken one by one; the default growth makes room for four.
            self.outputs.reserve_exact(1);
        }
        self.outputs.push_back(output);
    }

    /// Updates the number of streams per worker.
    fn follow_worker(&mut self, now: Instant) {
        if self.running.as_ref() == self.state.worker() {
            return;
        }
        let next = self.state.worker().cloned();
        let mut view = self.shared.view();
        if let Some(old) = &self.running {
            view.ended(old);
        }
        if let Some(new) = &next {
            view.began(new, now);
        }
        drop(view);
        if next.is_some() {
            self.shared.watch.ring();
        }
        let old = std::mem::replace(&mut self.running, next);
        self.follow_moves(old, now);
    }

    fn settle(&mut self, attempt: u32) -> Option<Name> {
        let index = self.pending.iter().position(|pending| pending.attempt == attempt)?;
        let Pending { worker, .. } = self.pending.swap_remove(index);
        self.shared.view().settled(&worker);
        Some(worker)
    }

    fn settle_all(&mut self) {
        let mut view = self.shared.view();
        for Pending { worker, .. } in self.pending.drain(..) {
            view.settled(&worker);
        }
    }

    /// Does the first queued step. The step leaves the queue before the await that may send, so that a caller that drops
    /// this future never causes a second send. The state's timers notice a send that did not happen.
    async fn step(&mut self) {
        match self.steps.front_mut() {
            None => {}
            Some(Step::Parts { .. }) => self.send_part().await,
            Some(Step::Place) => self.place().await,
        }
    }

    async fn place(&mut self) {
        if !self.state.is_choosing() {
            self.steps.pop_front();
            return;
        }
        self.bus_up().await;
        self.steps.pop_front();
        let now = Instant::now();
        if !self.shared.bus.is_connected() {
            let reason = self.shared.bus.link().borrow().reason.clone();
            self.state.fail(CallError::BusDown { reason }, &mut self.actions);
        }
        self.state.tick(now, &mut self.actions);
        if self.state.is_choosing() && !self.may_move(now) {
            self.state.wait(now, limits::REDISPATCH_PAUSE);
        } else if self.state.is_choosing() {
            match self.seek(now) {
                Destination::InLine => self.stand_in_line(None, now),
                Destination::Hold(hold) => self.stand_in_line(Some(hold), now),
                Destination::Stay => self.stand_in_line(self.hold.clone(), now),
                Destination::To(target) => {
                    self.take_turn();
                    // A slot of another worker, to which it was called, is the next one's.
                    let called = self.called.clone().flatten();
                    let left =
                        called.is_some_and(|worker| target.as_ref().is_none_or(|target| target.worker != worker));
                    self.publish(target, now).await;
                    if left {
                        self.come();
                        self.shared.wake(&self.call.model);
                    }
                }
                Destination::Pause { first } => {
                    self.leave_line();
                    self.state.wait(now, limits::WORKER_RETRY);
                    if first {
                        self.shared.wake_line(&self.call.model, self.call.all_needs());
                    }
                }
                Destination::Fails(error) => {
                    self.leave_line();
                    self.state.fail(error, &mut self.actions);
                    self.shared.wake_line(&self.call.model, self.call.all_needs());
                }
            }
        }
        self.come();
        self.carry_out(Instant::now());
    }

    /// The free slot that it was called to counts for others again, unless it is on its way there.
    fn come(&mut self) {
        match self.called.take() {
            None => {}
            Some(None) => self.shared.view().came(&self.call.model),
            Some(Some(worker)) => self.shared.view().came_to(&worker),
        }
    }

    /// Whether the budget lets a stream that lost its worker move now.
    fn may_move(&mut self, now: Instant) -> bool {
        self.throttled |= self.state.take_loss();
        self.throttled = self.throttled && !self.shared.may_redispatch(&self.call.model, now);
        !self.throttled
    }

    fn seek(&mut self, now: Instant) -> Destination {
        self.held_out |= self.hold.as_ref().is_some_and(|hold| hold.until <= now);
        let recovering = {
            let link = self.shared.bus.link();
            link.borrow().is_recovering(now.into_std(), limits::NO_WORKER_GRACE)
        };
        let seeker = Seeker {
            model: &self.call.model,
            needs: self.call.all_needs(),
            prompt: &self.call.prompt,
            session: self.call.session,
            ticket: self.ticket.as_ref(),
            in_room: self.in_room,
            hold: self.hold.as_ref(),
            held_out: self.held_out,
            recovering,
            clustered: self.shared.bus.is_clustered(),
            now,
        };
        self.shared.seek(&mut self.state, &seeker)
    }

    /// Waits for the next event or timer and takes it in.
    async fn happening(&mut self) {
        let event = std::future::poll_fn(|context| {
            let lane = || self.splice.as_ref().and_then(|splice| self.state.lane(splice));
            if let Poll::Ready(next) = self.inbox.poll_next(context, lane) {
                return Poll::Ready(Some(next));
            }
            // Frames move the timer later. It is reset only when it fires or must fire earlier.
            let due = self.state.timer();
            if due < self.timer.deadline() {
                self.timer.as_mut().reset(due);
            }
            while self.timer.as_mut().poll(context).is_ready() {
                if due <= Instant::now() {
                    return Poll::Ready(None);
                }
                self.timer.as_mut().reset(due);
            }
            Poll::Pending
        })
        .await;
        match event {
            Some(next) => self.take_in(next),
            None => {
                // Text that has passed may be what the timer waits for, and the state must know it before it decides.
                if let Some(passed) = self.inbox.close_lane() {
                    self.take_in(Next::Passed(passed));
                }
                let now = Instant::now();
                self.state.tick(now, &mut self.actions);
                self.timer.as_mut().reset(self.state.timer());
                self.carry_out(now);
            }
        }
    }

    fn take_in(&mut self, next: Next) {
        match next {
            Next::Event(event) => self.absorb(event),
            Next::Passed(passed) => {
                self.state.on_passed(&passed);
                let written = Written {
                    events: passed.written,
                    tokens: passed.tokens,
                    sent: passed.sent,
                    sent_at: passed.sent_at,
                };
                self.output(Output::Written(written));
            }
        }
    }

    fn take(&mut self) -> Option<Result<Output, CallError>> {
        if let Some(output) = self.outputs.pop_front() {
            self.ended |= matches!(output, Output::Finish(_));
            return Some(Ok(output));
        }
        let error = self.failure.take()?;
        self.ended = true;
        Some(Err(error))
    }
}
