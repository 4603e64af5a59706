//! What must happen when: a sorted set of times.

use std::collections::BTreeSet;
use std::time::Instant;

use uuid::Uuid;

/// What a timer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Due {
    /// The client stops waiting for this request.
    Deadline(Uuid),
    /// A part of this request's body is missing for too long.
    Parts(Uuid),
    /// Streams that still run are handed over.
    Grace,
    /// Nobody took a slot that was offered.
    Offer,
}

/// Times to come, earliest first.
#[derive(Debug, Default)]
pub(crate) struct Timers(BTreeSet<(Instant, Due)>);

impl Timers {
    /// Adds a timer.
    pub(crate) fn set(&mut self, at: Instant, due: Due) {
        self.0.insert((at, due));
    }

    /// Removes a timer; the time must be the one it was set for.
    pub(crate) fn clear(&mut self, at: Instant, due: Due) {
        self.0.remove(&(at, due));
    }

    /// When the next one is due.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.0.first().map(|(at, _)| *at)
    }

    /// Takes one that is due.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<Due> {
        if self.next()? > now {
            return None;
        }
        self.0.pop_first().map(|(_, due)| due)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn they_come_in_order_and_not_early() {
        let now = Instant::now();
        let at = |s| now + Duration::from_secs(s);
        let mut timers = Timers::default();
        timers.set(at(3), Due::Grace);
        timers.set(at(1), Due::Deadline(Uuid::nil()));
        timers.set(at(2), Due::Parts(Uuid::nil()));
        assert_eq!(timers.next(), Some(at(1)));
        assert_eq!(timers.pop(now), None);
        timers.clear(at(2), Due::Parts(Uuid::nil()));
        assert_eq!(timers.pop(at(5)), Some(Due::Deadline(Uuid::nil())));
        assert_eq!(timers.pop(at(5)), Some(Due::Grace));
        assert_eq!(timers.pop(at(5)), None);
    }
}
