//! When the next snapshot is due.
//!
//! A snapshot is due every second, in the rhythm of all that this process does each second. A change of structure (a worker joins, leaves, is lost, or changes its state,
//! models or slots) makes it due at once, at most 20 times a second: the first change goes out immediately, and the
//! changes within the gap go out together at its end. A worker that becomes full or has a free slot again makes it
//! due 250 ms after the last snapshot. Other changes of load wait for the next second.

use std::time::Instant;

use tokenbus_bus::Rhythm;

use crate::limits::{GAP_PER_WORKER, ROOM_GAP, SNAPSHOT_PERIOD, STRUCTURE_GAP};

/// How soon a change should be published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) enum Urgency {
    /// With the next regular snapshot.
    #[default]
    Periodic,
    /// A worker became full or has a free slot again.
    Room,
    /// A worker joined, left or changed.
    Structure,
}

/// Decides when the next snapshot is due.
#[derive(Debug)]
pub(crate) struct Pacer {
    last: Option<Instant>,
    due: Instant,
    rhythm: Rhythm,
}

impl Pacer {
    /// The first snapshot is due at `first`, the regular ones in `rhythm`.
    pub(crate) fn new(first: Instant, rhythm: Rhythm) -> Self {
        Self {
            last: None,
            due: first,
            rhythm,
        }
    }

    /// When the next snapshot is due.
    pub(crate) fn due(&self) -> Instant {
        self.due
    }

    /// Nothing is due before `first`.
    pub(crate) fn postpone(&mut self, first: Instant) {
        self.due = self.due.max(first);
    }

    /// Something changed, in a cluster of `workers`.
    pub(crate) fn note(&mut self, urgency: Urgency, workers: usize, now: Instant) {
        let load = GAP_PER_WORKER.saturating_mul(u32::try_from(workers).unwrap_or(u32::MAX));
        let gap = match urgency {
            Urgency::Periodic => return,
            Urgency::Room => ROOM_GAP + load,
            Urgency::Structure => STRUCTURE_GAP + load,
        };
        let earliest = self.last.map_or(now, |last| (last + gap).max(now));
        self.due = self.due.min(earliest);
    }

    /// A snapshot was made at `now`.
    pub(crate) fn sent(&mut self, now: Instant) {
        self.due = self.rhythm.after(now, SNAPSHOT_PERIOD);
        self.last = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn sent(at: Instant) -> Pacer {
        let mut pacer = Pacer::new(at, Rhythm::new(at));
        pacer.sent(at);
        pacer
    }

    #[test]
    fn without_changes_there_is_one_a_second_and_timers_do_not_make_it_drift() {
        let start = Instant::now();
        let mut pacer = Pacer::new(start, Rhythm::new(start));
        for second in 0..60_u32 {
            assert_eq!(pacer.due(), start + second * SNAPSHOT_PERIOD);
            pacer.sent(pacer.due() + 3 * MS);
        }
    }

    #[test]
    fn after_a_long_sleep_snapshots_do_not_come_in_a_burst() {
        let start = Instant::now();
        let mut pacer = Pacer::new(start, Rhythm::new(start));
        let woken = start + Duration::from_secs(30);
        pacer.sent(woken);
        assert_eq!(pacer.due(), woken + SNAPSHOT_PERIOD);
    }

    #[test]
    fn a_change_is_told_at_once_and_the_next_ones_together() {
        let start = Instant::now();
        let mut pacer = sent(start);
        let change = start + 500 * MS;
        pacer.note(Urgency::Structure, 0, change);
        assert_eq!(pacer.due(), change);
        pacer.sent(change);
        for late in 1..40 {
            pacer.note(Urgency::Structure, 0, change + late * MS);
        }
        assert_eq!(pacer.due(), change + STRUCTURE_GAP);
    }

    #[test]
    fn changes_all_the_time_make_twenty_snapshots_a_second() {
        let start = Instant::now();
        let mut pacer = sent(start);
        let mut count = 0;
        for ms in 0..10_000 {
            let now = start + ms * MS;
            pacer.note(Urgency::Structure, 0, now);
            if pacer.due() <= now {
                pacer.sent(now);
                count += 1;
            }
        }
        assert!((190..=200).contains(&count), "{count}");
    }

    #[test]
    fn room_is_told_within_a_quarter_second_and_load_waits() {
        let start = Instant::now();
        let mut pacer = sent(start);
        pacer.note(Urgency::Periodic, 0, start + 10 * MS);
        assert_eq!(pacer.due(), start + SNAPSHOT_PERIOD);
        pacer.note(Urgency::Room, 0, start + 10 * MS);
        assert_eq!(pacer.due(), start + ROOM_GAP);
        pacer.note(Urgency::Structure, 0, start + 20 * MS);
        assert_eq!(pacer.due(), start + STRUCTURE_GAP);
    }

    #[test]
    fn a_note_never_makes_it_later_and_large_clusters_are_told_less_often() {
        let start = Instant::now();
        let mut pacer = sent(start);
        pacer.note(Urgency::Room, 0, start + 999 * MS);
        assert_eq!(pacer.due(), start + 999 * MS);
        let mut pacer = sent(start);
        pacer.note(Urgency::Structure, 10_000, start + MS);
        assert_eq!(pacer.due(), start + 300 * MS);
    }

    #[test]
    fn nothing_is_due_before_the_coordinator_is_warm() {
        let start = Instant::now();
        let mut pacer = Pacer::new(start, Rhythm::new(start));
        pacer.postpone(start + SNAPSHOT_PERIOD);
        assert_eq!(pacer.due(), start + SNAPSHOT_PERIOD);
        pacer.postpone(start);
        assert_eq!(pacer.due(), start + SNAPSHOT_PERIOD);
    }
}
