//! How fast a model's requests end, and what is told to those for whom there is no room.
//!
//! What is measured is how long a run takes, out of the time that runs took: while nothing runs,
//! nothing is measured. So many runs as there are now end in that time. Whoever is refused is given
//! a place of its own in the time to come, behind those who were told before, so that no more of
//! them come back than places have opened.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::limits;

/// Ends that count: each makes those before it count a little less. Of so many, the mean is known to a
/// twentieth also where answers are of very different lengths.
const MEMORY: f64 = 256.0;

/// How fast one model's requests end.
#[derive(Debug, Default)]
pub struct DrainRate {
    running: u32,
    /// Until when `busy` is counted.
    at: Option<Instant>,
    /// Seconds that all runs together took; fades with the ends.
    busy: f64,
    /// Ends; they fade.
    ends: f64,
    /// Seconds that the runs which ended took; fades with them.
    took: f64,
    /// Seconds that the present runs have taken.
    ages: f64,
    /// Until when each tenant's places are given away.
    told: HashMap<Option<String>, Instant>,
}

/// What waits for a model when a request is refused.
#[derive(Debug, Clone, Copy)]
pub struct Queue {
    /// Requests that wait for it.
    pub waiting: usize,
    /// Tenants that share the room.
    pub tenants: usize,
}

impl DrainRate {
    /// A run has begun.
    pub fn began(&mut self, now: Instant) {
        self.pass(now);
        self.running += 1;
    }

    /// A run that began at `since` is over; `ended` when it was the last of its request.
    pub fn over(&mut self, since: Instant, ended: bool, now: Instant) {
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

    fn pass(&mut self, now: Instant) {
        let passed = self.at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        let passed = passed.as_secs_f64() * f64::from(self.running);
        self.busy += passed;
        self.ages += passed;
        self.at = Some(now);
    }

    /// Seconds between two ends, while as many run as now.
    fn between(&mut self, now: Instant) -> f64 {
        self.pass(now);
        let running = f64::from(self.running.max(1));
        let age = self.ages / running;
        let first = limits::FIRST_RUNS.as_secs_f64();
        let run = if self.ends > 0.0 {
            // What ends first is what is short: what runs without an end counts as well. But not as if only
            // those had begun together that have ended: then a run is taken to last twice as long as is known.
            let mean = self.took / self.ends;
            let most = first.max(2.0 * age.max(mean));
            (self.busy / self.ends).min(most).max(mean)
        } else {
            // What runs may be anywhere in its run.
            first.max(2.0 * age)
        };
        run / running
    }

    /// When a request of `tenant` that finds no room should come back: when there is some, and all
    /// who were told before have come. `spread`, from 0 to 1, is drawn for each.
    pub fn retry_after(&mut self, queue: Queue, tenant: &Option<String>, now: Instant, spread: f64) -> Duration {
        let each = self.between(now);
        // The first comes when the room has drained by half, or for a while: others come as well, and
        // nobody knows how long a run takes.
        let slack = (queue.waiting as f64 / 2.0 * each).min(limits::RETURN_SLACK.as_secs_f64());
        let turn = each * queue.tenants.max(1) as f64;
        if self.told.len() >= limits::TOLD_TENANTS {
            self.told.retain(|_, until| *until > now);
        }
        let known = self.told.len() < limits::TOLD_TENANTS || self.told.contains_key(tenant);
        let until = self.told.entry(tenant.clone().filter(|_| known)).or_insert(now);
        let ahead = until.saturating_duration_since(now).as_secs_f64();
        let after = (ahead + turn).max(slack + each);
        let most = limits::RETRY_AFTER.end().as_secs_f64();
        *until = now + Duration::from_secs_f64(after.min(most));
        let after = if after > most {
            most * (0.5 + spread / 2.0)
        } else {
            after
        };
        Duration::from_secs_f64(after).max(*limits::RETRY_AFTER.start())
    }

    /// Those who were told have come, or will not: there is room.
    pub fn is_roomy(&mut self) {
        self.told.clear();
    }
}

#[cfg(test)]
#[path = "service_rate_tests.rs"]
mod tests;
