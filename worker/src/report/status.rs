//! The worker's heartbeat: what it says of itself, and when.
//!
//! A task of its own: a heartbeat waits for nothing but NATS.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use tokenbus_bus::{Bus, Link, Rhythm};
use tokenbus_protocol::{ModelInfo, ModelLoad, SlotsFrom, Status, WorkerReport, WorkerState};
use tokio::sync::watch;

use crate::limits;
use crate::options::Identity;
use crate::report::load::Load;
use crate::report::metrics::Metrics;
use crate::report::recent::Rate;

/// What of a worker's state changes seldom.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Snapshot {
    /// Whether it takes requests.
    pub(crate) state: WorkerState,
    /// The engine's kind.
    pub(crate) engine: &'static str,
    /// Its models.
    pub(crate) models: Vec<ModelInfo>,
    /// Requests that it runs at once.
    pub(crate) slots: u32,
    /// Where that number comes from.
    pub(crate) slots_from: SlotsFrom,
    /// Part of the KV cache in use.
    pub(crate) kv_used: Option<f64>,
}

impl Snapshot {
    /// Before anything is known of the engine.
    pub(crate) fn starting() -> Self {
        Self {
            state: WorkerState::Starting,
            engine: "",
            models: Vec::new(),
            slots: 0,
            slots_from: SlotsFrom::Default,
            kv_used: None,
        }
    }

    /// Whether `other` differs in what is told at once.
    fn differs(&self, other: &Self) -> bool {
        let kv_used = other.kv_used;
        Self {
            kv_used,
            ..self.clone()
        } != *other
    }
}

/// When the next status is due.
#[derive(Debug)]
struct Cadence {
    rhythm: Rhythm,
    last: Option<Instant>,
    load_changed: bool,
}

impl Cadence {
    fn next(&self, now: Instant) -> Instant {
        let Some(last) = self.last else { return now };
        let regular = self.rhythm.after(last, limits::STATUS_EVERY);
        if self.load_changed {
            regular.min(last + limits::STATUS_GAP)
        } else {
            regular
        }
    }

    fn sent(&mut self, now: Instant) {
        self.last = Some(now);
        self.load_changed = false;
    }
}

/// Tokens per second, of all models together and of each.
#[derive(Debug)]
struct Rates {
    all: Rate,
    models: BTreeMap<String, Rate>,
}

impl Default for Rates {
    fn default() -> Self {
        Self {
            all: Rate::new(limits::RATE_WINDOW),
            models: BTreeMap::new(),
        }
    }
}

impl Rates {
    /// What each model has of the load; nothing where there is one model, which has all of it.
    fn loads(&mut self, load: &Load, now: Instant) -> Vec<ModelLoad> {
        let shares = load.shares();
        if shares.len() < 2 {
            self.models.clear();
            return Vec::new();
        }
        let mut before = std::mem::take(&mut self.models);
        let loads = shares.into_iter().map(|(model, share)| {
            let rate = before.remove(&model);
            let mut rate = rate.unwrap_or_else(|| Rate::new(limits::RATE_WINDOW));
            let tokens_per_second = rate.sample(now, share.tokens());
            self.models.insert(model.clone(), rate);
            ModelLoad {
                model,
                active: share.running(),
                queued: share.queued(),
                tokens_per_second,
            }
        });
        loads.collect()
    }
}

/// What the heartbeat is made of.
pub(crate) struct Heartbeat {
    /// The connection.
    pub(crate) bus: Bus,
    /// Where it goes.
    pub(crate) subject: String,
    /// Who it is of.
    pub(crate) identity: Identity,
    /// How full the worker is.
    pub(crate) load: Arc<Load>,
    /// Its counters.
    pub(crate) metrics: Metrics,
    /// Its state.
    pub(crate) snapshot: watch::Receiver<Snapshot>,
}

impl Heartbeat {
    /// Publishes once a second, at once on a change of state, models or slots, soon on a change of
    /// load, and at once when NATS is back; ends after the status `stopped`.
    pub(crate) async fn run(mut self) {
        let mut link = self.bus.link();
        let mut rates = Rates::default();
        let mut cadence = Cadence {
            rhythm: self.bus.rhythm(),
            last: None,
            load_changed: false,
        };
        let mut seq = 0;
        loop {
            let last = self.snapshot.borrow_and_update().clone();
            let now = Instant::now();
            seq += 1;
            let status = self.compose(&last, seq, &mut rates, now);
            cadence.sent(now);
            self.publish(&status).await;
            if last.state == WorkerState::Stopped || !self.wait(&last, &mut cadence, &mut link).await {
                return;
            }
        }
    }

    /// Waits until the next status is due; false when the worker is gone.
    async fn wait(&mut self, last: &Snapshot, cadence: &mut Cadence, link: &mut watch::Receiver<Link>) -> bool {
        loop {
            let due = tokio::time::Instant::from_std(cadence.next(Instant::now()));
            tokio::select! {
                biased;
                changed = self.snapshot.changed() => {
                    if changed.is_err() {
                        return false;
                    }
                    if self.snapshot.borrow_and_update().differs(last) {
                        return true;
                    }
                    cadence.load_changed = true;
                }
                Ok(()) = link.changed() => {
                    if link.borrow_and_update().connected {
                        return true;
                    }
                }
                () = self.load.changed() => cadence.load_changed = true,
                () = tokio::time::sleep_until(due) => return true,
            }
        }
    }

    async fn publish(&self, status: &Status) {
        // Nobody wants old statuses when NATS is back: a new one follows at once then.
        if !self.bus.is_connected() {
            return;
        }
        let bytes = match tokenbus_protocol::encode(status) {
            Ok(bytes) => Bytes::from(bytes),
            Err(error) => {
                tracing::error!(%error, "the status cannot be encoded");
                return;
            }
        };
        // Counted by the bus; the next one follows within a second.
        if let Err(error) = self.bus.publish(self.subject.clone(), bytes).await {
            tracing::debug!(%error, "a status was not sent");
        }
    }

    fn compose(&self, snapshot: &Snapshot, seq: u64, rates: &mut Rates, now: Instant) -> Status {
        let totals = self.metrics.totals();
        Status {
            report: WorkerReport {
                worker: self.identity.worker.clone(),
                instance: self.identity.instance,
                seq,
                version: env!("CARGO_PKG_VERSION").to_owned(),
                host: self.identity.host.clone(),
                engine: snapshot.engine.to_owned(),
                state: snapshot.state,
                started_at_ms: self.identity.started_at_ms,
                models: snapshot.models.clone(),
                slots: snapshot.slots,
                slots_from: (snapshot.slots > 0).then_some(snapshot.slots_from),
                active: self.load.running(),
                queued: self.load.queued(),
                tokens_per_second: rates.all.sample(now, totals.tokens),
                ttft: self.metrics.ttft(now),
                itl: self.metrics.itl(now),
                kv_used: snapshot.kv_used,
            },
            totals,
            loads: rates.loads(&self.load, now),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_heartbeat_a_second_and_soon_after_a_change_of_load() {
        let now = Instant::now();
        let mut cadence = Cadence {
            rhythm: Rhythm::new(now),
            last: None,
            load_changed: false,
        };
        assert_eq!(cadence.next(now), now, "the first at once");
        cadence.sent(now);
        assert_eq!(cadence.next(now), now + Duration::from_secs(1));
        cadence.load_changed = true;
        assert_eq!(cadence.next(now), now + limits::STATUS_GAP, "not more than 20 a second");
        cadence.sent(now + limits::STATUS_GAP);
        assert_eq!(
            cadence.next(now),
            now + limits::STATUS_EVERY,
            "with all that is done each second"
        );
    }

    #[test]
    fn each_of_several_models_has_its_part_of_the_load() {
        let (load, start) = (Arc::new(Load::default()), Instant::now());
        let mut rates = Rates::default();
        load.set_models(["a"].into_iter());
        assert_eq!(rates.loads(&load, start), [], "it is the worker's");
        load.set_models(["a", "b"].into_iter());
        let _places = [load.occupy(&load.share("b")), load.queue(&load.share("b"))];
        rates.loads(&load, start);
        load.share("a").generated(50);
        let later = start + Duration::from_secs(1);
        let part = |model: &str, active, queued, tokens_per_second| ModelLoad {
            model: model.to_owned(),
            active,
            queued,
            tokens_per_second,
        };
        assert_eq!(rates.loads(&load, later), [part("a", 0, 0, 50.0), part("b", 1, 1, 0.0)]);
    }

    #[test]
    fn the_kv_cache_alone_is_no_reason_to_hurry() {
        let snapshot = Snapshot::starting();
        let kv = Snapshot {
            kv_used: Some(0.5),
            ..snapshot.clone()
        };
        assert!(!kv.differs(&snapshot));
        let ready = Snapshot {
            state: WorkerState::Ready,
            ..kv.clone()
        };
        assert!(ready.differs(&kv));
    }
}
