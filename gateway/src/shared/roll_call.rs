//! Who has yet to say, after a reconnect, which of this gateway's streams it has.
//!
//! Frames may have been lost while the connection was away. Where more follow, the hole shows; a
//! stream whose last frames were lost would only be noticed by its silence. So each worker that runs
//! streams of ours is asked, again and again until it answers: it may still be on its way back itself.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokenbus_protocol::Name;
use tokio::time::Instant;

/// Workers that have yet to answer.
#[derive(Debug, Default)]
pub struct RollCall(Mutex<Missing>);

#[derive(Debug, Default)]
struct Missing {
    workers: HashSet<Name>,
    until: Option<Instant>,
}

impl RollCall {
    /// Asks all of `workers`, until `until`; what was asked before is forgotten.
    pub fn begin(&self, workers: impl IntoIterator<Item = Name>, until: Instant) {
        *self.missing() = Missing {
            workers: workers.into_iter().collect(),
            until: Some(until),
        };
    }

    /// `worker` has answered.
    pub fn answered(&self, worker: &Name) {
        self.missing().workers.remove(worker);
    }

    /// Who is to be asked now.
    pub fn due(&self, now: Instant) -> Vec<Name> {
        let mut missing = self.missing();
        if missing.until.is_some_and(|until| now >= until) {
            *missing = Missing::default();
        }
        missing.workers.iter().cloned().collect()
    }

    // A set: a panic elsewhere cannot leave it half-changed.
    fn missing(&self) -> MutexGuard<'_, Missing> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn everyone_is_asked_until_it_answers_or_time_is_over() {
        let (call, now) = (RollCall::default(), Instant::now());
        let name = |text| Name::new(text).unwrap();
        assert!(call.due(now).is_empty());
        call.begin([name("a"), name("b")], now + Duration::from_secs(2));
        assert_eq!(call.due(now).len(), 2);
        call.answered(&name("a"));
        call.answered(&name("c"));
        assert_eq!(call.due(now + Duration::from_secs(1)), [name("b")]);
        assert!(call.due(now + Duration::from_secs(2)).is_empty());
    }
}
