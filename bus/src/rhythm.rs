//! The common rhythm of a process's periodic work: what is due in the same second is due at the same moment.
//!
//! A process that does three things once a second, each by a timer of its own, wakes up three times. On an idle machine
//! that keeps a core from sleeping; with a common rhythm it wakes up once.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// A second of the process's rhythm. tokio keeps its timers in a wheel: levels with slots of 1, 64 and 4,096 ms, counted
/// from the runtime's beginning. A timer inside a slot wakes the process at the slot's beginning too, only to move to the
/// level below. At whole multiples of 1,024 ms (and of 512 and 256) timers lie on the slots' borders and fire at once.
const SECOND: Duration = Duration::from_millis(1024);

/// When the process's rhythm began.
static BEGUN: OnceLock<Instant> = OnceLock::new();

/// Moments at whole multiples of any period since one beginning.
#[derive(Debug, Clone, Copy)]
pub struct Rhythm {
    begun: Instant,
    /// How long a second of a period lasts.
    second: Duration,
}

impl Rhythm {
    /// A rhythm that begins at `begun`, with exact seconds.
    pub fn new(begun: Instant) -> Self {
        let second = Duration::from_secs(1);
        Self { begun, second }
    }

    /// The rhythm of this process, the same at each call. Its seconds have 1,024 ms, so that a timer costs one wake-up. It
    /// begins with the first call: to be made less than a millisecond before the runtime is.
    pub fn of_process() -> Self {
        Self {
            begun: *BEGUN.get_or_init(Instant::now),
            second: SECOND,
        }
    }

    /// The first moment of `period` after `last`: later than it, by no more than `period` in seconds of this rhythm. A
    /// `period` of zero is taken for a nanosecond.
    pub fn after(&self, last: Instant, period: Duration) -> Instant {
        let second = Duration::from_secs(1).as_nanos();
        let period = (period.as_nanos().saturating_mul(self.second.as_nanos()) / second).max(1);
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

    #[test]
    fn in_a_process_all_periods_end_on_the_borders_of_the_slots_of_timers() {
        let rhythm = Rhythm::of_process();
        let borders = [(250, 256), (500, 512), (1000, 1024), (5000, 5120)];
        for (period, border) in borders {
            let mut due = rhythm.begun;
            for round in 1..5 {
                due = rhythm.after(due, Duration::from_millis(period));
                assert_eq!(due, rhythm.begun + Duration::from_millis(round * border));
            }
        }
        assert_eq!(Rhythm::of_process().begun, rhythm.begun);
    }
}
