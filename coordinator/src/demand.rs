//! The estimated wait of a new request, and the number of workers that the load needs.
//!
//! **Estimated wait.** 0 while a slot is free. Otherwise `(queued + 1) × S / slots` milliseconds: when all `slots`
//! are busy, one becomes free every `S / slots` on average, and `queued` requests are ahead of a new one. `S` is
//! the time that a request holds its slot: `ttft.p50 + itl.p50 × (tokens per request - 1)`, averaged over the ready
//! workers that have measured it, weighted by their slots. Tokens per request are counted since the worker's start.
//! `None` without a ready worker, or when no request has finished yet.
//!
//! **Desired workers.** `ceil((active + queued) / (slots per worker × 0.8))`, and at least 1 while the model is
//! listed: workers report the demand, so without any of them nobody could ask for the first. More workers are asked
//! for at once. Fewer are asked for only when the highest demand of the last 60 s has fallen, so that a pause in
//! the traffic does not stop machines that take minutes to start.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use tokenbus_protocol::Status;

use crate::limits::{DEMAND_SAMPLE, SCALE_DOWN_AFTER, TARGET_UTILISATION};

/// Mean time in milliseconds that a request holds a slot of this worker, if known.
pub(crate) fn service_ms(status: &Status) -> Option<f64> {
    let totals = &status.totals;
    let ended = totals
        .finished
        .saturating_add(totals.failed)
        .saturating_add(totals.cancelled);
    if ended == 0 || totals.tokens == 0 {
        return None;
    }
    #[allow(clippy::cast_precision_loss, reason = "a mean needs no 64 bits")]
    let tokens = totals.tokens as f64 / ended as f64;
    let service = status.report.ttft.p50 + status.report.itl.p50 * (tokens - 1.0).max(0.0);
    (service.is_finite() && service > 0.0).then_some(service)
}

/// The capacity of a model's ready workers, as input to the wait.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ModelRoom {
    /// Ready workers.
    pub(crate) workers: u32,
    /// Their slots.
    pub(crate) slots: u32,
    /// Their free slots.
    pub(crate) free: u32,
    /// Requests that wait on them.
    pub(crate) queued: u32,
    /// Mean time in milliseconds that a request holds a slot.
    pub(crate) service_ms: Option<f64>,
}

/// Estimated wait of a new request for a slot, in milliseconds.
pub(crate) fn estimated_wait_ms(room: &ModelRoom) -> Option<u64> {
    if room.workers == 0 || room.slots == 0 {
        return None;
    }
    if room.free > 0 {
        return Some(0);
    }
    let wait = (f64::from(room.queued) + 1.0) * room.service_ms? / f64::from(room.slots);
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "positive; the cast saturates"
    )]
    let wait = wait.ceil() as u64;
    Some(wait)
}

/// Workers that this load needs now; `load` is the number of running and waiting requests.
pub(crate) fn workers_for(load: u64, slots_per_worker: f64) -> u32 {
    let capacity = slots_per_worker.max(1.0) * TARGET_UTILISATION;
    #[allow(clippy::cast_precision_loss, reason = "a count of requests")]
    let workers = (load as f64 / capacity).ceil();
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "positive; the cast saturates"
    )]
    let workers = workers as u32;
    workers.max(1)
}

/// The highest demand for each model in the last minute.
#[derive(Debug, Default)]
pub(crate) struct Demand {
    models: HashMap<String, Window>,
}

/// Demands and when they were seen, newest and smallest last. An earlier demand that a later one has reached can
/// never be the highest again, so it is dropped.
#[derive(Debug, Default)]
struct Window(VecDeque<(Instant, u32)>);

impl Demand {
    /// Notes that the load of `model` needs `workers` at `now`, and returns how many to ask for.
    pub(crate) fn hold(&mut self, model: &str, workers: u32, now: Instant) -> u32 {
        if let Some(window) = self.models.get_mut(model) {
            return window.hold(workers, now);
        }
        self.models.entry(model.to_owned()).or_default().hold(workers, now)
    }

    /// Forgets the models for which `listed` is false.
    pub(crate) fn retain(&mut self, listed: impl Fn(&str) -> bool) {
        self.models.retain(|model, _| listed(model));
    }
}

impl Window {
    fn hold(&mut self, workers: u32, now: Instant) -> u32 {
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
            .is_some_and(|(seen, _)| now.saturating_duration_since(*seen) > SCALE_DOWN_AFTER)
        {
            self.0.pop_front();
        }
        self.0.front().map_or(workers, |(_, most)| *most)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn room(slots: u32, free: u32, queued: u32, service_ms: Option<f64>) -> ModelRoom {
        ModelRoom {
            workers: 1,
            slots,
            free,
            queued,
            service_ms,
        }
    }

    #[test]
    fn nobody_waits_while_a_slot_is_free() {
        assert_eq!(estimated_wait_ms(&room(4, 1, 0, None)), Some(0));
        assert_eq!(estimated_wait_ms(&room(4, 1, 9, Some(1000.0))), Some(0));
    }

    #[test]
    fn the_wait_is_that_of_all_before_and_oneself() {
        assert_eq!(estimated_wait_ms(&room(4, 0, 0, Some(1000.0))), Some(250));
        assert_eq!(estimated_wait_ms(&room(4, 0, 7, Some(1000.0))), Some(2000));
    }

    #[test]
    fn what_nobody_measured_is_not_invented() {
        assert_eq!(estimated_wait_ms(&room(4, 0, 7, None)), None);
        assert_eq!(estimated_wait_ms(&ModelRoom::default()), None);
        assert_eq!(estimated_wait_ms(&room(0, 0, 0, Some(1.0))), None);
    }

    #[test]
    fn an_absurd_service_time_saturates() {
        assert_eq!(estimated_wait_ms(&room(1, 0, u32::MAX, Some(f64::MAX))), Some(u64::MAX));
    }

    #[test]
    fn demand_is_load_over_four_fifths_of_the_slots() {
        assert_eq!(workers_for(0, 10.0), 1);
        assert_eq!(workers_for(8, 10.0), 1);
        assert_eq!(workers_for(9, 10.0), 2);
        assert_eq!(workers_for(160, 10.0), 20);
        assert_eq!(workers_for(5, 0.0), 7, "a worker without slots counts as one slot");
        assert_eq!(workers_for(u64::MAX, 1.0), u32::MAX);
    }

    #[test]
    fn more_is_asked_for_at_once_and_fewer_after_a_minute() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut demand = Demand::default();
        assert_eq!(demand.hold("m", 2, at(0)), 2);
        assert_eq!(demand.hold("m", 9, at(1)), 9);
        for second in 2..=61 {
            assert_eq!(demand.hold("m", 3, at(second)), 9, "second {second}");
        }
        assert_eq!(demand.hold("m", 3, at(62)), 3);
        assert_eq!(demand.hold("other", 1, at(62)), 1);
    }

    #[test]
    fn a_wave_does_not_make_the_demand_flap() {
        let start = Instant::now();
        let mut demand = Demand::default();
        let mut said = Vec::new();
        for second in 0..600_u64 {
            let wanted = if second % 40 < 20 { 8 } else { 2 };
            said.push(demand.hold("m", wanted, start + Duration::from_secs(second)));
        }
        assert!(said.iter().all(|workers| *workers == 8));
    }

    #[test]
    fn a_slow_decline_stays_bounded_and_is_followed() {
        let start = Instant::now();
        let mut demand = Demand::default();
        let mut last = 0;
        for step in 0..100_000_u32 {
            last = demand.hold("m", 200_000 - step, start + Duration::from_millis(50) * step);
            assert!(demand.models.get("m").is_some_and(|w| w.0.len() <= 122));
        }
        // 60 s are 1,200 steps.
        assert!((101_200..=101_211).contains(&last), "{last}");
    }

    #[test]
    fn models_that_are_gone_are_forgotten() {
        let mut demand = Demand::default();
        demand.hold("a", 1, Instant::now());
        demand.hold("b", 1, Instant::now());
        demand.retain(|model| model == "b");
        assert_eq!(demand.models.len(), 1);
    }
}
