//! The waiting room of all streams: who enters and leaves, who is woken, and how workers learn that requests wait here.

use std::sync::Arc;

use tokenbus_protocol::{Control, Decline, Features, Name, Room, Waits};
use tokio::time::Instant;

use super::{Shared, lock};
use crate::auth::estimate;
use crate::call::Call;
use crate::placement::View;
use crate::stream::event::Event;
use crate::stream::inbox::Inbox;
use crate::stream::seek::{self, Called};
use crate::waiting_room::{LineKey, NotAdmitted, Ticket, WaitingRoom};

impl Shared {
    /// A worker reported its free slots: wakes the requests that wait for one of its models. `offered` of the slots are
    /// kept for this gateway. Those that no request waits for are given back at once, for the next gateway in turn.
    pub(crate) fn room(&self, worker: &Name, room: Room, offered: u32, now: Instant) {
        {
            let mut view = self.view();
            view.room(worker, room, now);
            if offered > 0 {
                view.knows_waiting(worker, now);
            }
        }
        let woken = u32::try_from(self.wake_for(worker)).unwrap_or(u32::MAX);
        let spare = offered.saturating_sub(woken);
        if spare > 0 {
            self.view().declined(worker, spare);
            let gateway = self.gateway.clone();
            self.tell(worker, &Control::Decline(Decline { gateway, slots: spare }));
        }
    }

    /// Wakes the requests that wait for a model of `worker`, if it has a free slot. Returns how many.
    fn wake_for(&self, worker: &Name) -> usize {
        let models = {
            let view = self.view();
            if view.room_of(worker) == 0 || lock(&self.waiting).room.is_empty() {
                return 0;
            }
            view.models_of(worker)
        };
        models.iter().map(|model| self.wake(model)).sum()
    }

    /// A request waits in line: tells some of the workers that could serve it, so that they offer their slots in turn to
    /// this gateway too.
    pub(crate) fn say_that_it_waits(&self, model: &str, needs: Features, now: Instant) {
        let waiting = lock(&self.waiting).room.waiting(model);
        let uninformed = self.view().uninformed(model, needs, waiting, now);
        for worker in uninformed {
            let gateway = self.gateway.clone();
            self.tell(&worker, &Control::Waits(Waits { gateway }));
        }
    }

    /// A request waits for this worker alone: tells it, so that it offers its slots in turn to this gateway too.
    pub(crate) fn say_that_it_waits_for(&self, worker: &Name, now: Instant) {
        if self.view().is_uninformed(worker, now) {
            let gateway = self.gateway.clone();
            self.tell(worker, &Control::Waits(Waits { gateway }));
        }
    }

    /// Wakes as many requests that wait for `model` as there are free slots, and whole lines that no remaining worker
    /// could serve. Returns how many.
    pub(crate) fn wake(&self, model: &str) -> usize {
        self.wake_with(model, |view, room| {
            seek::take_from_lines(view, room, model, Instant::now())
        })
    }

    /// A request found no worker: wakes everyone in its line, so that they find out too.
    pub(crate) fn wake_line(&self, model: &str, needs: Features) {
        self.wake_with(model, |view, room| seek::take_line(view, room, model, needs));
    }

    fn wake_with(
        &self,
        model: &str,
        take: impl FnOnce(&mut View, &mut WaitingRoom<Arc<Inbox>>) -> Called<Arc<Inbox>>,
    ) -> usize {
        let called = {
            let mut view = self.view();
            let mut waiting = lock(&self.waiting);
            if waiting.room.is_empty() {
                return 0;
            }
            let called = take(&mut view, &mut waiting.room);
            view.call(model, called.have_turn.len());
            called
        };
        self.count_waiting();
        let (mut count, mut gone) = (0, false);
        for (worker, inbox) in called.have_own {
            if inbox.push(Event::Go) {
                count += 1;
            } else {
                self.view().came_to(&worker);
                gone = true;
            }
        }
        for inbox in called.have_turn {
            if inbox.push(Event::Go) {
                count += 1;
            } else {
                self.view().came(model);
                gone = true;
            }
        }
        for inbox in called.look {
            inbox.push(Event::Look);
        }
        if gone {
            // Clients left in this moment: their slots are those of the next.
            count += self.wake(model);
        }
        count
    }

    /// Wakes the requests for any model, after a snapshot.
    pub(crate) fn wake_all(&self) {
        let models: Vec<String> = lock(&self.waiting).room.models().map(str::to_owned).collect();
        for model in models {
            self.wake(&model);
        }
    }

    /// Takes a place in the order of arrival.
    pub(crate) fn ticket(&self, call: &Call, now: Instant) -> Ticket {
        let cost = estimate::request(call.kind, &call.body, None);
        let room = &mut lock(&self.waiting).room;
        let ticket = room.ticket(&call.model, call.priority, call.party(), call.body.len(), now);
        Ticket {
            tokens: cost.prompt.saturating_add(cost.completion),
            limit: Some(call.deadline.saturating_duration_since(now)),
            ..ticket
        }
    }

    /// Puts a request into the waiting room, out of the line where it waits if it does: in the line of those with the same
    /// needs, that for `worker` alone if there is one. A request that has `begun` is
    /// always admitted. Requests displaced by it are told.
    ///
    /// # Errors
    /// [`NotAdmitted`] if the room is full, or if the request cannot wait until it has its turn.
    pub(crate) fn enter(
        &self,
        ticket: &mut Ticket,
        (needs, worker): (Features, Option<&Name>),
        begun: bool,
        inbox: &Arc<Inbox>,
        now: Instant,
    ) -> Result<(), NotAdmitted> {
        let line = LineKey {
            needs: self.view().distinguishing(&ticket.model, needs),
            worker: worker.cloned(),
        };
        let entered = {
            let mut waiting = lock(&self.waiting);
            waiting.room.leave(ticket);
            ticket.line = line;
            ticket.begun = begun;
            waiting.enter(ticket, Arc::clone(inbox), now)
        };
        ticket.had_turn = false;
        ticket.limit = None;
        self.count_waiting();
        for one in entered? {
            let retry_after = one.retry_after;
            one.waker.push(Event::Displaced { retry_after });
        }
        Ok(())
    }

    /// Leaves the waiting room for a worker that it found by itself.
    pub(crate) fn take_turn(&self, ticket: &Ticket) {
        lock(&self.waiting).room.take_turn(ticket);
        self.count_waiting();
    }

    /// Leaves the waiting room because the client has gone.
    pub(crate) fn give_up(&self, ticket: &Ticket) {
        lock(&self.waiting).give_up(ticket, Instant::now());
        self.count_waiting();
    }

    /// The client of a request that had waited has left, before it had any of its answer.
    pub(crate) fn left_unanswered(&self, ticket: &Ticket) {
        lock(&self.waiting).left(ticket, Instant::now());
    }

    /// Leaves the waiting room.
    pub(crate) fn leave(&self, ticket: &Ticket) {
        lock(&self.waiting).room.leave(ticket);
        self.count_waiting();
    }

    /// Requests that wait for `model`.
    pub(crate) fn waiting(&self, model: &str) -> usize {
        lock(&self.waiting).room.waiting(model)
    }

    /// A worker was given a request for `model`; this feeds the estimate of `Retry-After`.
    pub(crate) fn run_began(&self, model: &str, now: Instant) {
        lock(&self.waiting).began(model, now);
    }

    /// The run that began at `since` is over; `ended` when its request is answered.
    pub(crate) fn run_over(&self, model: &str, since: Instant, ended: bool, now: Instant) {
        lock(&self.waiting).over(model, since, ended, now);
    }

    /// The number of waiting requests, by model.
    pub(crate) fn waiting_by_model(&self) -> Vec<(String, usize)> {
        let waiting = lock(&self.waiting);
        let models = waiting.room.models();
        models
            .map(|model| (model.to_owned(), waiting.room.waiting(model)))
            .collect()
    }

    fn count_waiting(&self) {
        let (classes, waiting, bytes) = {
            let room = &lock(&self.waiting).room;
            (room.by_class(), room.len(), room.bytes())
        };
        let gauge = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        for (class, waiting) in classes {
            if let Some(of_class) = self.metrics.waiting_of(class) {
                of_class.set(gauge(waiting));
            }
        }
        if waiting > 0 {
            self.tell_waiting.ring();
        }
        self.metrics.waiting_bytes().set(gauge(bytes));
    }
}
