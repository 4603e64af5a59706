//! The loop that watches the workers: statuses in; snapshots, answers and events out.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::{Message, Subject};
use futures_util::StreamExt as _;
use tokenbus_bus::clock::unix_ms;
use tokenbus_bus::{Bus, Subscription};
use tokenbus_protocol::{Capacity, Event, EventKind, Name, Status, Subjects, Total, Waiting, decode, is_inbox};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::allowance::Allowances;
use crate::leader::Leadership;
use crate::limits::{
    ANSWER_AGE, FOR_SNAPSHOTS, MAX_STATUS, MAX_UNTOLD, MAX_WAITING, MAX_WAITING_QUESTIONS, RECONNECT_GRACE, UNTOLD_FOR,
    WARM_UP,
};
use crate::metrics::{Metrics, WorkerTotals};
use crate::options::Options;
use crate::outbound::Outbound;
use crate::pacer::{Pacer, Urgency};
use crate::registry::{Change, RefusedStatus, Registry};
use crate::scaling::Scaling;
use crate::snapshot::{Stamp, fold};
use crate::waiting::WaitingAtGateways;

/// The channels of the loop.
pub(crate) struct WatcherChannels {
    /// The statuses of all workers.
    pub(crate) statuses: Subscription,
    /// Questions for the snapshot.
    pub(crate) questions: Subscription,
    /// Who leads.
    pub(crate) leadership: watch::Receiver<Leadership>,
    /// Messages to publish.
    pub(crate) out: mpsc::Sender<Outbound>,
    /// The newest snapshot, for HTTP and metrics.
    pub(crate) newest: watch::Sender<Arc<Capacity>>,
    /// The counts of each worker since its start, for metrics.
    pub(crate) totals: watch::Sender<WorkerTotals>,
}

/// The state of the loop.
pub(crate) struct Watcher {
    me: Name,
    bus: Bus,
    subjects: Subjects,
    lost_after: Duration,
    registry: Registry,
    allowances: Allowances,
    waiting: WaitingAtGateways,
    scaling: Scaling,
    pacer: Pacer,
    metrics: Metrics,
    out: mpsc::Sender<Outbound>,
    newest: watch::Sender<Arc<Capacity>>,
    totals: watch::Sender<WorkerTotals>,
    /// When to look for silent workers.
    look: Instant,
    /// When the newest snapshot was made.
    made: Instant,
    seq: u64,
    leadership: Leadership,
    /// When the registry knows every worker; `None` before the first connection.
    warm_at: Option<Instant>,
    /// The questions that came before that.
    asked_early: Vec<Subject>,
    /// Events that the leader may have died before publishing.
    untold: VecDeque<(Instant, Event)>,
}

/// An empty snapshot, until the first is made.
pub(crate) fn nothing(me: &Name) -> Arc<Capacity> {
    let (workers, models) = (Vec::new(), Vec::new());
    Arc::new(Capacity {
        coordinator: me.clone(),
        seq: 0,
        at_ms: unix_ms(),
        workers,
        models,
        total: Total::default(),
        lost: vec![],
    })
}

/// An event of this kind, at this time, with no subject yet.
fn event(kind: EventKind) -> Event {
    Event {
        kind,
        at_ms: unix_ms(),
        worker: None,
        instance: None,
        model: None,
        coordinator: None,
    }
}

impl Watcher {
    /// A watcher that knows no worker yet.
    pub(crate) fn new(
        me: Name,
        bus: Bus,
        subjects: Subjects,
        options: &Options,
        metrics: Metrics,
        channels: &WatcherChannels,
    ) -> Self {
        let now = Instant::now();
        Self {
            pacer: Pacer::new(now, bus.rhythm()),
            me,
            bus,
            subjects,
            lost_after: options.lost_after,
            registry: Registry::new(options.lost_after),
            allowances: Allowances::default(),
            waiting: WaitingAtGateways::default(),
            scaling: Scaling::new(options.rules.clone()),
            look: now,
            metrics,
            out: channels.out.clone(),
            newest: channels.newest.clone(),
            totals: channels.totals.clone(),
            made: now,
            seq: 0,
            leadership: Leadership::unknown(now),
            warm_at: None,
            asked_early: Vec::new(),
            untold: VecDeque::new(),
        }
    }

    /// Runs until `shutdown`.
    pub(crate) async fn run(mut self, mut channels: WatcherChannels, shutdown: CancellationToken) {
        let mut link = self.bus.link();
        self.linked(link.borrow_and_update().connected);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                status = channels.statuses.next() => match status {
                    Some(message) => self.status(&message),
                    None => return,
                },
                question = channels.questions.next() => match question {
                    Some(message) => self.question(message),
                    None => return,
                },
                () = tokio::time::sleep_until(self.look.into()) => self.tick(link.borrow().connected),
                () = tokio::time::sleep_until(self.pacer.due().into()) => self.snapshot(Instant::now()),
                changed = channels.leadership.changed() => {
                    if changed.is_err() { return }
                    let next = channels.leadership.borrow_and_update().clone();
                    self.led_by(next);
                }
                _ = link.changed() => {
                    let connected = link.borrow_and_update().connected;
                    self.linked(connected);
                }
            }
        }
    }

    /// The connection came up or went down.
    fn linked(&mut self, connected: bool) {
        let now = Instant::now();
        if connected && self.warm_at.is_none() {
            self.warm_at = Some(now + WARM_UP);
            self.pacer.postpone(now + WARM_UP);
        }
        self.registry.excuse(now + self.lost_after + RECONNECT_GRACE);
    }

    fn warm(&self, now: Instant) -> bool {
        self.warm_at.is_some_and(|warm_at| now >= warm_at)
    }

    fn status(&mut self, message: &Message) {
        let now = Instant::now();
        let sender = message.subject.rsplit('.').next().and_then(|name| Name::new(name).ok());
        if !sender.is_some_and(|sender| self.allowances.status(&sender, now)) {
            self.metrics.refused.inc();
            return;
        }
        let status = if message.payload.len() > MAX_STATUS {
            None
        } else {
            decode::<Status>(&message.payload).ok()
        };
        // A worker may report only itself: permissions are by subject.
        let Some(status) =
            status.filter(|status| message.subject.as_str() == self.subjects.status(&status.report.worker))
        else {
            self.bus.metrics().malformed.inc();
            tracing::debug!(subject = %message.subject, bytes = message.payload.len(), "not a worker's status");
            return;
        };
        self.metrics.statuses.inc();
        let (worker, instance) = (status.report.worker.clone(), status.report.instance);
        match self.registry.observe(status, now) {
            Ok(change) => {
                let change = self.allowances.change(&worker, change, now);
                self.apply(change, now);
            }
            Err(RefusedStatus::Stale) => {
                self.metrics.refused.inc();
            }
            Err(reason) => {
                self.metrics.refused.inc();
                tracing::debug!(%worker, instance, ?reason, "a status was not taken");
            }
        }
    }

    fn tick(&mut self, connected: bool) {
        let now = Instant::now();
        if !connected {
            self.registry.excuse(now + self.lost_after + RECONNECT_GRACE);
        }
        let change = self.registry.tick(now);
        self.look = self.registry.next_look(now, self.bus.rhythm());
        self.apply(change, now);
        while self
            .untold
            .front()
            .is_some_and(|(at, _)| now.saturating_duration_since(*at) > UNTOLD_FOR)
        {
            self.untold.pop_front();
        }
    }

    fn apply(&mut self, change: Change, now: Instant) {
        for happening in change.happenings {
            let (worker, instance) = happening.worker.unzip();
            let event = Event {
                worker,
                instance,
                model: happening.model,
                ..event(happening.kind)
            };
            self.tell(event, now);
        }
        self.hurry(change.urgency, now);
    }

    fn hurry(&mut self, urgency: Urgency, now: Instant) {
        self.pacer.note(urgency, self.registry.len(), now);
        if let Some(warm_at) = self.warm_at {
            self.pacer.postpone(warm_at);
        }
    }

    /// Publishes an event, or keeps it in case the leader cannot.
    fn tell(&mut self, event: Event, now: Instant) {
        if self.leadership.leads(now) {
            self.metrics.events.inc();
            let worker = event.worker.as_ref().map(Name::as_str);
            tracing::info!(kind = %event.kind, worker, instance = event.instance, model = event.model, "cluster event");
            self.send(Outbound::Event(event));
            return;
        }
        if self.untold.len() >= MAX_UNTOLD {
            self.untold.pop_front();
        }
        self.untold.push_back((now, event));
    }

    fn send(&self, message: Outbound) {
        let events_wait = matches!(message, Outbound::Event(_)) && self.out.capacity() <= FOR_SNAPSHOTS;
        if events_wait || self.out.try_send(message).is_err() {
            // The bus is away or too slow; the next snapshot shows everything.
            self.metrics.unsent.inc();
        }
    }

    fn led_by(&mut self, next: Leadership) {
        let now = Instant::now();
        let before = std::mem::replace(&mut self.leadership, next);
        self.metrics.leading.set(i64::from(self.leadership.leading));
        if !self.leadership.leading || before.leading {
            return;
        }
        self.tell(
            Event {
                coordinator: Some(self.me.clone()),
                ..event(EventKind::LeaderChanged)
            },
            now,
        );
        for (_, event) in std::mem::take(&mut self.untold) {
            self.tell(event, now);
        }
        self.hurry(Urgency::Structure, now);
    }

    /// Makes a snapshot, and publishes it if this coordinator leads.
    fn snapshot(&mut self, now: Instant) {
        self.pacer.sent(now);
        if !self.warm(now) {
            return;
        }
        let capacity = self.make(now);
        if !self.bus.is_connected() {
            return;
        }
        for reply in std::mem::take(&mut self.asked_early) {
            if !self.leadership.follows(now) {
                self.send(Outbound::Answer(reply, Arc::clone(&capacity)));
            }
        }
        if self.leadership.leads(now) {
            self.metrics.snapshots.inc();
            self.send(Outbound::Snapshot(capacity));
        }
    }

    fn make(&mut self, now: Instant) -> Arc<Capacity> {
        self.seq += 1;
        let stamp = Stamp {
            coordinator: self.me.clone(),
            seq: self.seq,
            at_ms: unix_ms(),
        };
        let capacity = Arc::new(fold(&self.registry, &self.waiting, &mut self.scaling, stamp, now));
        self.newest.send_replace(Arc::clone(&capacity));
        let workers = self.registry.workers().map(|worker| &worker.status);
        let totals = workers.map(|status| (status.report.worker.clone(), status.totals));
        self.totals.send_replace(totals.collect());
        self.made = now;
        capacity
    }

    /// Takes a gateway's message about its waiting requests. All coordinators hear it, so that a successor knows it
    /// too.
    fn told_waiting(&mut self, payload: &[u8], now: Instant) {
        let told = (payload.len() <= MAX_WAITING).then(|| decode::<Waiting>(payload).ok());
        match told.flatten() {
            Some(waiting) => self.waiting.note(waiting, now),
            None => {
                self.bus.metrics().malformed.inc();
                tracing::debug!(bytes = payload.len(), "not what waits at a gateway");
            }
        }
    }

    /// Answers a question for the snapshot, unless another coordinator does.
    fn question(&mut self, message: Message) {
        let now = Instant::now();
        let Some(reply) = message.reply else {
            return self.told_waiting(&message.payload, now);
        };
        // Whoever asks must not write through the coordinator where they may not write themselves.
        if !is_inbox(&reply) {
            self.bus.metrics().malformed.inc();
            tracing::debug!(%reply, "a question whose answer would go elsewhere than to an inbox");
            return;
        }
        if self.leadership.follows(now) {
            return;
        }
        if !self.warm(now) {
            if self.asked_early.len() < MAX_WAITING_QUESTIONS {
                self.asked_early.push(reply);
            }
            return;
        }
        let fresh = now.saturating_duration_since(self.made) <= ANSWER_AGE;
        let capacity = if fresh {
            Arc::clone(&self.newest.borrow())
        } else {
            self.make(now)
        };
        self.send(Outbound::Answer(reply, capacity));
    }
}
