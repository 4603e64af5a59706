//! What each worker may cost the coordinator over time. A worker that exceeds its share is read less often, and its
//! changes wait for the next regular snapshot; the others notice nothing.

use std::collections::HashMap;
use std::time::Instant;

use tokenbus_protocol::Name;

use crate::limits::{CHANGES_BURST, CHANGES_RATE, MAX_WORKERS, STATUSES_BURST, STATUSES_RATE};
use crate::pacer::Urgency;
use crate::registry::Change;

/// The allowances of all workers.
#[derive(Debug, Default)]
pub(crate) struct Allowances(HashMap<Name, Allowance>);

/// What one worker has left.
#[derive(Debug)]
struct Allowance {
    /// Statuses to read.
    statuses: f64,
    /// Events to publish, and changes to publish at once.
    changes: f64,
    at: Instant,
}

impl Allowance {
    fn full(now: Instant) -> Self {
        Self {
            statuses: STATUSES_BURST,
            changes: CHANGES_BURST,
            at: now,
        }
    }

    fn refill(&mut self, now: Instant) {
        let seconds = now.saturating_duration_since(self.at).as_secs_f64();
        self.statuses = (self.statuses + seconds * STATUSES_RATE).min(STATUSES_BURST);
        self.changes = (self.changes + seconds * CHANGES_RATE).min(CHANGES_BURST);
        self.at = now;
    }

    fn is_full(&self) -> bool {
        self.statuses >= STATUSES_BURST && self.changes >= CHANGES_BURST
    }
}

impl Allowances {
    /// Whether another status of `worker` is read now.
    pub(crate) fn status(&mut self, worker: &Name, now: Instant) -> bool {
        let Some(left) = self.left(worker, now) else {
            return false;
        };
        let some = left.statuses >= 1.0;
        if some {
            left.statuses -= 1.0;
        }
        some
    }

    /// What is published now of a change that a status of `worker` made. The next snapshot shows the rest.
    pub(crate) fn change(&mut self, worker: &Name, change: Change, now: Instant) -> Change {
        if change.happenings.is_empty() && change.urgency == Urgency::Periodic {
            return change;
        }
        let cost = 1.0 + change.happenings.len() as f64;
        match self.left(worker, now) {
            Some(left) if left.changes >= cost => {
                left.changes -= cost;
                change
            }
            _ => Change::default(),
        }
    }

    /// `None` for a worker beyond [`MAX_WORKERS`].
    fn left(&mut self, worker: &Name, now: Instant) -> Option<&mut Allowance> {
        if self.0.len() >= MAX_WORKERS && !self.0.contains_key(worker) {
            self.0.retain(|_, left| {
                left.refill(now);
                !left.is_full()
            });
            if self.0.len() >= MAX_WORKERS {
                return None;
            }
        }
        let left = self.0.entry(worker.clone()).or_insert_with(|| Allowance::full(now));
        left.refill(now);
        Some(left)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tokenbus_protocol::EventKind;

    use super::*;
    use crate::registry::Happening;
    use crate::registry::fixture::at;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    fn appeared(models: usize) -> Change {
        let happening = Happening {
            kind: EventKind::ModelAppeared,
            worker: None,
            model: Some("m".to_owned()),
        };
        Change {
            happenings: vec![happening; models],
            urgency: Urgency::Structure,
        }
    }

    #[test]
    fn a_worker_that_floods_is_read_less_often_and_the_others_are_not() {
        let mut allowances = Allowances::default();
        let flood = |allowances: &mut Allowances, from: f64| {
            let tries = (0..1000).map(|n| at(from + f64::from(n) / 1000.0));
            tries.filter(|now| allowances.status(&name("a"), *now)).count() as f64
        };
        assert!(flood(&mut allowances, 0.0) <= STATUSES_BURST + STATUSES_RATE);
        assert!(flood(&mut allowances, 1.0) <= STATUSES_RATE + 1.0);
        assert!((0..30).all(|n| allowances.status(&name("b"), at(2.0 + f64::from(n)))));
    }

    #[test]
    fn changes_beyond_the_share_wait_for_the_next_snapshot() {
        let mut allowances = Allowances::default();
        let mut published = 0;
        for n in 0..24 {
            let change = allowances.change(&name("a"), appeared(256), at(f64::from(n) / 100.0));
            published += change.happenings.len();
        }
        assert!(published as f64 <= CHANGES_BURST, "{published}");
        assert_eq!(allowances.change(&name("a"), appeared(256), at(1.0)), Change::default());
        assert_eq!(allowances.change(&name("b"), appeared(2), at(1.0)), appeared(2));
    }

    #[test]
    fn invented_names_do_not_take_memory() {
        let mut allowances = Allowances::default();
        for n in 0..=MAX_WORKERS {
            allowances.status(&name(&format!("w{n}")), at(0.0));
        }
        assert_eq!(allowances.0.len(), MAX_WORKERS);
        assert!(allowances.status(&name("later"), at(60.0)));
        assert_eq!(allowances.0.len(), 1, "who has its whole share need not be remembered");
    }
}
