//! The common rhythm of a process's periodic work: what is due in the same second is due at the same moment.
//!
//! A process that does three things once a second, each by a timer of its own, wakes up three times. On an idle machine
//! that keeps a core from sleeping; with a common rhythm it wakes up once.

use std::time::{Duration, Instant};

/// Moments at whole multiples of any period since one beginning.
#[derive(Debug, Clone, Copy)]
pub struct Rhythm {
    begun: Instant,
}

impl Rhythm {
    /// A rhythm that begins at `begun`.
    pub fn new(begun: Instant) -> Self {
        Self { begun }
    }

    /// The first moment of `period` after `last`: later than it, by no more than `period`. A `period` of zero is taken for
    /// a nanosecond.
    pub fn after(&self, last: Instant, period: Duration) -> Instant {
        let period = period.as_nanos().max(1);
        let passed = last.saturating_duration_since(self.begun).as_nanos();
        let until = period - passed % period;
        last + Duration::from_nanos(u64::try_from(until).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_one_period_or_a_multiple_of_it_is_due_together() {
        let begun = Instant::now();
        let rhythm = Rhythm::new(begun);
        let (second, quarter) = (Duration::from_secs(1), Duration::from_millis(250));
        let at = |ms| begun + Duration::from_millis(ms);
        assert_eq!(rhythm.after(begun, second), at(1000));
        assert_eq!(rhythm.after(at(999), second), at(1000));
        assert_eq!(rhythm.after(at(1000), second), at(2000), "not the same moment again");
        assert_eq!(
            rhythm.after(at(1003), second),
            at(2000),
            "a late timer does not make it drift"
        );
        assert_eq!(rhythm.after(at(1803), quarter), at(2000));
        assert_eq!(rhythm.after(begun, Duration::ZERO), begun + Duration::from_nanos(1));
    }
}
