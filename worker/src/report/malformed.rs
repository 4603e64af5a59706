//! Malformed messages: each is counted, a flood of them is one log line a second.

use std::time::{Duration, Instant};

/// Decides which of many equal log lines are written.
#[derive(Debug)]
pub(crate) struct LogLimit {
    gap: Duration,
    last: Option<Instant>,
    suppressed: u64,
}

impl LogLimit {
    /// At most one line in `gap`.
    pub(crate) fn new(gap: Duration) -> Self {
        Self {
            gap,
            last: None,
            suppressed: 0,
        }
    }

    /// One more: `Some` with the number of those not logged since the last line when this one is
    /// to be logged.
    pub(crate) fn note(&mut self, now: Instant) -> Option<u64> {
        if self
            .last
            .is_some_and(|last| now.saturating_duration_since(last) < self.gap)
        {
            self.suppressed += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_one_line_and_its_count_is_not_lost() {
        let now = Instant::now();
        let mut limit = LogLimit::new(Duration::from_secs(1));
        assert_eq!(limit.note(now), Some(0));
        for _ in 0..1000 {
            assert_eq!(limit.note(now + Duration::from_millis(500)), None);
        }
        assert_eq!(limit.note(now + Duration::from_secs(1)), Some(1000));
    }
}
