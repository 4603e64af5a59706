//! How far a worker's word on its free slots is believed after it refused requests.
//!
//! A worker that says it has room and refuses what it gets would otherwise be sent the same requests again and again,
//! as fast as the bus carries them.

use tokio::time::Instant;

use crate::limits::{REFUSED_FIRST, REFUSED_LONGEST};

/// The refusals of one worker since it last took a request.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Refusals {
    in_a_row: u32,
    until: Option<Instant>,
}

impl Refusals {
    /// The worker refused a request. The first time it may just have become full. From then on, each refusal doubles the
    /// pause.
    pub(super) fn refused(&mut self, now: Instant) {
        if self.pause(now) {
            return; // it was sent before the pause
        }
        self.in_a_row = self.in_a_row.saturating_add(1);
        if let Some(doublings) = self.in_a_row.checked_sub(2) {
            let pause = REFUSED_FIRST.saturating_mul(1_u32.checked_shl(doublings).unwrap_or(u32::MAX));
            self.until = Some(now + pause.min(REFUSED_LONGEST));
        }
    }

    /// The worker took a request.
    pub(super) fn accepted(&mut self) {
        *self = Self::default();
    }

    /// Whether the worker gets nothing now.
    pub(super) fn pause(self, now: Instant) -> bool {
        self.until.is_some_and(|until| now < until)
    }

    /// How many of the free slots of which the worker tells are believed: after a pause one, until it takes a request.
    pub(super) fn believed(self, free: u32, now: Instant) -> u32 {
        if self.pause(now) {
            0
        } else if self.until.is_some() {
            free.min(1)
        } else {
            free
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_first_refusal_changes_nothing_and_the_next_ones_double_the_pause() {
        let (mut refusals, mut now) = (Refusals::default(), Instant::now());
        refusals.refused(now);
        assert_eq!(refusals.believed(9, now), 9);
        let mut sent = 0;
        let end = now + Duration::from_secs(60);
        while now < end {
            // It always says that it has room, and takes nothing.
            if refusals.believed(9, now) > 0 {
                sent += 1;
                refusals.refused(now);
                refusals.refused(now);
            }
            now += Duration::from_millis(1);
        }
        assert!((60..75).contains(&sent), "{sent} a minute");
    }

    #[test]
    fn one_request_is_tried_after_a_pause_and_ends_the_mistrust_if_it_is_taken() {
        let (mut refusals, now) = (Refusals::default(), Instant::now());
        refusals.refused(now);
        refusals.refused(now);
        assert_eq!(refusals.believed(9, now), 0);
        let later = now + REFUSED_FIRST;
        assert_eq!(refusals.believed(9, later), 1);
        refusals.accepted();
        assert_eq!(refusals.believed(9, later), 9);
    }
}
