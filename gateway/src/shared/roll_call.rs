//! The workers that have not yet said, after a reconnect, which of this gateway's streams they hold.
//!
//! Frames may have been lost while the connection was down. If more frames follow, the hole shows. If a stream's last
//! frames were lost, only its silence would show. So the gateway asks each worker that runs its streams, repeatedly
//! until it answers, because the worker may still be reconnecting itself.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokenbus_protocol::Name;
use tokio::time::Instant;

/// Workers that have not answered yet.
#[derive(Debug, Default)]
pub(crate) struct RollCall(Mutex<Missing>);

#[derive(Debug, Default)]
struct Missing {
    workers: HashSet<Name>,
    until: Option<Instant>,
}

impl RollCall {
    /// Starts asking all of `workers`, until `until`. Forgets the previous roll call.
    pub(crate) fn begin(&self, workers: impl IntoIterator<Item = Name>, until: Instant) {
        *self.missing() = Missing {
            workers: workers.into_iter().collect(),
            until: Some(until),
        };
    }

    /// `worker` has answered.
    pub(crate) fn answered(&self, worker: &Name) {
        self.missing().workers.remove(worker);
    }

    /// Whether there is a worker to ask.
    pub(crate) fn is_under_way(&self) -> bool {
        !self.missing().workers.is_empty()
    }

    /// The workers to ask now.
    pub(crate) fn due(&self, now: Instant) -> Vec<Name> {
        let mut missing = self.missing();
        if missing.until.is_some_and(|until| now >= until) {
            *missing = Missing::default();
        }
        missing.workers.iter().cloned().collect()
    }

    // A panic elsewhere cannot leave a set half-changed.
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
