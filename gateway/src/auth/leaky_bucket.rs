//! A leaky bucket, pure: what was consumed and not yet worked off at the rate of a limit.

use std::time::Duration;

use tokio::time::Instant;

/// How a bucket leaks and when it is full: `limit` units, all of which leak within a minute.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Rate {
    /// Units a minute.
    pub(super) limit: f64,
}

impl Rate {
    /// Units that leak in `time`.
    pub(super) fn leak(self, time: Duration) -> f64 {
        self.limit / 60.0 * time.as_secs_f64()
    }

    /// Time in which `units` leak.
    pub(super) fn time(self, units: f64) -> Duration {
        Duration::try_from_secs_f64(units.max(0.0) * 60.0 / self.limit).unwrap_or(Duration::MAX)
    }
}

/// The level of one bucket.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bucket {
    level: f64,
    at: Instant,
}

impl Bucket {
    /// An empty one.
    pub(super) fn new(now: Instant) -> Self {
        Self { level: 0.0, at: now }
    }

    /// What is in it at `now`.
    pub(super) fn level(&self, rate: Rate, now: Instant) -> f64 {
        (self.level - rate.leak(now.saturating_duration_since(self.at))).max(0.0)
    }

    /// Puts `units` in, or takes them out; over the limit too.
    pub(super) fn add(&mut self, units: f64, rate: Rate, now: Instant) {
        self.level = (self.level(rate, now) + units).max(0.0);
        self.at = self.at.max(now);
    }

    /// Fills it up to `level` where less is in it.
    pub(super) fn raise(&mut self, level: f64, rate: Rate, now: Instant) {
        let missing = level - self.level(rate, now);
        if missing > 0.0 {
            self.add(missing, rate, now);
        }
    }

    /// How much of a unit's room is missing for `units` more, as the time that it takes to leak;
    /// `None` when they fit.
    pub(super) fn wait(&self, units: f64, rate: Rate, now: Instant) -> Option<Duration> {
        let missing = self.level(rate, now) + units - rate.limit;
        // What floating point loses is no reason to refuse.
        (missing > 1e-6).then(|| rate.time(missing))
    }
}

#[cfg(test)]
#[allow(clippy::float_cmp)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { limit: 60.0 };

    fn after(start: Instant, seconds: f64) -> Instant {
        start + Duration::from_secs_f64(seconds)
    }

    #[test]
    fn it_takes_its_limit_at_once_and_then_its_rate() {
        let start = Instant::now();
        let mut bucket = Bucket::new(start);
        for _ in 0..60 {
            assert_eq!(bucket.wait(1.0, RATE, start), None);
            bucket.add(1.0, RATE, start);
        }
        assert_eq!(bucket.wait(1.0, RATE, start), Some(Duration::from_secs(1)));
        assert_eq!(bucket.wait(10.0, RATE, start), Some(Duration::from_secs(10)));
        assert_eq!(bucket.wait(1.0, RATE, after(start, 1.0)), None);
        assert_eq!(bucket.level(RATE, after(start, 45.0)), 15.0);
        assert_eq!(bucket.level(RATE, after(start, 600.0)), 0.0);
    }

    #[test]
    fn it_goes_over_and_never_under() {
        let start = Instant::now();
        let mut bucket = Bucket::new(start);
        bucket.add(100.0, RATE, start);
        assert_eq!(bucket.wait(0.0, RATE, start), Some(Duration::from_secs(40)));
        bucket.add(-500.0, RATE, start);
        assert_eq!(bucket.level(RATE, start), 0.0);
    }

    #[test]
    fn it_is_raised_but_not_lowered() {
        let start = Instant::now();
        let mut bucket = Bucket::new(start);
        bucket.add(10.0, RATE, start);
        for (told, level) in [(5.0, 10.0), (20.0, 20.0), (-1.0, 20.0)] {
            bucket.raise(told, RATE, start);
            assert_eq!(bucket.level(RATE, start), level);
        }
    }

    #[test]
    fn a_clock_that_is_read_out_of_order_does_no_harm() {
        let start = Instant::now();
        let mut bucket = Bucket::new(after(start, 2.0));
        bucket.add(5.0, RATE, start);
        assert_eq!(bucket.level(RATE, after(start, 2.0)), 5.0);
        assert_eq!(bucket.level(RATE, after(start, 3.0)), 4.0);
    }
}
