//! When a worker that was full tells the gateways that it has room again.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// Models whose requests met a full worker since the last hint.
#[derive(Debug)]
pub(crate) struct Hints {
    refused: BTreeSet<String>,
    last: Option<Instant>,
    gap: Duration,
}

/// What to do about hints.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Hint {
    /// Nothing.
    None,
    /// Tell it for these models now.
    Send(Vec<String>),
    /// Too early after the last one; look again then.
    Later(Instant),
}

impl Hints {
    /// Hints at least `gap` apart.
    pub(crate) fn new(gap: Duration) -> Self {
        Self {
            refused: BTreeSet::new(),
            last: None,
            gap,
        }
    }

    /// A request for `model` was answered `Busy`.
    pub(crate) fn refused(&mut self, model: &str) {
        if !self.refused.contains(model) {
            self.refused.insert(model.to_owned());
        }
    }

    /// Decides, with whether there is room at this moment.
    pub(crate) fn decide(&mut self, now: Instant, room: bool) -> Hint {
        if !room || self.refused.is_empty() {
            return Hint::None;
        }
        if let Some(next) = self.last.map(|last| last + self.gap)
            && next > now
        {
            return Hint::Later(next);
        }
        self.last = Some(now);
        Hint::Send(std::mem::take(&mut self.refused).into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_after_a_refusal_only_with_room_and_not_too_often() {
        let gap = Duration::from_millis(5);
        let mut hints = Hints::new(gap);
        let now = Instant::now();
        assert_eq!(hints.decide(now, true), Hint::None, "nobody was refused");
        hints.refused("b");
        hints.refused("a");
        hints.refused("a");
        assert_eq!(hints.decide(now, false), Hint::None, "still full");
        assert_eq!(hints.decide(now, true), Hint::Send(vec!["a".into(), "b".into()]));
        assert_eq!(hints.decide(now, true), Hint::None, "said once");
        hints.refused("a");
        assert_eq!(hints.decide(now, true), Hint::Later(now + gap));
        assert_eq!(hints.decide(now + gap, true), Hint::Send(vec!["a".into()]));
    }
}
