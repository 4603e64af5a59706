//! The registry and the snapshot for the command line, which may have no coordinator at hand.

use std::time::Instant;

use tokenbus_protocol::{Capacity, Name, Status};

use crate::limits::LOST_AFTER;
use crate::registry::Registry;
use crate::scaling::Scaling;
use crate::snapshot::{Stamp, fold};
use crate::waiting::WaitingAtGateways;

/// Makes a snapshot from statuses, as a coordinator would.
#[derive(Debug)]
pub struct Glance {
    registry: Registry,
    scaling: Scaling,
    seq: u64,
}

impl Default for Glance {
    fn default() -> Self {
        Self {
            registry: Registry::new(LOST_AFTER),
            scaling: Scaling::default(),
            seq: 0,
        }
    }
}

impl Glance {
    /// Takes a status that came at `now`; skips late and repeated ones.
    pub fn observe(&mut self, status: Status, now: Instant) {
        // A status is refused when a newer one is known, so nothing is lost here.
        let _ = self.registry.observe(status, now);
    }

    /// The capacity at `now` of the workers that were heard within the last three seconds. `by` stands as the
    /// coordinator; `at_ms` is Unix time in milliseconds.
    pub fn capacity(&mut self, by: Name, at_ms: u64, now: Instant) -> Capacity {
        self.registry.tick(now);
        self.seq += 1;
        let stamp = Stamp {
            coordinator: by,
            seq: self.seq,
            at_ms,
        };
        // Only coordinators hear what waits at gateways.
        fold(
            &self.registry,
            &WaitingAtGateways::default(),
            &mut self.scaling,
            stamp,
            now,
        )
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::registry::fixture::{at, status};

    #[test]
    fn it_sees_who_speaks_and_forgets_who_does_not() {
        let mut glance = Glance::default();
        let by = Name::new("me").unwrap();
        glance.observe(status("a", 1, 1), at(0.0));
        glance.observe(status("a", 1, 1), at(0.1));
        assert_eq!(glance.capacity(by.clone(), 5, at(0.5)).workers.len(), 1);
        for quarter in 2..12 {
            glance.capacity(by.clone(), 5, at(f64::from(quarter) / 4.0));
        }
        let later = glance.capacity(by, 5, at(3.0));
        assert!(later.workers.is_empty() && later.models.len() == 1);
    }
}
