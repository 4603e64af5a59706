//! When the next token of all streams is due. Pure.

use std::time::{Duration, Instant};

/// The common steps of all streams; they stand still while there is no stream.
#[derive(Debug)]
pub(super) struct Steps {
    /// Time between two steps; none: answers leave whole.
    itl: Option<Duration>,
    next: Option<Instant>,
}

impl Steps {
    /// Steps at this interval; zero is none.
    pub(super) fn new(itl: Option<Duration>) -> Self {
        Self {
            itl: itl.filter(|itl| !itl.is_zero()),
            next: None,
        }
    }

    /// Whether tokens come one by one.
    pub(super) fn are_paced(&self) -> bool {
        self.itl.is_some()
    }

    /// A stream is open: there is a next step.
    pub(super) fn start(&mut self, now: Instant) {
        if self.next.is_none() {
            self.next = self.itl.and_then(|itl| now.checked_add(itl));
        }
    }

    /// No stream is open.
    pub(super) fn stop(&mut self) {
        self.next = None;
    }

    /// Time until the next step; none while there is no stream.
    pub(super) fn left(&self, now: Instant) -> Option<Duration> {
        self.next.map(|next| next.saturating_duration_since(now))
    }

    /// Whether a step is due, which this takes. A late one does not move the next ones.
    pub(super) fn is_due(&mut self, now: Instant) -> bool {
        let (Some(next), Some(itl)) = (self.next, self.itl) else {
            return false;
        };
        if now < next {
            return false;
        }
        self.next = next.checked_add(itl).map(|after| after.max(now));
        true
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn steps_keep_their_time_and_rest_without_streams() {
        let (start, itl) = (Instant::now(), Duration::from_millis(10));
        let mut steps = Steps::new(Some(itl));
        assert_eq!(steps.left(start), None);
        steps.start(start);
        assert_eq!(steps.left(start), Some(itl));
        assert!(!steps.is_due(start + itl / 2));
        // A late step: the next one is where it would have been.
        assert!(steps.is_due(start + itl * 3 / 2));
        assert_eq!(steps.left(start + itl * 3 / 2), Some(itl / 2));
        steps.stop();
        assert!(!steps.is_due(start + itl * 9));
        assert!(!Steps::new(Some(Duration::ZERO)).are_paced());
    }
}
