//! When a full worker is worth another try: how fast its slots have become free lately.

use std::time::{Duration, Instant};

use crate::report::recent::Rate;

/// The rate at which streams end.
#[derive(Debug)]
pub(crate) struct Pace {
    ended: Rate,
    per_second: f64,
    max: Duration,
}

impl Pace {
    /// The rate of the last `window`; estimates are at most `max`.
    pub(crate) fn new(window: Duration, max: Duration) -> Self {
        Self {
            ended: Rate::new(window),
            per_second: 0.0,
            max,
        }
    }

    /// Notes how many streams have ended since the start.
    pub(crate) fn note(&mut self, ended: u64, now: Instant) {
        self.per_second = self.ended.sample(now, ended);
    }

    /// Milliseconds until a request that comes behind `waiting` others can expect a slot. `None`
    /// when no stream has ended lately.
    pub(crate) fn retry_after_ms(&self, waiting: u32) -> Option<u64> {
        let seconds = (f64::from(waiting) + 1.0) / self.per_second;
        // Not a number of seconds when the rate is 0.
        let after = Duration::try_from_secs_f64(seconds).ok()?.min(self.max);
        Some(u64::try_from(after.as_millis()).unwrap_or(u64::MAX).max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_estimate_follows_the_rate_and_the_queue() {
        let now = Instant::now();
        let mut pace = Pace::new(Duration::from_secs(30), Duration::from_mins(1));
        assert_eq!(pace.retry_after_ms(0), None, "nothing is known");
        pace.note(0, now);
        assert_eq!(pace.retry_after_ms(0), None);
        pace.note(20, now + Duration::from_secs(10));
        assert_eq!(pace.retry_after_ms(0), Some(500), "two a second");
        assert_eq!(pace.retry_after_ms(9), Some(5000));
        assert_eq!(pace.retry_after_ms(u32::MAX), Some(60_000), "never more than the bound");
    }

    #[test]
    fn old_ends_are_forgotten_and_fast_ones_are_no_busy_loop() {
        let now = Instant::now();
        let mut pace = Pace::new(Duration::from_secs(30), Duration::from_mins(1));
        pace.note(0, now);
        pace.note(1_000_000, now + Duration::from_secs(1));
        assert_eq!(pace.retry_after_ms(0), Some(1));
        for second in 2..100 {
            pace.note(1_000_000, now + Duration::from_secs(second));
        }
        assert_eq!(pace.retry_after_ms(0), None);
    }
}
