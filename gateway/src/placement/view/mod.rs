//! This gateway's view of the workers: the newest snapshot, the free slots that each batch reports, and its own
//! requests under way. Pure data; time is an argument.

pub(super) mod choice;
mod hold;
mod labels;
mod liveness;
mod news;
pub(super) mod overview;
pub(super) mod tiers;
mod worker;

use std::collections::BTreeMap;
use std::sync::Arc;

use indexmap::IndexMap;
use tokenbus_placement::WorkerNumber;
use tokenbus_protocol::{
    Capabilities, Capacity, Features, Label, MAX_MODEL_NAME, Name, RejectReason, Room, WorkerCapacity, WorkerState,
};
use tokio::time::{Duration, Instant};

use worker::Worker;

use super::able::SeenFeatures;
use crate::limits::{
    KNOWN_MODELS, KNOWN_WORKERS, MODEL_MEMORY, MODELS_OF_WORKER, NO_WORKER_RETRY, SAY_WAITING_EVERY, SAY_WAITING_TO,
    SNAPSHOT_FRESH, STARTING_BELIEVED, WORKER_MEMORY,
};

/// A model that workers have announced.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    /// Unix time in seconds at which this gateway first heard of it.
    pub created: u64,
    /// Tokens of context, if known.
    pub context_length: Option<u64>,
    /// What at least one worker can do.
    pub capabilities: Capabilities,
    /// A ready worker serves it.
    pub live: bool,
    /// Its workers are started when requests wait for it: in what time a first one is expected.
    starts: Option<Duration>,
    /// Requests that were called to a free slot and are on their way.
    called: u32,
    seen: Instant,
    able: SeenFeatures,
    /// The prefill rate of its workers, tokens per millisecond, smoothed; `None` before one has told it.
    prefill: Option<f32>,
    /// The part of their time in which they read prompts, smoothed.
    busy: f32,
}

/// The view of the workers.
#[derive(Debug, Default)]
#[cfg_attr(test, derive(Clone))]
pub struct View {
    snapshot_at: Option<Instant>,
    /// The newest snapshot as it arrived, for display.
    told: Option<Arc<Capacity>>,
    workers: IndexMap<Name, Worker>,
    /// Numbers of workers that are not known any more, and have not been given back.
    left: Vec<WorkerNumber>,
    /// All workers were asked once what they serve.
    asked: bool,
    /// The labels that keys require, by the number of their marks.
    marks: Vec<Label>,
    /// Not all workers are of tier 0.
    tiered: bool,
    /// When times began to count.
    origin: Option<Instant>,
    /// A longer wait sends requests to the next tier.
    tier_wait: Duration,
    /// The orders of models that have one of their own.
    policies: Arc<tiers::Policies>,
    /// By name, so that a listing is sorted.
    models: BTreeMap<Arc<str>, Model>,
}

impl View {
    /// Applies a snapshot. `unix` is the time in seconds, for the models' `created`. Returns the workers that were
    /// restarted since they were last heard.
    pub fn snapshot(&mut self, capacity: Capacity, now: Instant, unix: u64) -> Vec<(Name, u64)> {
        self.snapshot_at = Some(now);
        let capacity = Arc::new(capacity);
        self.told = Some(Arc::clone(&capacity));
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
        // A worker that the coordinator does not know gets nothing new. If it still runs our requests, it stays until
        // they end.
        self.workers.retain(|_, worker| {
            worker.ready &= worker.in_snapshot;
            worker.gone = worker.gone.filter(|_| worker.in_snapshot);
            let stays = worker.in_snapshot || worker.in_flight > 0 || worker.pending > 0;
            self.left.extend(worker.number.filter(|_| !stays));
            stays
        });
        self.tiered = self.workers.values().any(|worker| worker.tier > 0);
        for model in self.models.values_mut() {
            model.live = false;
        }
        for told in &capacity.models {
            let model = self.model(&told.model, now, unix);
            let Some(model) = model else { continue };
            model.live = told.workers > 0;
            // If the last worker is lost before the next snapshot, nobody has an estimate yet.
            let start = told.estimated_wait_ms.filter(|_| !model.live);
            let start = start.map_or(NO_WORKER_RETRY, Duration::from_millis);
            model.starts = told.on_demand.then_some(start);
            model.context_length = told.context_length;
            model.capabilities = told.capabilities;
        }
        self.models
            .retain(|_, model| model.live || now < model.seen + MODEL_MEMORY);
        for worker in self.workers.values().filter(|worker| worker.ready) {
            for (name, features) in &worker.models {
                if let Some(model) = self.models.get_mut(name) {
                    model.able.saw(features.or(worker.marks), now);
                }
            }
        }
        restarted
    }

    /// Records an instance of a known worker; true if the worker had another one before.
    pub fn instance(&mut self, name: &Name, instance: u64) -> bool {
        let worker = self.workers.get_mut(name);
        worker.is_some_and(|worker| worker.instance.replace(instance).is_some_and(|old| old != instance))
    }

    /// What is known of a worker. Nothing is, at its first mention.
    fn worker(&mut self, name: &Name, now: Instant) -> &mut Worker {
        self.workers
            .entry(name.clone())
            .or_insert_with(|| Worker::new(name, now))
    }

    fn told(&mut self, told: &WorkerCapacity, now: Instant) {
        let marks = self.marks_of(&told.report.labels);
        let worker = self.worker(&told.report.worker, now);
        if *worker.labels != told.report.labels {
            worker.labels = Arc::new(told.report.labels.clone());
        }
        worker.marks = marks;
        worker.tier = told.report.tier;
        // A batch sent after that status has newer numbers.
        let told_at = now.checked_sub(Duration::from_millis(told.age_ms)).unwrap_or(now);
        worker.in_snapshot = true;
        worker.ready = told.report.state == WorkerState::Ready;
        if worker.gone.is_some_and(|gone| worker.ready && told_at <= gone) {
            // The coordinator learns of a loss later than those who send to the worker.
            worker.ready = false;
        } else {
            worker.gone = None;
        }
        let models = told.report.models.iter();
        let models = models.map(|model| (model.name.as_str(), model.capabilities.features()));
        // Nearly always the same as a second ago.
        if !models
            .clone()
            .eq(worker.models.iter().map(|(name, can)| (&**name, *can)))
        {
            worker.models = models.map(|(name, can)| (name.into(), can)).collect();
        }
        worker.token_ms = told.report.itl.p50;
        if worker.slots == 0 || told_at >= worker.room_at {
            let room = Room {
                free: told.report.slots.saturating_sub(told.report.active),
                queued: told.report.queued,
                pending: None,
            };
            worker.tells(room, now);
            worker.room_at = told_at;
        }
        worker.slots = told.report.slots;
        self.rank(&told.report.worker);
    }

    fn model(&mut self, name: &str, now: Instant, unix: u64) -> Option<&mut Model> {
        let is_full = self.models.len() >= KNOWN_MODELS && !self.models.contains_key(name);
        if is_full || name.len() > MAX_MODEL_NAME {
            return None;
        }
        let model = self.models.entry(name.into()).or_insert_with(|| Model {
            created: unix,
            context_length: None,
            capabilities: Capabilities::default(),
            live: false,
            starts: None,
            called: 0,
            seen: now,
            able: SeenFeatures::default(),
            prefill: None,
            busy: 0.0,
        });
        model.seen = now;
        Some(model)
    }

    /// A worker reported its free slots, in a batch or a hint.
    pub fn room(&mut self, name: &Name, room: Room, now: Instant) {
        if self.is_full_for(name) {
            return;
        }
        let now_ms = self.begin_ms(now);
        let worker = self.worker(name, now);
        worker.tells(room, now);
        if let Some(pending) = room.pending {
            #[allow(clippy::cast_precision_loss, reason = "an estimate needs no more digits")]
            worker.reading.reported(pending as f32, true, now_ms);
        }
        worker.claimed |= room.free > 0;
        worker.room_at = now;
        worker.slots = worker.slots.max(room.free);
        worker.heard = now;
        worker.pinged = None;
    }

    /// Milliseconds since the first time that was told.
    fn ms(&self, now: Instant) -> u64 {
        let passed = self
            .origin
            .map(|origin| now.saturating_duration_since(origin).as_millis());
        passed.map_or(0, |passed| u64::try_from(passed).unwrap_or(u64::MAX))
    }

    fn begin_ms(&mut self, now: Instant) -> u64 {
        self.origin.get_or_insert(now);
        self.ms(now)
    }

    /// A worker offers slots to this gateway: it knows that requests wait here.
    pub fn knows_waiting(&mut self, name: &Name, now: Instant) {
        if let Some(worker) = self.workers.get_mut(name) {
            worker.knows_waiting = Some(now);
        }
    }

    /// `slots` slots that a worker kept for this gateway were given back.
    pub fn declined(&mut self, name: &Name, slots: u32) {
        if let Some(worker) = self.workers.get_mut(name) {
            worker.room.free = worker.room.free.saturating_sub(slots);
            worker.knows_waiting = None;
        }
    }

    /// Some of the workers that could serve one of so many waiting requests, of which it is not certain that they know of
    /// any. They count as told now. Those of a tier that is not open are not told: their offers would be declined, and
    /// declined slots count as taken for a while.
    pub fn uninformed(&mut self, model: &str, needs: Features, waiting: usize, now: Instant) -> Vec<Name> {
        let tier = self.open_tier(model, needs, waiting, 0);
        let due = |worker: &Worker| {
            let may = worker.does(model, needs) && worker.standing(model).tier <= tier;
            may && worker.knows_waiting.is_none_or(|at| now >= at + SAY_WAITING_EVERY)
        };
        let mut told = Vec::new();
        for (name, worker) in self
            .workers
            .iter_mut()
            .filter(|(_, worker)| due(worker))
            .take(SAY_WAITING_TO)
        {
            worker.knows_waiting = Some(now);
            told.push(name.clone());
        }
        told
    }

    /// Free slots of a worker of which is believed that it has them.
    pub fn room_of(&self, name: &Name) -> u32 {
        self.workers.get(name).map_or(0, |worker| worker.room.free)
    }

    /// A worker refused a request for `reason`. Unless the request was to blame, the worker has no free slot until it
    /// tells again, whatever it says of its room now.
    pub fn refused(&mut self, name: &Name, reason: RejectReason, room: Room, now: Instant) {
        let free = match reason {
            RejectReason::Duplicate | RejectReason::Expired | RejectReason::Unsupported => room.free,
            _ => {
                let worker = self.worker(name, now);
                // One that had said nothing else breaks no word: its slots go to other gateways.
                if std::mem::take(&mut worker.claimed) {
                    worker.refusals.refused(now);
                }
                0
            }
        };
        self.room(name, Room { free, ..room }, now);
    }

    /// A worker took a request.
    pub fn took(&mut self, name: &Name) {
        if let Some(worker) = self.workers.get_mut(name) {
            worker.refusals.accepted();
        }
    }

    /// A worker sent something.
    pub fn alive(&mut self, name: &Name, now: Instant) {
        if let Some(worker) = self.workers.get_mut(name) {
            worker.heard = now;
            worker.pinged = None;
        }
    }

    /// A worker serves this model, as a message showed that was not a snapshot.
    pub fn learnt(&mut self, name: &Name, model: &str, now: Instant, unix: u64) {
        let fresh = self.is_fresh(now);
        if self.is_full_for(name) {
            return;
        }
        // All workers share the name, so that it is kept once however many say that they serve it.
        let known = self.model(model, now, unix).map(|known| known.live = true);
        let shared = known.and_then(|()| self.models.get_key_value(model));
        let shared = shared.map(|(name, _)| Arc::clone(name));
        let worker = self.worker(name, now);
        worker.heard = now;
        // A worker that counted as gone is back. If there are snapshots, they say what else it takes.
        worker.ready |= !fresh || worker.gone.is_some();
        worker.gone = None;
        if worker.models.len() < MODELS_OF_WORKER && worker.models.iter().all(|(known, _)| **known != *model) {
            worker.models.extend(shared.map(|name| (name, Features::NONE)));
            self.rank(name);
        }
    }

    /// Whether there is no room for one more worker by this name.
    fn is_full_for(&self, name: &Name) -> bool {
        self.workers.len() >= KNOWN_WORKERS && !self.workers.contains_key(name)
    }

    /// Forgets the workers that were silent for long, and models that none of the others serves. For times without
    /// snapshots, which do the same.
    pub fn forget_silent(&mut self, now: Instant) {
        self.workers
            .retain(|_, worker| worker.in_flight > 0 || worker.pending > 0 || now < worker.heard + WORKER_MEMORY);
        let workers = &self.workers;
        self.models.retain(|name, model| {
            model.live &= workers.values().any(|worker| worker.serves(name).is_some());
            model.live || now < model.seen + MODEL_MEMORY
        });
    }

    /// Sets what a worker can do with a model, as the worker itself announced.
    pub fn capable(&mut self, name: &Name, model: &str, can: Capabilities) {
        let worker = self.workers.get_mut(name);
        let known = worker.and_then(|worker| worker.models.iter_mut().find(|(known, _)| **known == *model));
        if let Some((_, features)) = known {
            *features = can.features();
        }
        if let Some(model) = self.models.get_mut(model) {
            model.capabilities = model.capabilities.or(can);
        }
    }

    /// The worker is gone: no request goes there until it is heard again.
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
        self.worker(name, now).pending += 1;
    }

    /// The worker answered that request, or nobody waits for the answer any more.
    pub fn settled(&mut self, name: &Name) {
        if let Some(worker) = self.workers.get_mut(name) {
            worker.pending = worker.pending.saturating_sub(1);
            worker.answered = worker.answered.saturating_sub(1).min(worker.pending);
        }
    }

    /// Answers of the worker to so many of our requests have arrived. Their streams take them in later than the room
    /// that came with them; until then a slot would count as taken twice, and an offer of it would be declined.
    pub fn has_answered(&mut self, name: &Name, requests: u32) {
        if let Some(worker) = self.workers.get_mut(name) {
            worker.answered = worker.answered.saturating_add(requests).min(worker.pending);
        }
    }

    /// A stream of ours began to run there.
    pub fn began(&mut self, name: &Name, now: Instant) {
        self.worker(name, now).in_flight += 1;
    }

    /// A stream of ours ended there.
    pub fn ended(&mut self, name: &Name) {
        if let Some(worker) = self.workers.get_mut(name) {
            worker.in_flight = worker.in_flight.saturating_sub(1);
        }
    }

    /// Whether the last snapshot is recent.
    pub fn is_fresh(&self, now: Instant) -> bool {
        self.snapshot_at.is_some_and(|at| now < at + SNAPSHOT_FRESH)
    }

    /// All workers that were there were asked what they serve, and have answered.
    pub fn note_asked(&mut self) {
        self.asked = true;
    }

    /// Whether the gateway has heard of no model although it may yet: nobody has told it of the cluster.
    pub fn knows_nothing(&self, now: Instant) -> bool {
        self.models.is_empty() && !self.asked && !self.is_fresh(now)
    }

    /// Whether a known live worker serves `model`.
    pub fn is_live(&self, model: &str) -> bool {
        self.workers.values().any(|worker| worker.serves(model).is_some())
    }

    /// In what time a worker of `model` is expected, if there is none and requests that wait for it start one. A new leader
    /// among the coordinators takes a moment; those that wait outlast it.
    pub fn starting(&self, model: &str, now: Instant) -> Option<Duration> {
        let told = self.snapshot_at.is_some_and(|at| now < at + STARTING_BELIEVED);
        let starts = self.models.get(model).and_then(|model| model.starts);
        starts.filter(|_| told && !self.is_live(model))
    }

    /// The models of this worker.
    pub fn models_of(&self, name: &Name) -> Vec<String> {
        let models = self.workers.get(name).map(|worker| worker.models.iter());
        models
            .into_iter()
            .flatten()
            .map(|(model, _)| model.to_string())
            .collect()
    }

    /// All announced models that are not forgotten, by name.
    pub fn models(&self) -> &BTreeMap<Arc<str>, Model> {
        &self.models
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
#[path = "view_tests.rs"]
mod tests;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod filter_tests;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod prefix_tests;
