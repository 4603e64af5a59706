//! How fast a model's requests end, and when refused requests may come back.
//!
//! The measure is the duration of a run, from the time that runs took; while nothing runs, nothing is measured. In that
//! time, as many runs end as there are now. Each refused request gets a time of its own, after those that were given
//! before, so that no more requests come back than slots became free.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::limits;

/// Number of ends that count; older ones fade. With so many, the mean is known to a twentieth even if answers differ
/// much in length.
const MEMORY: f64 = 256.0;

/// How fast one model's requests end.
#[derive(Debug, Default)]
pub(crate) struct ServiceRate {
    running: u32,
    /// The most that ran together of late. When a crowd leaves, its runs end at once, and the slots are free for others.
    most: f64,
    /// The time until which `busy` is counted.
    at: Option<Instant>,
    /// Seconds that all runs took together; fades with each end.
    busy: f64,
    /// Number of ends; fades.
    ends: f64,
    /// Seconds that the ended runs took; fades with each end.
    took: f64,
    /// Ages of the present runs in seconds, added up.
    ages: f64,
    /// For each tenant, the time until which it was told to stay away.
    told: HashMap<Option<String>, Instant>,
}

/// What waits for a model when a request is refused.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Backlog {
    /// Requests that wait for it.
    pub waiting: usize,
    /// Tenants that share the waiting room.
    pub tenants: usize,
}

impl ServiceRate {
    /// Records that a run began.
    pub(crate) fn began(&mut self, now: Instant) {
        self.pass(now);
        self.running += 1;
        self.most = self.most.max(f64::from(self.running));
    }

    /// Records that the run which began at `since` is over; `ended` if its request is answered.
    pub(crate) fn over(&mut self, since: Instant, ended: bool, now: Instant) {
        self.pass(now);
        self.running = self.running.saturating_sub(1);
        let took = now.saturating_duration_since(since).as_secs_f64();
        self.ages = (self.ages - took).max(0.0);
        if ended {
            let keep = 1.0 - 1.0 / MEMORY;
            self.busy *= keep;
            self.ends = self.ends.mul_add(keep, 1.0);
            self.took = self.took.mul_add(keep, took);
        }
    }

    /// Requests that run together, about.
    pub(super) fn slots(&self) -> usize {
        self.most.round() as usize
    }

    fn pass(&mut self, now: Instant) {
        let passed = self.at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        let fades = (-passed.as_secs_f64() / limits::RUNS_REMEMBERED.as_secs_f64()).exp();
        self.most = (self.most * fades).max(f64::from(self.running));
        let passed = passed.as_secs_f64() * f64::from(self.running);
        self.busy += passed;
        self.ages += passed;
        self.at = Some(now);
    }

    /// Seconds between two ends, with as many runs as of late.
    pub(super) fn between(&mut self, now: Instant) -> f64 {
        self.pass(now);
        let running = f64::from(self.running.max(1));
        let age = self.ages / running;
        let first = limits::FIRST_RUNS.as_secs_f64();
        let run = if self.ends > 0.0 {
            // The first ends are those of short runs, so running time counts as well. But ended runs and running ones
            // did not all begin together: a run is assumed to last at most twice as long as any known one.
            let mean = self.took / self.ends;
            let most = first.max(2.0 * age.max(mean));
            (self.busy / self.ends).min(most).max(mean)
        } else {
            // A run may be at any point of its duration.
            first.max(2.0 * age)
        };
        run / self.most.max(1.0)
    }

    /// How long a request waits that has `ahead` others before it; `None` while too few runs were measured. It is rather
    /// too short than too long: the mean of the runs that ended counts, and short ones end first.
    pub(crate) fn wait(&self, ahead: usize) -> Option<Duration> {
        let known = self.ends >= limits::KNOWN_ENDS && self.running > 0;
        known.then(|| {
            let each = self.took / self.ends / self.most.max(1.0);
            Duration::try_from_secs_f64(each * ahead as f64).unwrap_or(Duration::MAX)
        })
    }

    /// When a refused request of `tenant` should come back: when there is room, and after all that were told before.
    /// `spread`, from 0 to 1, is random for each.
    pub(crate) fn retry_after(
        &mut self,
        backlog: Backlog,
        tenant: &Option<String>,
        now: Instant,
        spread: f64,
    ) -> Duration {
        let each = self.between(now);
        // The first one comes when half of the waiting room is empty, or after some time at most: other requests arrive
        // too, and the duration of a run is uncertain.
        let slack = (backlog.waiting as f64 / 2.0 * each).min(limits::RETURN_SLACK.as_secs_f64());
        if self.told.len() >= limits::TOLD_TENANTS {
            self.told.retain(|_, until| *until > now);
        }
        // Those that were told to come back will share the slots too.
        let away = self.told.values().filter(|until| **until > now).count();
        let turn = each * backlog.tenants.max(away).max(1) as f64;
        let known = self.told.len() < limits::TOLD_TENANTS || self.told.contains_key(tenant);
        let ahead = match self.told.get(tenant) {
            Some(until) => until.saturating_duration_since(now).as_secs_f64(),
            // The first ones of many tenants spread over a round of turns instead of coming back together.
            None if backlog.tenants > 1 => turn * spread,
            None => 0.0,
        };
        let after = (ahead + turn).max(slack + each);
        let most = limits::RETRY_AFTER.end().as_secs_f64();
        if known {
            let until = now + Duration::from_secs_f64(after.min(most));
            self.told.insert(tenant.clone(), until);
        }
        let after = if after > most {
            most * (0.5 + spread / 2.0)
        } else {
            after
        };
        Duration::from_secs_f64(after).max(*limits::RETRY_AFTER.start())
    }

    /// There is room, so those that were told have come back or will not.
    pub(crate) fn is_roomy(&mut self) {
        self.told.clear();
    }
}

#[cfg(test)]
#[path = "service_rate_tests.rs"]
mod tests;
