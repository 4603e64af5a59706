//! Stopping without loss: what a drain means at each moment.
//!
//! A draining worker leaves its request subjects, hands over what it has not begun, finishes what
//! runs until the grace period is over, and hands the rest over. One that was drained by a control
//! message stays and can be undrained; one that shuts down ends when nothing is left.

use std::time::Instant;

/// Where a worker is between serving and gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Drain {
    /// It takes requests.
    Serving,
    /// Asked to by a control message. Streams that run after this time are handed over.
    Drained(Instant),
    /// The process was asked to stop.
    Stopping(Instant),
}

impl Drain {
    /// Whether new requests are refused.
    pub(crate) fn is_draining(self) -> bool {
        self != Self::Serving
    }

    /// Whether the worker ends when nothing runs any more.
    pub(crate) fn is_stopping(self) -> bool {
        matches!(self, Self::Stopping(_))
    }

    /// After a control message; `until` is the end of the grace period. A stop that is under way
    /// keeps its own.
    #[must_use]
    pub(crate) fn drained(self, until: Instant) -> Self {
        match self {
            Self::Stopping(own) => Self::Stopping(own.min(until)),
            Self::Serving | Self::Drained(_) => Self::Drained(until),
        }
    }

    /// After the request to stop. A drain that is under way keeps its earlier end.
    #[must_use]
    pub(crate) fn stopping(self, until: Instant) -> Self {
        match self {
            Self::Drained(own) | Self::Stopping(own) => Self::Stopping(own.min(until)),
            Self::Serving => Self::Stopping(until),
        }
    }

    /// After an undrain; `None` when the worker is stopping for good.
    pub(crate) fn undrained(self) -> Option<Self> {
        (!self.is_stopping()).then_some(Self::Serving)
    }

    /// End of the grace period.
    pub(crate) fn until(self) -> Option<Instant> {
        match self {
            Self::Serving => None,
            Self::Drained(until) | Self::Stopping(until) => Some(until),
        }
    }

    /// Whether what still runs must be handed over now.
    pub(crate) fn is_over(self, now: Instant) -> bool {
        self.until().is_some_and(|until| until <= now)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_drain_can_be_undone_and_a_stop_cannot() {
        let now = Instant::now();
        let drained = Drain::Serving.drained(now);
        assert!(drained.is_draining() && !drained.is_stopping());
        assert_eq!(drained.undrained(), Some(Drain::Serving));
        let stopping = drained.stopping(now);
        assert!(stopping.is_stopping());
        assert_eq!(stopping.undrained(), None);
        assert!(stopping.drained(now).is_stopping(), "a drain does not undo a stop");
    }

    #[test]
    fn the_earlier_end_counts_when_a_stop_is_involved() {
        let now = Instant::now();
        let at = |s| now + Duration::from_secs(s);
        assert_eq!(Drain::Serving.drained(at(5)).drained(at(9)), Drain::Drained(at(9)));
        assert_eq!(Drain::Serving.drained(at(5)).stopping(at(30)), Drain::Stopping(at(5)));
        assert_eq!(Drain::Serving.stopping(at(30)).drained(at(1)), Drain::Stopping(at(1)));
        assert_eq!(Drain::Serving.stopping(at(3)).stopping(at(30)), Drain::Stopping(at(3)));
    }

    #[test]
    fn the_grace_period_ends() {
        let now = Instant::now();
        assert!(!Drain::Serving.is_over(now));
        assert!(Drain::Drained(now).is_over(now));
        assert!(!Drain::Drained(now + Duration::from_secs(1)).is_over(now));
    }
}
