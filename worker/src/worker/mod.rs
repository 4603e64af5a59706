//! The worker as a whole: connects the core with NATS, and leaves in good order.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::{Message, StatusCode};
use bytes::Bytes;
use futures_util::future::{BoxFuture, join_all};
use prometheus_client::registry::Registry;
use tokenbus_bus::{Bus, BusError, Link, Refusals, task};
use tokenbus_engine::job_channel;
use tokenbus_protocol::{Name, Subjects, WorkerState};
use tokenbus_telemetry::{Exporting, Role, TelemetryError, Tracer};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant as TokioInstant;
use tokio_util::sync::CancellationToken;

use crate::core::claim::{self, IdTaken};
use crate::core::intake::{Inbound, Intake};
use crate::core::{Core, CoreParts};
use crate::engine::{Engine, EngineInfo, Health};
use crate::limits;
use crate::options::{Identity, Options};
use crate::outbox;
use crate::outbox::outboxes::Outboxes;
use crate::outbox::post::{self, Letter, Post};
use crate::outbox::stream::{Ends, Key};
use crate::report::load::Load;
use crate::report::metrics::Metrics;
use crate::report::news;
use crate::report::reading::Readings;
use crate::report::status::{Heartbeat, Snapshot};
use crate::service;

/// Why a worker does not run.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// NATS cannot be used.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// Traces cannot be told as asked.
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    /// Another worker runs under the same id.
    #[error(transparent)]
    Id(#[from] IdTaken),
}

/// A worker that has not begun.
pub struct Worker {
    options: Options,
    engine: Arc<dyn Engine>,
    bus: Bus,
    identity: Identity,
    metrics: Metrics,
    tracer: Tracer,
    exporting: Option<Exporting>,
    snapshot: watch::Sender<Snapshot>,
    ready: watch::Sender<bool>,
}

/// A view of a worker, for the process that runs it.
#[derive(Clone)]
pub struct Handle {
    worker: Name,
    bus: Bus,
    metrics: Metrics,
    snapshot: watch::Receiver<Snapshot>,
    ready: watch::Receiver<bool>,
}

impl Handle {
    /// The worker's id.
    pub fn worker(&self) -> &Name {
        &self.worker
    }

    /// Its state at this moment.
    pub fn state(&self) -> WorkerState {
        self.snapshot.borrow().state
    }

    /// Waits until the worker has been ready for the first time: its engine is, and NATS has
    /// confirmed its subscriptions. False when it ended before.
    pub async fn ready(&mut self) -> bool {
        self.ready.wait_for(|ready| *ready).await.is_ok()
    }

    /// Registers the counters of the worker and of its connection.
    pub fn register(&self, registry: &mut Registry) {
        self.metrics.register(registry);
        self.bus.metrics().register(registry);
    }
}

/// Runs a worker until `shutdown` is cancelled and it has left in good order.
///
/// # Errors
/// [`WorkerError`] when NATS cannot be used at all (bad options), or when another worker has its id. A NATS
/// that is away is waited for.
// Not an `async fn`: the code of all tasks is then compiled in this crate, and not in the one that calls it.
pub fn run(
    options: Options,
    engine: Arc<dyn Engine>,
    shutdown: CancellationToken,
) -> BoxFuture<'static, Result<(), WorkerError>> {
    Box::pin(async move { Worker::connect(options, engine).await?.run(shutdown).await })
}

impl Worker {
    /// Starts connecting to NATS and returns at once.
    ///
    /// # Errors
    /// [`WorkerError`] when the options cannot be used.
    pub async fn connect(options: Options, engine: Arc<dyn Engine>) -> Result<Self, WorkerError> {
        let identity = Identity {
            labels: options.labels.clone(),
            tier: options.tier,
            ..Identity::new(options.worker.clone(), &options.namespace)
        };
        let name = format!("tokenbus-worker-{}", identity.worker);
        let metrics = Metrics::default();
        let (role, spans) = (Role::Worker, metrics.spans.clone());
        let (tracer, exporting) = Tracer::start(role, identity.worker.as_str(), options.trace_slow, spans)?;
        let bus = Bus::connect(&options.bus.clone().named(name)).await?;
        Ok(Self {
            options,
            engine,
            bus,
            identity,
            metrics,
            tracer,
            exporting,
            snapshot: watch::Sender::new(Snapshot::starting()),
            ready: watch::Sender::new(false),
        })
    }

    /// A view of this worker.
    pub fn handle(&self) -> Handle {
        Handle {
            worker: self.identity.worker.clone(),
            bus: self.bus.clone(),
            metrics: self.metrics.clone(),
            snapshot: self.snapshot.subscribe(),
            ready: self.ready.subscribe(),
        }
    }

    /// Serves until `shutdown` is cancelled; then drains, hands over what is left after the grace
    /// period, and leaves.
    ///
    /// # Errors
    /// [`WorkerError::Id`] when another worker has its id: when it starts, or later.
    pub async fn run(mut self, shutdown: CancellationToken) -> Result<(), WorkerError> {
        let subjects = Subjects::new(self.options.namespace.clone());
        let asked = tokio::select! {
            biased;
            () = shutdown.cancelled() => {
                self.end().await;
                return Ok(());
            }
            asked = claim::ask(&self.bus, subjects.control(&self.identity.worker), &self.identity) => asked,
        };
        if let Err(taken) = asked {
            self.engine.stop().await;
            return Err(taken.into());
        }
        let (ends_sender, ends) = job_channel();
        let (post, letters) = Post::new(self.metrics.clone());
        let load = Arc::new(Load::default());
        let info = self.engine.info();
        let core = Core::new(self.parts(&subjects, &load, post, ends_sender), info.borrow().clone());
        load.set_readings(&core.parts.readings);
        let helpers = self.helpers(&subjects, load, letters, Arc::clone(&core.parts.readings));
        let mut running = Loop {
            intake: Intake::new(self.bus.clone(), subjects, self.identity.worker.clone()),
            core,
            ends,
            info,
            link: self.bus.link(),
            refusals: self.bus.refusals(),
            worker: &self,
        };
        running.run(&shutdown).await;
        let Loop { core, intake, .. } = running;
        let lost = core.tenure.lost_to();
        self.leave(core, intake, helpers).await;
        if let Some(exporting) = self.exporting.take() {
            exporting.close().await;
        }
        match lost {
            None => Ok(()),
            Some(other) => Err(IdTaken::later(&self.identity, other).into()),
        }
    }

    fn parts(&self, subjects: &Subjects, load: &Arc<Load>, post: Post, ends: Ends) -> CoreParts {
        CoreParts {
            identity: self.identity.clone(),
            subjects: subjects.clone(),
            engine: Arc::clone(&self.engine),
            slots: self.options.slots,
            queue: self.options.queue,
            grace: self.options.grace,
            max_frame: self.max_frame(),
            load: Arc::clone(load),
            metrics: self.metrics.clone(),
            tracer: self.tracer.clone(),
            malformed: self.bus.metrics().malformed.clone(),
            outboxes: self.outboxes(subjects, load),
            post,
            ends,
            snapshot: self.snapshot.clone(),
            readings: Readings::new(self.identity.instance, Instant::now()),
        }
    }

    fn helpers(
        &self,
        subjects: &Subjects,
        load: Arc<Load>,
        letters: mpsc::Receiver<Letter>,
        readings: Arc<Readings>,
    ) -> [JoinHandle<()>; 4] {
        let heartbeat = Heartbeat {
            bus: self.bus.clone(),
            subject: subjects.status(&self.identity.worker),
            identity: self.identity.clone(),
            load,
            metrics: self.metrics.clone(),
            snapshot: self.snapshot.subscribe(),
        };
        let registration = service::register(
            self.bus.clone(),
            self.identity.clone(),
            self.options.namespace.to_string(),
            self.snapshot.subscribe(),
        );
        let news = subjects.news(&self.identity.worker);
        let news = news::tell(self.bus.clone(), news, readings, self.snapshot.subscribe());
        [
            task::spawn("heartbeat", heartbeat.run()),
            task::spawn("news", news),
            task::spawn("nats-service", registration),
            task::spawn("post", post::deliver(self.bus.clone(), letters, self.metrics.clone())),
        ]
    }

    /// Sends what waits, says goodbye, listens to nothing any more, and stops the engine.
    async fn leave(&self, mut core: Core, mut intake: Intake, helpers: [JoinHandle<()>; 4]) {
        core.commands.shutdown().await;
        let senders = core.parts.outboxes.close();
        if !all_end(senders, limits::LAST_FLUSH).await {
            tracing::warn!("not all frames were sent before the worker stopped");
        }
        self.snapshot
            .send_modify(|snapshot| snapshot.state = WorkerState::Stopped);
        // The post ends with the last sender of letters.
        drop(core);
        if !all_end(helpers.into(), limits::LAST_TASK).await {
            tracing::warn!("NATS did not take the worker's last words");
        }
        // Whoever asks for the worker after its end hears at once that nobody is there.
        if tokio::time::timeout(limits::LAST_TASK, intake.close()).await.is_err() {
            tracing::warn!("NATS was not told that the worker listens no more");
        }
        if self.bus.is_connected()
            && let Err(error) = self.bus.round_trip().await
        {
            tracing::warn!(%error, "NATS did not confirm the worker's last messages");
        }
        self.end().await;
    }

    async fn end(&self) {
        self.engine.stop().await;
        tracing::info!(worker = %self.identity.worker, "worker stopped");
    }

    fn max_frame(&self) -> usize {
        let server = self.bus.max_payload().saturating_sub(limits::FRAME_OVERHEAD);
        server.min(limits::FRAME)
    }

    fn outboxes(&self, subjects: &Subjects, load: &Arc<Load>) -> Outboxes {
        let (bus, metrics) = (self.bus.clone(), self.metrics.clone());
        let (subjects, worker) = (subjects.clone(), self.identity.worker.clone());
        let start = Box::new(move |gateway: &Name, outbox| {
            let route = outbox::Route {
                subject: subjects.out(gateway, &worker),
                watch: subjects.watch(&worker, gateway),
            };
            task::spawn("outbox", outbox::send(outbox, bus.clone(), route, metrics.clone()))
        });
        Outboxes::new(self.options.outbox, Arc::clone(load), self.metrics.clone(), start)
    }

    /// Says once that the worker is ready.
    fn say_ready(&self, core: &Core) {
        if self.ready.send_replace(true) {
            return;
        }
        let models: Vec<&str> = core.info.models.iter().map(|model| model.name.as_str()).collect();
        tracing::info!(
            worker = %self.identity.worker,
            models = models.join(","),
            slots = core.parts.load.slots(),
            engine = core.info.engine,
            nats = self.options.bus.display_urls(),
            "worker ready"
        );
    }
}

/// Waits until all `tasks` have ended, at most `patience`; those that have not are stopped. A task
/// that panicked has ended, and was logged when it did.
async fn all_end(tasks: Vec<JoinHandle<()>>, patience: Duration) -> bool {
    let aborts: Vec<_> = tasks.iter().map(JoinHandle::abort_handle).collect();
    let ended = tokio::time::timeout(patience, join_all(tasks)).await.is_ok();
    for abort in aborts {
        abort.abort();
    }
    ended
}

/// The worker's one loop.
struct Loop<'a> {
    core: Core,
    intake: Intake,
    ends: mpsc::UnboundedReceiver<Key>,
    info: watch::Receiver<EngineInfo>,
    link: watch::Receiver<Link>,
    refusals: watch::Receiver<Refusals>,
    worker: &'a Worker,
}

impl Loop<'_> {
    /// Ends first (they make room), time second, new messages last: a flood of these delays
    /// nothing else.
    async fn run(&mut self, shutdown: &CancellationToken) {
        let mut shutdown = pin!(shutdown.cancelled());
        let mut ticked = Instant::now();
        let (mut stopping, mut engine_gone, mut confirmed) = (false, false, false);
        loop {
            if std::mem::take(&mut self.core.relisten) {
                self.intake.want(&self.core.interests());
            }
            if self.core.is_finished() && !self.intake.is_leaving() {
                return;
            }
            // A worker without requests looks at nothing but its own claim and its metrics.
            let pause = if self.core.is_idle() {
                limits::STATUS_EVERY
            } else {
                limits::TICK
            };
            let tick = TokioInstant::from_std(self.worker.bus.rhythm().after(ticked, pause));
            let timer = self.core.timers.next();
            let due = TokioInstant::from_std(timer.unwrap_or_else(Instant::now));
            tokio::select! {
                biased;
                Some(key) = self.ends.recv() => self.ended(key),
                () = &mut shutdown, if !stopping => {
                    stopping = true;
                    self.core.on_shutdown(Instant::now());
                }
                () = tokio::time::sleep_until(due), if timer.is_some() => self.core.on_timers(Instant::now()),
                () = tokio::time::sleep_until(tick) => {
                    ticked = Instant::now();
                    // A server that is connected to later may have another limit.
                    self.core.parts.max_frame = self.worker.max_frame();
                    let connection = Some(self.link.borrow()).filter(|link| link.connected).map(|link| link.epoch);
                    self.core.on_tick(connection, ticked);
                }
                Ok(()) = self.link.changed() => {
                    let link = self.link.borrow_and_update().clone();
                    if link.connected && link.epoch > 1 {
                        self.core.on_reconnected(Instant::now());
                    }
                }
                Ok(()) = self.refusals.changed() => self.note_refusals(),
                changed = self.info.changed(), if !engine_gone => {
                    engine_gone = changed.is_err();
                    self.engine_changed(engine_gone);
                }
                Some(done) = self.core.commands.join_next(), if !self.core.commands.is_empty() => {
                    if let Err(error) = done {
                        tracing::error!(%error, "a model command failed");
                    }
                }
                inbound = self.intake.next() => confirmed |= self.received(inbound),
            }
            self.core.settle(Instant::now());
            if confirmed {
                self.say_ready();
            }
        }
    }

    fn ended(&mut self, key: Key) {
        self.core.on_ended(key);
        while let Ok(key) = self.ends.try_recv() {
            self.core.on_ended(key);
        }
    }

    /// Once NATS has taken the subscriptions to all that the engine's state asks for.
    fn say_ready(&self) {
        let is_settled = !self.core.relisten && !self.intake.is_subscribing();
        if is_settled && self.core.state() == WorkerState::Ready {
            self.worker.say_ready(&self.core);
        }
    }

    fn note_refusals(&mut self) {
        let refused = self.intake.refused(&self.refusals.borrow_and_update());
        self.core.on_refused(refused);
    }

    fn engine_changed(&mut self, gone: bool) {
        let mut info = self.info.borrow_and_update().clone();
        if gone {
            info.health = Health::Down("The engine is gone".to_owned());
        }
        self.core.on_info(info, Instant::now());
    }

    /// What NATS says of a gateway that was probed. Nobody else has anything to say here.
    fn gateway_answer(&mut self, message: &Message, now: Instant) {
        let missing = message.status == Some(StatusCode::NO_RESPONDERS);
        match Subjects::parse_watch(&message.subject).filter(|_| missing) {
            Some(gateway) => self.core.on_missing_gateway(&gateway, now),
            None => {
                let bytes = message.payload.len();
                self.core
                    .on_malformed(&"not NATS's word on a gateway", "gateway", bytes, now);
            }
        }
    }

    /// Takes in what came; whether it was the confirmation of the subscriptions.
    fn received(&mut self, inbound: Inbound) -> bool {
        let now = Instant::now();
        match inbound {
            Inbound::Request(message) => self.core.on_request(&message.payload, now),
            Inbound::Control(message) => {
                let reply = message.reply.map(|subject| subject.to_string());
                let payload: Bytes = message.payload;
                self.core.on_control(&payload, reply, now);
            }
            Inbound::Gateway(message) => self.gateway_answer(&message, now),
            Inbound::Confirmed => {
                self.note_refusals();
                self.core.parts.max_frame = self.worker.max_frame();
                self.core.claim(now);
                return true;
            }
            Inbound::Left => tracing::debug!("left the request subjects"),
        }
        false
    }
}
