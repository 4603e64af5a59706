//! The number of workers that a model should have. Pure; time is an argument.
//!
//! **Load.** `ceil((running + queued + waiting × w) / (slots per worker × 0.8))`. A request that waits at a gateway asks
//! for a whole slot (`w = 1`), unless the model has a target for its time to the first token. Then it asks for the part
//! of a slot that serves it in time, `w = service time / (target - time to the first token in a slot)`, at most 1.
//!
//! **Hysteresis.** More workers are asked for at once. Fewer are asked for only when the highest demand of the last
//! `down-after` has fallen, so that a pause in the traffic does not stop machines that take minutes to start.
//!
//! **Bounds.** At least `min` and at most `max`. Without a rule there is at least one while the model is listed. With
//! `min = 0` there is none once nobody has asked for the model for `idle-after`.
//!
//! **Start.** While requests ask for a first worker, the time until it is expected is that which the last start took,
//! less what has passed.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::rules::{ScaleRule, ScaleRules};
use crate::limits::{DEMAND_SAMPLE, LATE_START, TARGET_UTILISATION};

/// What is known of a model now.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Load {
    /// Ready workers.
    pub(crate) workers: u32,
    /// Slots of one worker.
    pub(crate) slots_per_worker: f64,
    /// Requests running and queued on workers.
    pub(crate) on_workers: u64,
    /// Requests waiting at gateways.
    pub(crate) waiting: u32,
    /// Requests that have ended on these workers since their start.
    pub(crate) ended: u64,
    /// Completion tokens per second.
    pub(crate) tokens_per_second: f64,
    /// Mean time in milliseconds that a request holds a slot, if known.
    pub(crate) service_ms: Option<f64>,
    /// Time to the first token of a request that has a slot, in milliseconds, if known.
    pub(crate) ttft_ms: Option<f64>,
}

/// What a model should have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// Workers.
    pub(crate) workers: u32,
    /// Workers are started when requests wait for it.
    pub(crate) on_demand: bool,
    /// Milliseconds until a first worker is expected, if there is none and it is started on demand.
    pub(crate) start_ms: Option<u64>,
}

/// What was seen of each model.
#[derive(Debug, Default)]
pub(crate) struct Scaling {
    rules: ScaleRules,
    fallback: ScaleRule,
    models: HashMap<String, Seen>,
}

/// What was seen of one model.
#[derive(Debug, Default)]
struct Seen {
    window: Window,
    /// When somebody asked for it last, as far as is known.
    busy: Option<Instant>,
    ended: u64,
    /// Since when a first worker is wanted and there is none.
    starting: Option<Instant>,
    /// How long the last start took.
    start: Option<Duration>,
    service_ms: Option<f64>,
}

/// Demands and when they were seen, newest and smallest last. An earlier demand that a later one has reached can
/// never be the highest again, so it is dropped.
#[derive(Debug, Default)]
struct Window(VecDeque<(Instant, u32)>);

impl Scaling {
    /// Models are scaled by `rules`.
    pub(crate) fn new(rules: ScaleRules) -> Self {
        Self {
            rules,
            ..Self::default()
        }
    }

    /// The models that have rules.
    pub(crate) fn ruled(&self) -> impl Iterator<Item = &str> {
        self.rules.iter().map(|(name, _)| name)
    }

    /// Notes the load of `model` at `now`, and decides what it should have.
    pub(crate) fn want(&mut self, model: &str, load: &Load, now: Instant) -> Wanted {
        let rule = self.rules.get(model);
        let on_demand = rule.is_some();
        let rule = rule.unwrap_or(&self.fallback);
        if !self.models.contains_key(model) {
            self.models.insert(model.to_owned(), Seen::first(load, now));
        }
        let Some(seen) = self.models.get_mut(model) else {
            return Wanted {
                workers: rule.min,
                on_demand,
                start_ms: None,
            };
        };
        let workers = seen.workers(load, rule, now);
        let start_ms = seen.start_ms(workers, load, rule, now);
        Wanted {
            workers,
            on_demand,
            start_ms: start_ms.filter(|_| on_demand),
        }
    }

    /// Forgets the models for which `listed` is false.
    pub(crate) fn retain(&mut self, listed: impl Fn(&str) -> bool) {
        let rules = &self.rules;
        self.models
            .retain(|model, _| listed(model) || rules.get(model).is_some());
    }
}

impl Seen {
    /// Nothing tells since when the workers of a model are idle that was not seen before.
    fn first(load: &Load, now: Instant) -> Self {
        Self {
            busy: (load.workers > 0).then_some(now),
            ended: load.ended,
            ..Self::default()
        }
    }

    fn workers(&mut self, load: &Load, rule: &ScaleRule, now: Instant) -> u32 {
        self.service_ms = load.service_ms.or(self.service_ms);
        let running = load.on_workers > 0 || load.waiting > 0 || load.tokens_per_second > 0.0;
        // Requests may come and go between two looks. The sum falls when a worker leaves, which is no request.
        if running || load.ended > self.ended {
            self.busy = Some(now);
        }
        self.ended = load.ended;
        let idle = self
            .busy
            .is_none_or(|busy| now.saturating_duration_since(busy) >= rule.idle_after);
        if rule.min == 0 && idle {
            self.window = Window::default();
            return 0;
        }
        let needed = workers_for(load, self.service_ms, rule);
        self.window.hold(needed, rule.down_after, now).clamp(rule.min, rule.max)
    }

    /// Notes when a first worker is wanted and when it is there, and returns the milliseconds until a new request has its
    /// slot, while there is none.
    fn start_ms(&mut self, workers: u32, load: &Load, rule: &ScaleRule, now: Instant) -> Option<u64> {
        if load.workers > 0 {
            if let Some(since) = self.starting.take() {
                self.start = Some(now.saturating_duration_since(since));
            }
            return None;
        }
        if workers == 0 {
            self.starting = None;
        } else {
            self.starting.get_or_insert(now);
        }
        let expected = self.start.unwrap_or(rule.start);
        let passed = self
            .starting
            .map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        let left = expected.saturating_sub(passed).max(expected / LATE_START);
        // Those that wait already share the slots of the workers that come.
        let slots = load.slots_per_worker.max(1.0) * f64::from(workers.max(1));
        let ahead = f64::from(load.waiting) / slots;
        let queue = self.service_ms.map_or(0.0, |service| (ahead * service).floor());
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "positive; the cast saturates"
        )]
        let queue = queue as u64;
        let left = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
        Some(left.saturating_add(queue))
    }
}

/// Workers that this load needs now, at least 1.
fn workers_for(load: &Load, service_ms: Option<f64>, rule: &ScaleRule) -> u32 {
    // Nobody has said yet how many slots a worker has: the first one will.
    if load.workers == 0 && load.slots_per_worker <= 0.0 {
        return 1;
    }
    let capacity = load.slots_per_worker.max(1.0) * TARGET_UTILISATION;
    let weight = match (rule.target_ttft, service_ms) {
        (Some(target), Some(service)) => {
            let left = target.as_secs_f64() * 1000.0 - load.ttft_ms.unwrap_or(0.0);
            if left > service { service / left } else { 1.0 }
        }
        _ => 1.0,
    };
    #[allow(clippy::cast_precision_loss, reason = "a count of requests")]
    let slots = load.on_workers as f64 + f64::from(load.waiting) * weight;
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "positive; the cast saturates"
    )]
    let workers = (slots / capacity).ceil() as u32;
    workers.max(1)
}

impl Window {
    /// Notes that `workers` are needed at `now`, and returns the most that were needed within `patience`.
    fn hold(&mut self, workers: u32, patience: Duration, now: Instant) -> u32 {
        while self.0.back().is_some_and(|(_, smaller)| *smaller <= workers) {
            self.0.pop_back();
        }
        // A lower demand within the same half second would only add an entry.
        if self
            .0
            .back()
            .is_none_or(|(seen, _)| now.saturating_duration_since(*seen) >= DEMAND_SAMPLE)
        {
            self.0.push_back((now, workers));
        }
        while self
            .0
            .front()
            .is_some_and(|(seen, _)| now.saturating_duration_since(*seen) > patience)
        {
            self.0.pop_front();
        }
        self.0.front().map_or(workers, |(_, most)| *most)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
#[path = "desired_tests.rs"]
mod tests;
