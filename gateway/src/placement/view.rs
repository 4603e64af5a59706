//! What this gateway knows of the workers: the newest snapshot, the room they tell in every batch,
//! and its own requests under way. Pure data; a time is an argument.

mod liveness;
mod overview;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use tokenbus_protocol::{Capabilities, Capacity, Features, Name, Room, WorkerCapacity, WorkerState};
use tokio::time::{Duration, Instant};

pub use overview::{Overview, SeenModel, SeenWorker};

use super::able::{self, Able, Memory};
use super::accept_clock::AcceptClock;
use super::score::{self, Facts};
use crate::limits::{KNOWN_MODELS, MODEL_MEMORY, SNAPSHOT_FRESH};

/// Where a request should go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// To this worker's own subject.
    Worker(Name),
    /// To the model's queue subject: NATS chooses.
    Queue,
    /// Nobody has room.
    Wait,
    /// No worker of the model can do what is asked: this is missing.
    Cannot(Features),
    /// Nor can any at the moment, but one that could was there lately.
    Gone,
}

/// A model that workers have announced.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    /// Unix time in seconds of its first announcement to this gateway.
    pub created: u64,
    /// Tokens of context, where known.
    pub context_length: Option<u64>,
    /// What some worker can do.
    pub capabilities: Capabilities,
    /// A ready worker serves it.
    pub live: bool,
    seen: Instant,
    able: Memory,
}

/// What a request has tried since it last waited.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tried<'a> {
    /// Workers that should not be tried again now.
    pub excluded: &'a [Name],
    /// Publishes that came to nothing.
    pub untaken: usize,
}

/// What is known of the workers.
#[derive(Debug, Default)]
#[cfg_attr(test, derive(Clone))]
pub struct View {
    snapshot_at: Option<Instant>,
    /// The newest snapshot as it came, for people to look at.
    told: Option<Arc<Capacity>>,
    workers: HashMap<Name, Worker>,
    /// By name, so that a listing is in order.
    models: BTreeMap<String, Model>,
}

#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
struct Worker {
    /// With what it can do with each; nothing where it did not say.
    models: Vec<(String, Features)>,
    ready: bool,
    slots: u32,
    room: Room,
    room_at: Instant,
    ttft_ms: f64,
    /// Placed there by us and not answered yet.
    pending: u32,
    /// Running there for us.
    in_flight: u32,
    heard: Instant,
    pinged: Option<Instant>,
    /// How long it takes to answer.
    clock: AcceptClock,
    /// When it was last pinged only to be measured.
    measured_at: Option<Instant>,
    in_snapshot: bool,
    /// Since when NATS knows nobody under its name; nothing where it was heard of again.
    gone: Option<Instant>,
    /// Which life of it was seen last.
    instance: Option<u64>,
}

impl Worker {
    fn new(now: Instant) -> Self {
        Self {
            models: Vec::new(),
            ready: true,
            slots: 0,
            room: Room::default(),
            room_at: now,
            ttft_ms: 0.0,
            pending: 0,
            in_flight: 0,
            heard: now,
            pinged: None,
            clock: AcceptClock::default(),
            measured_at: None,
            in_snapshot: false,
            gone: None,
            instance: None,
        }
    }

    fn free(&self) -> u32 {
        self.room.free.saturating_sub(self.pending)
    }

    /// What it can do with `model`; `None` where it does not serve it.
    fn serves(&self, model: &str) -> Option<Features> {
        let model = self.models.iter().find(|(name, _)| self.ready && name == model);
        model.map(|(_, features)| *features)
    }

    fn does(&self, model: &str, needs: Features) -> bool {
        self.serves(model).is_some_and(|features| able::does(features, needs))
    }

    fn facts(&self) -> Facts {
        Facts {
            slots: self.slots,
            free: self.free(),
            queued: self.room.queued,
            ttft_ms: self.ttft_ms,
            prefix: 0.0,
        }
    }
}

impl View {
    /// A snapshot came. `unix` is the time of day in seconds, for the models' `created`. Returns
    /// the workers that were restarted since they were last heard of.
    pub fn snapshot(&mut self, capacity: &Capacity, now: Instant, unix: u64) -> Vec<(Name, u64)> {
        self.snapshot_at = Some(now);
        self.told = Some(Arc::new(capacity.clone()));
        for worker in self.workers.values_mut() {
            worker.in_snapshot = false;
        }
        let mut restarted = Vec::new();
        for told in &capacity.workers {
            self.told(told, now);
            if self.instance(&told.report.worker, told.report.instance) {
                restarted.push((told.report.worker.clone(), told.report.instance));
            }
        }
        // A worker that the coordinator does not know takes nothing new; one that still works for
        // us stays until it is done.
        self.workers.retain(|_, worker| {
            worker.ready &= worker.in_snapshot;
            worker.gone = worker.gone.filter(|_| worker.in_snapshot);
            worker.in_snapshot || worker.in_flight > 0 || worker.pending > 0
        });
        for model in self.models.values_mut() {
            model.live = false;
        }
        for told in &capacity.models {
            let model = self.model(&told.model, now, unix);
            let Some(model) = model else { continue };
            model.live = told.workers > 0;
            model.context_length = told.context_length;
            model.capabilities = told.capabilities;
        }
        self.models
            .retain(|_, model| model.live || now < model.seen + MODEL_MEMORY);
        for worker in self.workers.values().filter(|worker| worker.ready) {
            for (name, features) in &worker.models {
                if let Some(model) = self.models.get_mut(name) {
                    model.able.saw(*features, now);
                }
            }
        }
        restarted
    }

    /// This life of a known worker was seen; true when it was another one before.
    pub fn instance(&mut self, name: &Name, instance: u64) -> bool {
        let worker = self.workers.get_mut(name);
        worker.is_some_and(|worker| worker.instance.replace(instance).is_some_and(|old| old != instance))
    }

    fn told(&mut self, told: &WorkerCapacity, now: Instant) {
        let worker = self
            .workers
            .entry(told.report.worker.clone())
            .or_insert_with(|| Worker::new(now));
        // What a batch told since that status was sent is newer.
        let told_at = now.checked_sub(Duration::from_millis(told.age_ms)).unwrap_or(now);
        worker.in_snapshot = true;
        worker.ready = told.report.state == WorkerState::Ready;
        if worker.gone.is_some_and(|gone| worker.ready && told_at <= gone) {
            // A coordinator knows of a loss later than those who send there.
            worker.ready = false;
        } else {
            worker.gone = None;
        }
        let models = told.report.models.iter();
        worker.models = models
            .map(|model| (model.name.clone(), model.capabilities.features()))
            .collect();
        worker.ttft_ms = told.report.ttft.p50;
        if worker.slots == 0 || told_at >= worker.room_at {
            worker.room = Room {
                free: told.report.slots.saturating_sub(told.report.active),
                queued: told.report.queued,
            };
            worker.room_at = told_at;
        }
        worker.slots = told.report.slots;
    }

    fn model(&mut self, name: &str, now: Instant, unix: u64) -> Option<&mut Model> {
        if self.models.len() >= KNOWN_MODELS && !self.models.contains_key(name) {
            return None;
        }
        let model = self.models.entry(name.to_owned()).or_insert_with(|| Model {
            created: unix,
            context_length: None,
            capabilities: Capabilities::default(),
            live: false,
            seen: now,
            able: Memory::default(),
        });
        model.seen = now;
        Some(model)
    }

    /// A worker told its room in a batch or a hint.
    pub fn room(&mut self, name: &Name, room: Room, now: Instant) {
        let worker = self.workers.entry(name.clone()).or_insert_with(|| Worker::new(now));
        worker.room = room;
        worker.room_at = now;
        worker.slots = worker.slots.max(room.free);
        worker.heard = now;
        worker.pinged = None;
    }

    /// A worker sent something.
    pub fn alive(&mut self, name: &Name, now: Instant) {
        if let Some(worker) = self.workers.get_mut(name) {
            worker.heard = now;
            worker.pinged = None;
        }
    }

    /// A worker is there and serves this model: learnt from what it sent, not from a snapshot.
    pub fn learnt(&mut self, name: &Name, model: &str, now: Instant, unix: u64) {
        let fresh = self.is_fresh(now);
        let worker = self.workers.entry(name.clone()).or_insert_with(|| Worker::new(now));
        worker.heard = now;
        // One that was thought gone is back; where there are snapshots, they say what else it takes.
        worker.ready |= !fresh || worker.gone.is_some();
        worker.gone = None;
        if !worker.models.iter().any(|(known, _)| known == model) {
            worker.models.push((model.to_owned(), Features::NONE));
        }
        if let Some(model) = self.model(model, now, unix) {
            model.live = true;
        }
    }

    /// What a worker can do with a model that was learnt of, by its own word.
    pub fn capable(&mut self, name: &Name, model: &str, features: Features) {
        let worker = self.workers.get_mut(name);
        let known = worker.and_then(|worker| worker.models.iter_mut().find(|(known, _)| known == model));
        if let Some((_, can)) = known {
            *can = features;
        }
        if let Some(model) = self.models.get_mut(model) {
            model.capabilities = model.capabilities.features().or(features).into();
        }
    }

    /// The worker is gone: nothing is placed there until it is heard of again.
    pub fn gone(&mut self, name: &Name, now: Instant) {
        if let Some(worker) = self.workers.get_mut(name) {
            if worker.ready {
                worker.gone.get_or_insert(now);
            }
            worker.ready = false;
            worker.room = Room::default();
        }
    }

    /// A request was published to this worker.
    pub fn placed(&mut self, name: &Name, now: Instant) {
        self.workers
            .entry(name.clone())
            .or_insert_with(|| Worker::new(now))
            .pending += 1;
    }

    /// It was answered, or nobody waits for the answer any more.
    pub fn settled(&mut self, name: &Name) {
        if let Some(worker) = self.workers.get_mut(name) {
            worker.pending = worker.pending.saturating_sub(1);
        }
    }

    /// A stream began to run there.
    pub fn began(&mut self, name: &Name, now: Instant) {
        self.workers
            .entry(name.clone())
            .or_insert_with(|| Worker::new(now))
            .in_flight += 1;
    }

    /// A stream of ours ended there.
    pub fn ended(&mut self, name: &Name) {
        if let Some(worker) = self.workers.get_mut(name) {
            worker.in_flight = worker.in_flight.saturating_sub(1);
        }
    }

    /// What is known of the workers that serve `model`, for a request that needs this.
    pub fn able(&self, model: &str, needs: Features) -> Able {
        able::judge(self.serving(model), needs)
    }

    /// Whether a worker is known that serves `model` and may be able to do this.
    pub fn could(&self, model: &str, needs: Features) -> bool {
        matches!(self.able(model, needs), Able::All | Able::Some)
    }

    /// What of `needs` tells the workers of `model` apart.
    pub fn telling(&self, model: &str, needs: Features) -> Features {
        able::telling(self.serving(model), needs)
    }

    fn serving(&self, model: &str) -> impl Iterator<Item = Features> {
        self.workers.values().filter_map(move |worker| worker.serves(model))
    }

    /// Where a request for `model` should go. After two publishes that came to nothing since it last waited, the choice is left to NATS; after four,
    /// the request waits. Where some of the workers cannot do what it needs, it is not left to NATS.
    pub fn choose(
        &self,
        model: &str,
        needs: Features,
        tried: Tried<'_>,
        now: Instant,
        random: &mut fastrand::Rng,
    ) -> Choice {
        let Tried { excluded, untaken } = tried;
        let fresh = self.is_fresh(now);
        let able = self.able(model, needs);
        if let (true, Able::None(missing)) = (fresh, able) {
            let lately = self.models.get(model).is_some_and(|model| model.able.had(needs, now));
            return if lately { Choice::Gone } else { Choice::Cannot(missing) };
        }
        if untaken >= 4 {
            return Choice::Wait;
        }
        let mixed = able == Able::Some;
        let any = matches!(able, Able::All | Able::Some);
        if !any || !mixed && (untaken >= 2 || !fresh) {
            return Choice::Queue;
        }
        // Without a snapshot nobody knows the room: whoever can is asked.
        let roomy = |worker: &Worker| !fresh || worker.free() > 0;
        let mut roomy: Vec<(&Name, &Worker)> = self
            .workers
            .iter()
            .filter(|(name, worker)| worker.does(model, needs) && roomy(worker) && !excluded.contains(name))
            .collect();
        // The best of two random ones: as good as the best of all under load, and gateways that
        // see the same snapshot do not all run to the same worker.
        let Some(first) = draw(&mut roomy, random) else {
            return if !fresh || untaken > 0 && !mixed {
                Choice::Queue
            } else {
                Choice::Wait
            };
        };
        let best = match draw(&mut roomy, random) {
            Some(second) if score::cost(&second.1.facts()) < score::cost(&first.1.facts()) => second,
            _ => first,
        };
        Choice::Worker(best.0.clone())
    }

    /// Whether a snapshot came lately.
    pub fn is_fresh(&self, now: Instant) -> bool {
        self.snapshot_at.is_some_and(|at| now < at + SNAPSHOT_FRESH)
    }

    /// Free slots of all workers that serve `model` and can do this.
    pub fn free(&self, model: &str, needs: Features) -> u32 {
        self.workers
            .values()
            .filter(|worker| worker.does(model, needs))
            .map(Worker::free)
            .sum()
    }

    /// Whether any live worker is known to serve `model`.
    pub fn is_live(&self, model: &str) -> bool {
        self.workers.values().any(|worker| worker.serves(model).is_some())
    }

    /// The models of this worker.
    pub fn models_of(&self, name: &Name) -> Vec<String> {
        let models = self.workers.get(name).map(|worker| worker.models.iter());
        models.into_iter().flatten().map(|(model, _)| model.clone()).collect()
    }

    /// Models that were ever announced and are not forgotten, by name.
    pub fn models(&self) -> &BTreeMap<String, Model> {
        &self.models
    }
}

fn draw<T>(from: &mut Vec<T>, random: &mut fastrand::Rng) -> Option<T> {
    (!from.is_empty()).then(|| from.swap_remove(random.usize(..from.len())))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
#[path = "view_tests.rs"]
mod tests;
