//! How late a worker's statuses come, and how much longer the coordinator waits because of that.

use std::time::Duration;

use tokenbus_protocol::SmoothedTime;

use crate::limits::{LATE_MAX, STATUS_PERIOD};

/// The smoothed lateness of a worker's statuses. It counts from the status period on, so a link with a constant
/// delay is not late.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Lateness(SmoothedTime);

impl Lateness {
    /// A status came `gap` after the one before it. A short gap says nothing about the link: either the earlier status
    /// was late, or this one tells a change.
    pub(super) fn observe(&mut self, gap: Duration) {
        if gap >= STATUS_PERIOD / 2 {
            self.0.observe(gap.saturating_sub(STATUS_PERIOD));
        }
    }

    /// How late the worker's next status may be.
    pub(super) fn allowance(self) -> Duration {
        (self.0.mean() + self.0.margin()).min(LATE_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(gaps: impl IntoIterator<Item = u64>) -> Duration {
        let mut lateness = Lateness::default();
        for gap in gaps {
            lateness.observe(Duration::from_millis(gap));
        }
        lateness.allowance()
    }

    #[test]
    fn who_is_on_time_or_early_is_allowed_nothing() {
        assert_eq!(after([]), Duration::ZERO);
        assert_eq!(after([1_000, 50, 50, 1_000, 1_000]), Duration::ZERO);
    }

    #[test]
    fn who_is_late_now_and_then_is_allowed_as_much_and_no_more_than_the_bound() {
        let jitter = after([700, 1_600].into_iter().cycle().take(40));
        assert!(
            jitter > Duration::from_millis(600) && jitter < Duration::from_secs(2),
            "{jitter:?}"
        );
        assert_eq!(after([1_000, 20_000]), LATE_MAX);
    }

    #[test]
    fn what_comes_in_one_go_after_a_stall_hides_nothing() {
        let stalls = after([2_000, 0, 0, 700, 1_000].into_iter().cycle().take(20));
        assert!(stalls > Duration::from_millis(1_200), "{stalls:?}");
    }

    #[test]
    fn a_pause_is_forgotten_within_seconds() {
        let once = after([2_900].into_iter().chain([1_000; 20]));
        assert!(once < Duration::from_millis(250), "{once:?}");
    }
}
