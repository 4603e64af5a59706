//! How long to wait for a worker's answer, by how fast its earlier answers came.

use tokenbus_protocol::SmoothedTime;
use tokio::time::{Duration, Instant};

use crate::limits::{ACCEPT_MAX, ACCEPT_MIN, MEASUREMENTS};

/// The smoothed answer time of one worker. The patience is the mean plus its margin, or plus [`ACCEPT_MIN`] where that
/// is more, and [`ACCEPT_MAX`] at most. Each worker has its own, because links differ.
///
/// Every sample is unambiguous (Karn's rule): an `Accepted` names its attempt, and a pong its ping. Only one answer
/// counts per round trip: a hundred answers in one message are one measurement, and would hide how much the link
/// varies.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct AcceptClock {
    time: Option<SmoothedTime>,
    /// Answers seen, counted up to [`MEASUREMENTS`].
    seen: u32,
    /// When the newest answer came.
    at: Option<Instant>,
}

impl AcceptClock {
    /// The answer to what was `asked` came at `now`. An answer that took longer than [`ACCEPT_MAX`] came from a process
    /// that hung, and says nothing about the link.
    pub(crate) fn observe(&mut self, asked: Instant, now: Instant) {
        let took = now.saturating_duration_since(asked);
        if took > ACCEPT_MAX || self.at.is_some_and(|at| asked < at) {
            return;
        }
        self.at = Some(now);
        self.seen = self.seen.saturating_add(1).min(MEASUREMENTS);
        match &mut self.time {
            Some(time) => time.observe(took),
            None => self.time = Some(SmoothedTime::new(took)),
        }
    }

    /// Whether enough answers were seen to rely on.
    pub(crate) fn is_set(&self) -> bool {
        self.seen >= MEASUREMENTS
    }

    /// How long to wait; at least `first` until enough answers were seen.
    pub(crate) fn patience(&self, first: Duration) -> Duration {
        // A link with a constant delay has no deviation, but a busy machine adds some delay.
        let measured = |time: SmoothedTime| time.mean() + ACCEPT_MIN.max(time.margin());
        let least = if self.is_set() { ACCEPT_MIN } else { first };
        self.time.map_or(first, measured).max(least).min(ACCEPT_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::ACCEPT_FIRST;

    fn after(times: &[u64]) -> Duration {
        let (mut clock, mut now) = (AcceptClock::default(), Instant::now());
        for took in times {
            let asked = now;
            now += Duration::from_millis(*took);
            clock.observe(asked, now);
        }
        clock.patience(ACCEPT_FIRST)
    }

    #[test]
    fn answers_of_one_round_trip_count_once() {
        let (mut clock, asked) = (AcceptClock::default(), Instant::now());
        let late = Duration::from_millis(300);
        for _ in 0..100 {
            clock.observe(asked, asked + late);
        }
        assert_eq!(clock.patience(ACCEPT_FIRST), ACCEPT_FIRST);
        assert!(!clock.is_set());
    }

    #[test]
    fn patience_follows_what_is_seen_within_its_bounds() {
        assert_eq!(after(&[]), ACCEPT_FIRST);
        let within = |times: &[u64], from, to| {
            let patience = after(times);
            let wanted = Duration::from_millis(from)..=Duration::from_millis(to);
            assert!(wanted.contains(&patience), "{patience:?}");
        };
        within(&[1; 50], 250, 255);
        within(&[600; 50], 845, 855);
        within(&[3_900; 50], 4_000, 4_000);
        assert_eq!(after(&[1, 3_900, 3_900, 3_900]), ACCEPT_MAX);
    }

    #[test]
    fn a_slow_link_is_known_by_one_answer_and_a_fast_one_by_some() {
        assert!(after(&[600]) > Duration::from_millis(1_200));
        assert_eq!(after(&[1]), ACCEPT_FIRST);
        assert!(after(&[1; MEASUREMENTS as usize]) < ACCEPT_FIRST);
        // A link that became slow, and one that is slow now and then.
        let mut fast = vec![1; 50];
        fast.push(600);
        assert!(after(&fast) > Duration::from_millis(600));
        let jitter: Vec<u64> = (0..50).map(|turn| [0, 300, 600][turn % 3]).collect();
        assert!(after(&jitter) > Duration::from_millis(700));
    }

    #[test]
    fn a_hang_is_no_link() {
        assert_eq!(after(&[1, 1, 1, 1, 8_000]), after(&[1, 1, 1, 1]));
    }
}
