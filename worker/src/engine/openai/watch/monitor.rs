//! The one task that watches a server: probes it, hears of failures, and tells the worker.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use tokenbus_protocol::SlotsFrom;
use tokio::sync::watch;

use super::breaker::Circuit;
use super::catalog::Catalog;
use super::hang::{Hang, Look};
use super::health::{ProcessNews, Tracker};
use super::probe::{self, Finding};
use super::question::{self, Verdict};
use super::shared::Shared;
use super::slots::{AtWork, Load};
use crate::engine::openai::limits;
use crate::engine::openai::options::ModelSpec;
use crate::engine::openai::supervisor::{ProcessState, SupervisorHandle, loopback_url};
use crate::engine::openai::target::ServerKind;
use crate::engine::openai::wire::client::Base;
use crate::engine::{EngineInfo, Health, Overrides};

/// What the monitor is told once.
pub(crate) struct Settings {
    pub(crate) engine: &'static str,
    pub(crate) named: Vec<ModelSpec>,
    pub(crate) overrides: Overrides,
    pub(crate) slots: Option<u32>,
    /// Where those come from.
    pub(crate) slots_from: SlotsFrom,
    pub(crate) start_timeout: Duration,
    /// The base of a supervised server comes from its port, unless the operator fixed it.
    pub(crate) fixed_base: bool,
}

/// What one round of questions has brought.
struct Probed {
    finding: Finding,
    load: Load,
    asked_load: bool,
    /// Whether a hung server has generated something.
    generates: bool,
    /// How a suspect server took a question.
    verdict: Option<Verdict>,
}

/// Watches one server.
pub(crate) struct Monitor {
    shared: Arc<Shared>,
    settings: Settings,
    info: watch::Sender<EngineInfo>,
    process: Option<SupervisorHandle>,
    tracker: Tracker,
    kv_used: Option<f64>,
    at_work: AtWork,
    hang: Hang,
    /// Since when the server is not up, and whether it was up before in this life.
    unready_since: Instant,
    was_ready: bool,
    unlisted_told: bool,
}

impl Monitor {
    pub(crate) fn new(
        shared: Arc<Shared>,
        settings: Settings,
        process: Option<SupervisorHandle>,
    ) -> (Self, watch::Sender<EngineInfo>) {
        let now = Instant::now();
        let (info, _) = watch::channel(EngineInfo {
            engine: settings.engine,
            health: Health::Starting,
            models: shared.catalog().models.clone(),
            slots: settings.slots.unwrap_or_else(|| shared.catalog().slots),
            slots_from: settings
                .slots
                .map_or(shared.catalog().slots_from, |_| settings.slots_from),
            kv_used: None,
        });
        let monitor = Self {
            shared,
            settings,
            info: info.clone(),
            process,
            tracker: Tracker::new(now),
            kv_used: None,
            at_work: AtWork::default(),
            hang: Hang::default(),
            unready_since: now,
            was_ready: false,
            unlisted_told: false,
        };
        (monitor, info)
    }

    /// Runs until it is aborted.
    pub(crate) async fn run(mut self) {
        let shared = self.shared.clone();
        let mut process = self.process.as_ref().map(SupervisorHandle::states);
        let mut probing: Option<BoxFuture<'static, Probed>> = None;
        // A supervised server is probed once its process is there.
        let mut probe_at = process.is_none().then(Instant::now);
        if let Some(states) = &mut process {
            let state = states.borrow_and_update().clone();
            probe_at = self.process_news(&state);
        }
        loop {
            let now = Instant::now();
            if probing.is_none() && probe_at.is_some_and(|at| at <= now) {
                probing = Some(self.probe(now));
                probe_at = None;
            }
            tokio::select! {
                probed = pending_or(&mut probing) => {
                    probing = None;
                    self.probed(&probed);
                    probe_at = self.pause().map(|pause| Instant::now() + pause);
                }
                () = shared.news() => {
                    let soon = Instant::now() + limits::PROBE_FIRST;
                    if shared.take_connection_failed() && self.tracker.connection_failed() {
                        // What an older probe is about to find may be the state before the failure.
                        probing = None;
                        probe_at = Some(Instant::now());
                    } else if probing.is_none() && self.tracker.pause().is_some() {
                        self.tracker.look_again(soon);
                        probe_at = Some(probe_at.map_or(soon, |at| at.min(soon)));
                    }
                }
                () = shared.pulse.suspicion() => {
                    if probing.is_none() && self.tracker.pause().is_some() {
                        probe_at = Some(Instant::now());
                    }
                }
                state = changed(&mut process) => {
                    probing = None;
                    probe_at = self.process_news(&state);
                }
                () = sleep_until(self.wake_at(probe_at, now)) => {}
            }
            self.publish();
        }
    }

    /// The pause until the next probe: a suspicion is looked into soon.
    fn pause(&self) -> Option<Duration> {
        let pause = self.tracker.pause()?;
        if self.shared.suspect().is_some() {
            return Some(limits::PROBE_FIRST);
        }
        Some(match self.shared.pulse.is_suspect(Instant::now()) {
            true => pause.min(limits::HANG_CONFIRM),
            false => pause,
        })
    }

    /// When something is due: a probe, or the end of an open circuit's pause.
    fn wake_at(&self, probe_at: Option<Instant>, now: Instant) -> Option<Instant> {
        let reopened = match self.shared.circuit(now) {
            Circuit::Open(until) => Some(until),
            Circuit::Closed | Circuit::HalfOpen => None,
        };
        [probe_at, reopened].into_iter().flatten().min()
    }

    fn probe(&mut self, now: Instant) -> BoxFuture<'static, Probed> {
        let shared = self.shared.clone();
        let everything = self.tracker.wants_discovery(now);
        let asked_load = self.tracker.take_load_turn(now);
        let (hung, suspect) = (self.hang.is_hung(), self.shared.pulse.is_suspect(now));
        Box::pin(async move {
            let catalog = shared.catalog();
            let kind = catalog.kind;
            let finding = match everything {
                true => probe::discover(&shared.client).await,
                false => probe::health(&shared.client, kind).await,
            };
            let load = if asked_load || (kind == ServerKind::Vllm && (hung || suspect)) {
                probe::load(&shared.client, kind).await
            } else {
                Load::default()
            };
            let generates = match catalog.any_generating().filter(|_| hung) {
                Some(topic) => question::ask(&shared.client, &topic).await == Verdict::Works,
                None => false,
            };
            let verdict = match shared.suspect() {
                Some(topic) => Some(question::ask(&shared.client, &topic).await),
                None => None,
            };
            Probed {
                finding,
                load,
                asked_load,
                generates,
                verdict,
            }
        })
    }

    fn probed(&mut self, probed: &Probed) {
        let now = Instant::now();
        self.tracker.probed(&probed.finding, now, self.shared.last_output());
        if probed.asked_load {
            self.kv_used = probed.load.kv_used;
            let catalog = self.shared.catalog();
            if self.settings.slots.is_none() && catalog.slots_from != SlotsFrom::Engine {
                self.at_work.look(&probed.load, catalog.slots);
            }
        }
        match &probed.finding {
            Finding::Refused(_) => self.shared.refused(true),
            Finding::Silent => {}
            Finding::Healthy(_) | Finding::Loading | Finding::Unwell(_) => self.shared.refused(false),
        }
        match &probed.finding {
            Finding::Healthy(Some(discovery)) => {
                let unlisted = Catalog::unlisted(&self.settings.named, discovery);
                if !unlisted.is_empty() && !self.unlisted_told {
                    self.unlisted_told = true;
                    tracing::warn!(models = ?unlisted, "the server does not list these models; they are served all the same");
                }
                let catalog = Catalog::new(&self.settings.named, self.settings.overrides, discovery);
                if *self.shared.catalog() != catalog {
                    self.shared.set_catalog(catalog);
                }
            }
            Finding::Unwell(reason) | Finding::Refused(reason) if self.process.is_none() => {
                self.tracker.give_up_start(reason)
            }
            Finding::Silent if self.process.is_none() => self.tracker.give_up_start("it does not answer"),
            _ => {}
        }
        if let Some(verdict) = probed.verdict {
            self.shared.asked(verdict, now);
        }
        self.look_for_hang(probed, now);
        self.restart_if_stuck(now);
    }

    /// Finds whether the server generates nothing though it says that it is up. Its jobs see it, and end.
    fn look_for_hang(&mut self, probed: &Probed, now: Instant) {
        let pulse = &self.shared.pulse;
        let look = Look {
            patience: pulse.patience(self.shared.catalog().kind),
            quiet: pulse.quiet(now),
            begun: pulse.has_begun(),
            tells: pulse.tells(),
            overdue: pulse.is_overdue(now),
            work: probed.load.work,
            generates: probed.generates,
        };
        let was_hung = self.hang.is_hung();
        self.hang.look(&look, now);
        if was_hung && !self.hang.is_hung() {
            pulse.recovered(look.quiet);
        }
        pulse.set_hung(self.hang.is_hung());
        if !pulse.is_suspect(now) {
            pulse.trust();
        }
    }

    /// The server's health, with that in it.
    fn health(&self, circuit: Circuit) -> Health {
        match self.tracker.health(circuit) {
            Health::Ready if self.hang.is_hung() => Health::Down("it is up, but generates nothing".to_owned()),
            health => health,
        }
    }

    /// A supervised process that lives but is not up for too long is started again.
    fn restart_if_stuck(&mut self, now: Instant) {
        if self.info_health() == Health::Ready {
            self.unready_since = now;
            self.was_ready = true;
            return;
        }
        let patience = if self.was_ready {
            limits::HUNG_TIMEOUT
        } else {
            self.settings.start_timeout
        };
        if let Some(process) = &self.process
            && now.saturating_duration_since(self.unready_since) > patience
        {
            self.unready_since = now;
            process.restart();
        }
    }

    fn info_health(&self) -> Health {
        // The circuit is about requests; a process is judged by its probes.
        self.health(Circuit::Closed)
    }

    /// Takes the state of the server's process; returns when to probe.
    fn process_news(&mut self, state: &ProcessState) -> Option<Instant> {
        let now = Instant::now();
        match state {
            ProcessState::Running { port } => {
                if !self.settings.fixed_base
                    && let Ok(base) = Base::parse(&loopback_url(*port))
                {
                    self.shared.client.set_base(base);
                }
                self.tracker.process(&ProcessNews::Started);
            }
            ProcessState::Gone { reason } => self.tracker.process(&ProcessNews::Gone(reason.clone())),
        }
        self.unready_since = now;
        self.was_ready = false;
        self.kv_used = None;
        self.at_work = AtWork::default();
        self.hang = Hang::default();
        self.shared.pulse.set_hung(false);
        self.tracker.pause().map(|pause| now + pause)
    }

    fn publish(&self) {
        let circuit = self.shared.circuit(Instant::now());
        let catalog = self.shared.catalog();
        let (slots, slots_from) = match (self.settings.slots, self.at_work.slots()) {
            (Some(told), _) => (told, self.settings.slots_from),
            (None, Some(seen)) => (seen, SlotsFrom::Observed),
            (None, None) => (catalog.slots, catalog.slots_from),
        };
        let info = EngineInfo {
            engine: self.settings.engine,
            health: self.health(circuit),
            models: catalog.models.clone(),
            // The trial of a half-open circuit is one request.
            slots: if circuit == Circuit::HalfOpen {
                slots.min(1)
            } else {
                slots
            },
            slots_from,
            kv_used: self.kv_used,
        };
        self.info.send_if_modified(|current| {
            if *current == info {
                return false;
            }
            log_change(current, &info, catalog.kind.as_str());
            *current = info;
            true
        });
    }
}

fn log_change(before: &EngineInfo, info: &EngineInfo, kind: &'static str) {
    let slots_from = info.slots_from.as_str();
    if (&before.health, &info.health) == (&Health::Ready, &Health::Ready)
        && before.slots != info.slots
        && !matches!(info.slots_from, SlotsFrom::Flag | SlotsFrom::Engine)
    {
        tracing::info!(
            engine = info.engine,
            slots = info.slots,
            slots_from,
            "the engine's slots have changed"
        );
    }
    let before = &before.health;
    let models: Vec<&str> = info.models.iter().map(|model| model.name.as_str()).collect();
    match (before, &info.health) {
        (Health::Ready, Health::Ready) | (Health::Down(_), Health::Down(_)) | (Health::Starting, Health::Starting) => {}
        (_, Health::Ready) => tracing::info!(
            engine = info.engine,
            server = kind,
            ?models,
            slots = info.slots,
            slots_from,
            "engine ready"
        ),
        (_, Health::Starting) => tracing::info!(engine = info.engine, "engine loading"),
        (_, Health::Down(reason)) => tracing::warn!(engine = info.engine, reason, "engine down"),
    }
}

async fn pending_or<T>(future: &mut Option<BoxFuture<'static, T>>) -> T {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

async fn changed(states: &mut Option<watch::Receiver<ProcessState>>) -> ProcessState {
    if let Some(receiver) = states {
        if receiver.changed().await.is_ok() {
            return receiver.borrow_and_update().clone();
        }
        // The supervisor has ended: nothing will be heard of it any more.
        let last = ProcessState::Gone {
            reason: "the server process was stopped".to_owned(),
        };
        *states = None;
        return last;
    }
    std::future::pending().await
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
