//! What became of the streams that left a worker before their end, kept for a while for display. Pure.

use std::collections::HashMap;

use tokenbus_protocol::{Name, StreamsLeft};
use tokio::time::Instant;

use crate::limits::{LEFT_KEPT, LEFT_WORKERS};

/// Streams that left a worker, by worker.
#[derive(Debug, Default)]
pub(crate) struct Left(HashMap<Name, Counts>);

#[derive(Debug)]
struct Counts {
    moved: u32,
    failed: u32,
    at: Instant,
}

impl Left {
    /// A stream left `worker`: another one took it over (`moved`), or it ended with an error.
    pub(crate) fn note(&mut self, worker: &Name, moved: bool, now: Instant) {
        self.forget(now);
        if self.0.len() >= LEFT_WORKERS && !self.0.contains_key(worker) {
            return;
        }
        let counts = self.0.entry(worker.clone()).or_insert(Counts {
            moved: 0,
            failed: 0,
            at: now,
        });
        let count = if moved { &mut counts.moved } else { &mut counts.failed };
        *count = count.saturating_add(1);
        counts.at = now;
    }

    /// The worker takes streams: what left an earlier life of it is no news any more.
    pub(crate) fn back(&mut self, worker: &Name) {
        self.0.remove(worker);
    }

    /// All that is kept at `now`.
    pub(crate) fn told(&mut self, now: Instant) -> Vec<StreamsLeft> {
        self.forget(now);
        let told = self.0.iter().map(|(worker, counts)| StreamsLeft {
            worker: worker.clone(),
            moved: counts.moved,
            failed: counts.failed,
        });
        told.collect()
    }

    fn forget(&mut self, now: Instant) {
        self.0.retain(|_, counts| now < counts.at + LEFT_KEPT);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_kept_for_a_while_and_until_the_worker_is_back() {
        let (start, mut left) = (Instant::now(), Left::default());
        let name = |text: &str| Name::new(text).unwrap();
        left.note(&name("w"), true, start);
        left.note(&name("w"), false, start);
        left.note(&name("v"), true, start);
        left.back(&name("v"));
        let counts = StreamsLeft {
            worker: name("w"),
            moved: 1,
            failed: 1,
        };
        assert_eq!(left.told(start), [counts]);
        assert_eq!(left.told(start + LEFT_KEPT), []);
        for number in 0..2 * LEFT_WORKERS {
            left.note(&name(&format!("w{number}")), true, start);
        }
        assert_eq!(left.told(start).len(), LEFT_WORKERS);
    }
}
