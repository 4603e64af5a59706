//! What all streams of a gateway share: the bus, the streams by number, the view of the workers, the waiting room. Each
//! lock is held for one read or one change, never across an await. Where several are needed, the view is locked before
//! the waiting room, and that before the prefixes.

pub(crate) mod bell;
mod deadly;
mod left;
pub(crate) mod roll_call;
mod waiting;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokenbus_bus::{Bus, Refusals};
use tokenbus_placement::Prompt;
use tokenbus_protocol::{Cancel, Control, DeadlyRequest, Disown, Name, Subjects, TellPrefixes, WorkerNews, encode};
use tokio::sync::mpsc;
use tokio::time::Instant;
use uuid::Uuid;

use bell::Bell;
use deadly::{Deadly, RequestHash};
use left::Left;
use roll_call::RollCall;

use crate::call::Call;
use crate::limits;
use crate::metrics::Metrics;
use crate::placement::budget::Budget;
use crate::placement::{Prefixes, View};
use crate::stream::demux::Streams;
use crate::stream::event::Event;
use crate::stream::inbox::Inbox;
use crate::stream::seek::{self, Destination, Seeker};
use crate::stream::state::StreamState;
use crate::waiting_room::{Bounds, Door};

/// What all streams of a gateway share.
pub(crate) struct Shared {
    /// The connection.
    pub bus: Bus,
    /// The cluster's subjects.
    pub subjects: Subjects,
    /// This gateway's id. It is new at each start, so that frames for an earlier run are ignored.
    pub gateway: Name,
    /// Streams by number.
    pub streams: Streams,
    /// Counters.
    pub metrics: Metrics,
    /// How long a request that no worker has taken waits for the bus.
    pub bus_patience: Duration,
    /// Workers that have not yet said which of our streams they hold.
    pub roll_call: RollCall,
    /// Wakes the loop that watches workers.
    pub watch: Bell,
    /// Wakes the loop that tells the coordinators what waits here.
    pub tell_waiting: Bell,
    view: Mutex<View>,
    prefixes: Mutex<Prefixes>,
    waiting: Mutex<Door<Arc<Inbox>>>,
    budget: Mutex<Budget<String>>,
    /// Frames of no use, by worker.
    useless: Mutex<Budget<Name>>,
    deadly: Mutex<Deadly>,
    left: Mutex<Left>,
    courier: mpsc::Sender<(String, Bytes)>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code that runs under these locks can leave the data half-changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// The shared state over `bus`, and the queue of messages that [`crate::loops::courier`] sends.
    pub(crate) fn new(
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
            watch: Bell::default(),
            tell_waiting: Bell::default(),
            view: Mutex::default(),
            prefixes: Mutex::default(),
            waiting: Mutex::new(Door::new(waiting)),
            budget: Mutex::new(Budget::new(limits::REDISPATCH_BURST, limits::REDISPATCH_RATE)),
            useless: Mutex::new(Budget::new(limits::USELESS_BURST, limits::USELESS_RATE)),
            deadly: Mutex::default(),
            left: Mutex::default(),
            courier,
        };
        (Arc::new(shared), outgoing)
    }

    /// Why the gateway cannot serve although it is connected: NATS refuses something that it must hear.
    pub(crate) fn refused(&self) -> Option<String> {
        let refusals = self.bus.refusals();
        let subject = self.deaf_to(&refusals.borrow())?;
        Some(format!("NATS refuses the subscription to {subject}"))
    }

    /// A refused subject that the gateway must hear. Hints of free slots only save time, questions for stories are an
    /// operator's, and deadly requests are rare.
    pub(crate) fn deaf_to(&self, refusals: &Refusals) -> Option<String> {
        let spared = [self.subjects.free_all(), self.subjects.trace(), self.subjects.deadly()];
        let mut refused = refusals.subscriptions();
        refused
            .find(|subject| !spared.iter().any(|spared| spared == subject))
            .map(str::to_owned)
    }

    /// The view of the workers. Hold it for one read or one change.
    pub(crate) fn view(&self) -> MutexGuard<'_, View> {
        lock(&self.view)
    }

    /// Engines died of `call`: it is refused for a time, here and at the other gateways.
    pub(crate) fn note_deadly(&self, call: &Call, now: Instant) {
        tracing::error!(id = %call.id, request = call.client_id, model = call.model, "engines died of this request");
        let request = RequestHash::of(call);
        if !lock(&self.deadly).note(request, now) {
            return;
        }
        self.metrics.deadly(true);
        let mut salt = [0; 16];
        if let Err(error) = getrandom::fill(&mut salt) {
            tracing::warn!(%error, "the other gateways are not told of it");
        } else if let Ok(bytes) = encode(&request.told(self.gateway.clone(), salt))
            && self.courier.try_send((self.subjects.deadly(), bytes.into())).is_err()
        {
            self.bus.metrics().publish_failures.inc();
        }
    }

    /// Another gateway tells of a request of which engines died.
    pub(crate) fn hear_deadly(&self, told: DeadlyRequest, now: Instant) {
        if told.gateway != self.gateway {
            tracing::debug!(gateway = %told.gateway, "engines died of a request there");
            self.metrics.deadly(false);
            lock(&self.deadly).hear(told, now);
        }
    }

    /// What became of the streams that left a worker.
    pub(crate) fn left(&self) -> MutexGuard<'_, Left> {
        lock(&self.left)
    }

    /// Whether engines died of the same request a short time ago.
    pub(crate) fn is_deadly(&self, call: &Call, now: Instant) -> bool {
        if lock(&self.deadly).is_empty(now) {
            return false;
        }
        let request = RequestHash::of(call);
        lock(&self.deadly).knows(&request, now)
    }

    /// Where a request goes; see [`seek`].
    pub(crate) fn seek(&self, state: &mut StreamState, seeker: &Seeker<'_>) -> Destination {
        let random = &mut fastrand::Rng::new();
        let view = self.view();
        let waiting = lock(&self.waiting);
        let prefixes = &mut *lock(&self.prefixes);
        seek::seek(state, seeker, &view, &waiting.room, prefixes, random)
    }

    /// A worker is gone: wakes the requests that only it could serve.
    pub(crate) fn gone(&self, worker: &Name) {
        let models = {
            let mut view = self.view();
            view.gone(worker, Instant::now());
            view.models_of(worker)
        };
        for model in models {
            self.wake(&model);
        }
    }

    /// A worker tells what is new of its prefixes and its pace. One that was not heard completely is asked for all.
    pub(crate) fn news(&self, worker: &Name, news: WorkerNews, now: Instant) {
        let missed = self.view().told_news(worker, news, &mut lock(&self.prefixes), now);
        if missed {
            // If the queue is full, the next news ask again.
            self.tell(worker, &Control::TellPrefixes(TellPrefixes {}));
        }
        let (cuts, bytes) = lock(&self.prefixes).size();
        self.metrics.prefixes(cuts, bytes);
    }

    /// A prompt was sent to a worker that has `uncached` tokens of it to read.
    pub(crate) fn reads(&self, worker: &Name, prompt: &Prompt, uncached: u32, now: Instant) {
        self.view()
            .reads(worker, prompt, uncached, &mut lock(&self.prefixes), now);
    }

    /// A worker is lost: its streams are told, and no request goes there.
    pub(crate) fn lost(&self, worker: &Name) {
        tracing::warn!(%worker, "worker lost");
        self.gone(worker);
        let event = Event::WorkerGone { worker: worker.clone() };
        self.streams.broadcast_of(worker, &event);
    }

    /// A worker was restarted: its streams are told.
    pub(crate) fn restarted(&self, worker: Name, instance: u64) {
        tracing::warn!(%worker, "worker was restarted");
        let of = worker.clone();
        self.streams
            .broadcast_of(&of, &Event::WorkerInstance { worker, instance });
    }

    /// Counts and logs a message that cannot be decoded.
    pub(crate) fn malformed(&self, subject: &str, error: &dyn std::fmt::Display) {
        self.bus.metrics().malformed.inc();
        tracing::warn!(subject, %error, "malformed message");
    }

    /// Whether a stream of `model` that lost its worker may be placed again now.
    pub(crate) fn may_redispatch(&self, model: &str, now: Instant) -> bool {
        lock(&self.budget).take(model, now)
    }

    /// `worker` sent frames that were of no use, or whose reading cost as much as so many.
    pub(crate) fn note_useless(&self, worker: &Name, frames: usize, now: Instant) {
        let spent = lock(&self.useless).spend(worker, frames as f64, now);
        if spent {
            tracing::warn!(%worker, "it sends more than it was asked for: it is not heard for a moment");
        }
    }

    /// Whether `worker` has sent so much that nobody asked for that its messages are not read now.
    pub(crate) fn is_unheard(&self, worker: &Name, now: Instant) -> bool {
        lock(&self.useless).is_spent(worker, now)
    }

    /// Tells `worker` that nobody reads its frames of this stream. The request's id is not told.
    pub(crate) fn disown(&self, worker: &Name, stream: u64, attempt: u32) {
        let gateway = self.gateway.clone();
        self.control(
            worker,
            &Control::Disown(Disown {
                gateway,
                stream,
                attempt,
            }),
        );
    }

    /// How long to wait for an `Accepted` from `target`, or from whichever worker of `model` takes the request. For an
    /// unmeasured worker only the distance to NATS is known.
    pub(crate) fn patience(&self, target: Option<&Name>, model: &str) -> Duration {
        let first = limits::ACCEPT_FIRST.max(self.bus.rtt().saturating_mul(3));
        let first = first.min(limits::ACCEPT_MAX);
        self.view().patience(target, model, first)
    }

    /// Queues a cancel without waiting, so that destructors may call it.
    pub(crate) fn cancel(&self, worker: &Name, id: Uuid, attempt: u32) {
        self.control(worker, &Control::Cancel(Cancel { id, attempt }));
    }

    fn control(&self, worker: &Name, message: &Control) {
        if !self.tell(worker, message) {
            self.bus.metrics().publish_failures.inc();
            tracing::warn!(%worker, "a cancel could not be queued; the worker will stop at the deadline");
        }
    }

    /// Queues a message to a worker. False if the queue is full.
    fn tell(&self, worker: &Name, message: &Control) -> bool {
        let Ok(bytes) = encode(message) else { return true };
        let subject = self.subjects.control(worker);
        self.courier.try_send((subject, bytes.into())).is_ok()
    }
}
