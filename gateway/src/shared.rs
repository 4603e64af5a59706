//! What all streams of a gateway share: the bus, the streams by number, the view of the workers,
//! the waiting room. Each lock is held for one look or one change and never across an await.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tokenbus_bus::Bus;
use tokenbus_protocol::control::Cancel;
use tokenbus_protocol::{Control, Features, Name, Room, Subjects, encode};
use tokio::sync::mpsc;
use tokio::time::Instant;
use uuid::Uuid;

use crate::call::Call;
use crate::limits;
use crate::metrics::Metrics;
use crate::placement::accept_clock::AcceptClock;
use crate::placement::budget::Budget;
use crate::placement::{Choice, Tried, View};
use crate::roll_call::RollCall;
use crate::stream::demux::Streams;
use crate::stream::event::Event;
use crate::stream::inbox::Inbox;
use crate::waiting_room::{DrainRate, Ticket, WaitingRoom};

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
    /// Workers that have yet to say what they have of our streams.
    pub roll_call: RollCall,
    view: Mutex<View>,
    waiting: Mutex<Waiting>,
    accept_clock: Mutex<AcceptClock>,
    budget: Mutex<Budget>,
    courier: mpsc::Sender<(String, Bytes)>,
}

struct Waiting {
    room: WaitingRoom<Arc<Inbox>>,
    drain: std::collections::HashMap<String, DrainRate>,
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
        waiting: usize,
    ) -> (Arc<Self>, mpsc::Receiver<(String, Bytes)>) {
        let (courier, outgoing) = mpsc::channel(limits::COURIER);
        let shared = Self {
            bus,
            subjects,
            gateway,
            streams: Streams::default(),
            metrics,
            roll_call: RollCall::default(),
            view: Mutex::default(),
            waiting: Mutex::new(Waiting {
                room: WaitingRoom::new(waiting),
                drain: std::collections::HashMap::new(),
            }),
            accept_clock: Mutex::default(),
            budget: Mutex::default(),
            courier,
        };
        (Arc::new(shared), outgoing)
    }

    /// The view of the workers. Hold it for one look or change.
    pub fn view(&self) -> MutexGuard<'_, View> {
        lock(&self.view)
    }

    /// Where a request should go; see [`View::choose`].
    pub fn choose(&self, call: &Call, tried: Tried<'_>, now: Instant) -> Choice {
        let random = &mut fastrand::Rng::new();
        self.view().choose(&call.model, call.all_needs(), tried, now, random)
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
            self.wake(&model, now);
        }
    }

    /// Wakes as many of those who wait for `model` as there is room for. When nobody knows how
    /// much there is, one goes and finds out.
    pub fn wake(&self, model: &str, now: Instant) {
        let mut lines: Vec<(Features, u32)> = {
            let waiting = lock(&self.waiting);
            waiting.room.lines(model).map(|(line, _)| (line, 0)).collect()
        };
        if lines.is_empty() {
            return;
        }
        {
            let view = self.view();
            let unknown = u32::from(!view.is_fresh(now));
            for (line, room) in &mut lines {
                *room = view.free(model, *line).max(unknown);
            }
        }
        let mut woken: Vec<Arc<Inbox>> = Vec::new();
        {
            let mut waiting = lock(&self.waiting);
            for (line, room) in lines {
                woken.extend((0..room).map_while(|_| waiting.room.next(model, line)));
            }
        }
        self.count_waiting();
        for inbox in woken {
            inbox.push(Event::Go);
        }
    }

    /// Wakes those who wait for any model, after a snapshot.
    pub fn wake_all(&self, now: Instant) {
        let models: Vec<String> = lock(&self.waiting).room.models().map(str::to_owned).collect();
        for model in models {
            self.wake(&model, now);
        }
    }

    /// A place in the order of arrival.
    pub fn ticket(&self, model: &str, priority: i32, tenant: Option<String>) -> Ticket {
        lock(&self.waiting).room.ticket(model, priority, tenant)
    }

    /// Waits in the waiting room, in the line of those who need as much.
    ///
    /// # Errors
    /// When to try again, where the room is full.
    pub fn enter(
        &self,
        ticket: &mut Ticket,
        needs: Features,
        inbox: &Arc<Inbox>,
        now: Instant,
    ) -> Result<(), Duration> {
        ticket.line = self.view().telling(&ticket.model, needs);
        let result = {
            let mut waiting = lock(&self.waiting);
            let ahead = waiting.room.waiting(&ticket.model);
            waiting.room.enter(ticket, Arc::clone(inbox)).map_err(|_| {
                waiting
                    .drain
                    .entry(ticket.model.clone())
                    .or_default()
                    .retry_after(ahead, now)
            })
        };
        self.count_waiting();
        result
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

    /// Requests that wait for what this one would wait for.
    pub fn waiting_before(&self, call: &Call) -> usize {
        if lock(&self.waiting).room.is_empty() {
            return 0;
        }
        let line = self.view().telling(&call.model, call.all_needs());
        lock(&self.waiting).room.waiting_in(&call.model, line)
    }

    /// A request for `model` ended: the measure for `Retry-After`.
    pub fn drained(&self, model: &str, now: Instant) {
        let drain = &mut lock(&self.waiting).drain;
        if let Some(rate) = drain.get_mut(model) {
            rate.ended(now);
        } else if drain.len() < limits::KNOWN_MODELS {
            drain.entry(model.to_owned()).or_default().ended(now);
        }
    }

    /// Whether a stream of `model` that lost its worker may be placed again now.
    pub fn may_redispatch(&self, model: &str, now: Instant) -> bool {
        lock(&self.budget).take(model, now)
    }

    /// How long to wait for an `Accepted`.
    pub fn patience(&self) -> Duration {
        lock(&self.accept_clock).patience()
    }

    /// An `Accepted` took this long.
    pub fn accepted_after(&self, took: Duration) {
        lock(&self.accept_clock).observe(took);
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
        let waiting = lock(&self.waiting).room.len();
        self.metrics.waiting().set(i64::try_from(waiting).unwrap_or(i64::MAX));
    }
}
