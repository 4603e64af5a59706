//! The budget of requests that all threads may still start.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

/// The end of a run: a number of requests, a time or a stop, whichever comes first.
#[derive(Debug)]
pub(crate) struct Budget {
    left: AtomicU64,
    until: Option<Instant>,
    stopped: AtomicBool,
}

impl Budget {
    /// A budget; `None` is no limit of number or of time.
    pub(crate) fn new(requests: Option<u64>, until: Option<Instant>) -> Self {
        let left = AtomicU64::new(requests.unwrap_or(u64::MAX));
        Self {
            left,
            until,
            stopped: AtomicBool::new(false),
        }
    }

    /// Takes one request that starts at `at`; false when the run is over.
    pub(crate) fn take(&self, at: Instant) -> bool {
        !self.is_over(at)
            && self
                .left
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
                .is_ok()
    }

    /// Whether the time is up, or the run was stopped.
    pub(crate) fn is_over(&self, at: Instant) -> bool {
        self.stopped.load(Ordering::Relaxed) || self.until.is_some_and(|until| at >= until)
    }

    /// Ends the budget: no more requests start.
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn ends_by_number_by_time_and_by_a_stop() {
        let now = Instant::now();
        let by_number = Budget::new(Some(2), None);
        assert_eq!([0; 4].map(|_| by_number.take(now)), [true, true, false, false]);
        let by_time = Budget::new(None, Some(now + Duration::from_secs(1)));
        assert!(by_time.take(now));
        assert!(!by_time.take(now + Duration::from_secs(1)));
        by_time.stop();
        assert!(!by_time.take(now));
    }
}
