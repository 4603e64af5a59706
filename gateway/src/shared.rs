//! What all streams of a gateway share: the bus, the streams by number, the view of the workers,
//! the waiting room. Each lock is held for one look or one change and never across an await; where two are needed, the
//! view's is taken before the waiting room's.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tokenbus_bus::Bus;
use tokenbus_protocol::{Cancel, Control, Features, Name, Room, Subjects, encode};
use tokio::sync::mpsc;
use tokio::time::Instant;
use uuid::Uuid;

use crate::call::Call;
use crate::limits;
use crate::metrics::Metrics;
use crate::placement::View;
use crate::placement::budget::Budget;
use crate::roll_call::RollCall;
use crate::stream::demux::Streams;
use crate::stream::event::Event;
use crate::stream::inbox::Inbox;
use crate::stream::seek::{self, Goes, Seeker};
use crate::stream::state::StreamState;
use crate::waiting_room::{Bounds, Door, Ticket, WaitingRoom};

/// What all streams of a gateway share.
pub struct Shared {
    /// The connection.
    pub bus: Bus,
    /// The cluster's subjects.
    pub subjects: Subjects,
    /// This gateway's id; drawn anew at each start, so that no frame for an earlier life is taken.
    pub gateway: Name,
    /// Streams by number.
    pub streams: Streams,
    /// Counters.
    pub metrics: Metrics,
    /// Time that a request which nobody has taken waits for the bus.
    pub bus_patience: Duration,
    /// Workers that have yet to say what they have of our streams.
    pub roll_call: RollCall,
    view: Mutex<View>,
    waiting: Mutex<Door<Arc<Inbox>>>,
    budget: Mutex<Budget>,
    courier: mpsc::Sender<(String, Bytes)>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // None of these locks is held over code that can leave its data half-changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Unix time in seconds.
pub fn unix_seconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}

impl Shared {
    /// Shared state over `bus`, and the queue of messages that [`crate::feed::courier`] sends.
    pub fn new(
        bus: Bus,
        subjects: Subjects,
        gateway: Name,
        metrics: Metrics,
        waiting: Bounds,
        bus_patience: Duration,
    ) -> (Arc<Self>, mpsc::Receiver<(String, Bytes)>) {
        let (courier, outgoing) = mpsc::channel(limits::COURIER);
        let shared = Self {
            bus,
            subjects,
            gateway,
            streams: Streams::default(),
            metrics,
            bus_patience,
            roll_call: RollCall::default(),
            view: Mutex::default(),
            waiting: Mutex::new(Door::new(waiting)),
            budget: Mutex::default(),
            courier,
        };
        (Arc::new(shared), outgoing)
    }

    /// The view of the workers. Hold it for one look or change.
    pub fn view(&self) -> MutexGuard<'_, View> {
        lock(&self.view)
    }

    /// Where a request goes; see [`seek`].
    pub fn seek(&self, state: &mut StreamState, seeker: &Seeker<'_>, now: Instant) -> Goes {
        let random = &mut fastrand::Rng::new();
        let view = self.view();
        let waiting = lock(&self.waiting);
        seek::seek(state, seeker, &view, &waiting.room, now, random)
    }

    /// A worker told its room: whoever waits for one of its models may go.
    pub fn room(&self, worker: &Name, room: Room, now: Instant) {
        let models = {
            let mut view = self.view();
            view.room(worker, room, now);
            if room.free == 0 || lock(&self.waiting).room.is_empty() {
                return;
            }
            view.models_of(worker)
        };
        for model in models {
            self.wake(&model);
        }
    }

    /// Wakes as many of those who wait for `model` as there is room for, and whole lines where nobody is left
    /// who could serve them.
    pub fn wake(&self, model: &str) {
        self.call(|view, room| seek::call(view, room, model));
    }

    /// A request found no worker: wakes everyone who waits for the same, to find out as well.
    pub fn wake_line(&self, model: &str, needs: Features) {
        self.call(|view, room| seek::call_line(view, room, model, needs));
    }

    fn call(&self, called: impl FnOnce(&View, &mut WaitingRoom<Arc<Inbox>>) -> Vec<Arc<Inbox>>) {
        let called = {
            let view = self.view();
            let mut waiting = lock(&self.waiting);
            if waiting.room.is_empty() {
                return;
            }
            called(&view, &mut waiting.room)
        };
        self.count_waiting();
        for inbox in called {
            inbox.push(Event::Go);
        }
    }

    /// The worker is gone: whoever waits for it alone is woken.
    pub fn gone(&self, worker: &Name) {
        let models = {
            let mut view = self.view();
            view.gone(worker, Instant::now());
            view.models_of(worker)
        };
        for model in models {
            self.wake(&model);
        }
    }

    /// Wakes those who wait for any model, after a snapshot.
    pub fn wake_all(&self) {
        let models: Vec<String> = lock(&self.waiting).room.models().map(str::to_owned).collect();
        for model in models {
            self.wake(&model);
        }
    }

    /// A place in the order of arrival.
    pub fn ticket(&self, call: &Call) -> Ticket {
        let room = &mut lock(&self.waiting).room;
        room.ticket(&call.model, call.priority, call.tenant.clone(), call.body.len())
    }

    /// Waits in the waiting room, in the line of those who need as much. What has `begun` is always
    /// let in. Those that have to give way are told.
    ///
    /// # Errors
    /// When to try again, where the room is full.
    pub fn enter(
        &self,
        ticket: &mut Ticket,
        needs: Features,
        begun: bool,
        inbox: &Arc<Inbox>,
        now: Instant,
    ) -> Result<(), Duration> {
        ticket.line = self.view().telling(&ticket.model, needs);
        ticket.begun = begun;
        let entered = lock(&self.waiting).enter(ticket, Arc::clone(inbox), now);
        self.count_waiting();
        for one in entered? {
            let retry_after = one.retry_after;
            one.waker.push(Event::Displaced { retry_after });
        }
        Ok(())
    }

    /// Leaves the waiting room.
    pub fn leave(&self, ticket: &Ticket) {
        lock(&self.waiting).room.leave(ticket);
        self.count_waiting();
    }

    /// Requests that wait for `model`.
    pub fn waiting(&self, model: &str) -> usize {
        lock(&self.waiting).room.waiting(model)
    }

    /// A worker is given a request for `model`: the measure for `Retry-After`.
    pub fn run_began(&self, model: &str, now: Instant) {
        lock(&self.waiting).began(model, now);
    }

    /// No worker has a request for `model` any more that one was given at `since`; `ended` when it is
    /// answered.
    pub fn run_over(&self, model: &str, since: Instant, ended: bool, now: Instant) {
        lock(&self.waiting).over(model, since, ended, now);
    }

    /// Whether a stream of `model` that lost its worker may be placed again now.
    pub fn may_redispatch(&self, model: &str, now: Instant) -> bool {
        lock(&self.budget).take(model, now)
    }

    /// How long to wait for an `Accepted` of `target`, or of whichever worker of `model` takes it. Of one
    /// that was never measured it is known only how far away NATS is.
    pub fn patience(&self, target: Option<&Name>, model: &str) -> Duration {
        let first = limits::ACCEPT_FIRST.max(self.bus.rtt().saturating_mul(3));
        let first = first.min(limits::ACCEPT_MAX);
        self.view().patience(target, model, first)
    }

    /// Sends a cancel, without waiting: also from a destructor.
    pub fn cancel(&self, worker: &Name, id: Uuid, attempt: u32) {
        let message = Control::Cancel(Cancel { id, attempt });
        let Ok(bytes) = encode(&message) else { return };
        if self
            .courier
            .try_send((self.subjects.control(worker), bytes.into()))
            .is_err()
        {
            self.bus.metrics().publish_failures.inc();
            tracing::warn!(%worker, %id, "a cancel could not be queued; the worker will stop at the deadline");
        }
    }

    /// Requests that wait here, by model.
    pub fn waiting_by_model(&self) -> Vec<(String, usize)> {
        let waiting = lock(&self.waiting);
        let models = waiting.room.models();
        models
            .map(|model| (model.to_owned(), waiting.room.waiting(model)))
            .collect()
    }

    fn count_waiting(&self) {
        let (waiting, bytes) = {
            let room = &lock(&self.waiting).room;
            (room.len(), room.bytes())
        };
        let gauge = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.metrics.waiting().set(gauge(waiting));
        self.metrics.waiting_bytes().set(gauge(bytes));
    }
}
