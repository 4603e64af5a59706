//! How long to wait for an `Accepted`, adapted to what is seen.

use std::time::Duration;

use crate::limits::{ACCEPT_MAX, ACCEPT_MIN};

/// A smoothed answer time and its deviation, as TCP's retransmission timer keeps them (RFC 6298):
/// the patience is the mean and four deviations, within [`ACCEPT_MIN`] and [`ACCEPT_MAX`].
#[derive(Debug, Clone, Copy, Default)]
pub struct AcceptClock {
    mean: Option<Duration>,
    deviation: Duration,
}

impl AcceptClock {
    /// An `Accepted` came this long after its publish.
    pub fn observe(&mut self, took: Duration) {
        let Some(mean) = self.mean else {
            self.mean = Some(took);
            self.deviation = took / 2;
            return;
        };
        self.deviation = (self.deviation * 3 + mean.abs_diff(took)) / 4;
        self.mean = Some((mean * 7 + took) / 8);
    }

    /// How long to wait.
    pub fn patience(&self) -> Duration {
        (self.mean.unwrap_or_default() + self.deviation * 4).clamp(ACCEPT_MIN, ACCEPT_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_follows_what_is_seen_within_its_bounds() {
        let mut clock = AcceptClock::default();
        assert_eq!(clock.patience(), ACCEPT_MIN);
        for _ in 0..50 {
            clock.observe(Duration::from_millis(1));
        }
        assert_eq!(clock.patience(), ACCEPT_MIN);
        for _ in 0..50 {
            clock.observe(Duration::from_millis(600));
        }
        assert!(clock.patience() > Duration::from_millis(590), "{:?}", clock.patience());
        for _ in 0..50 {
            clock.observe(Duration::from_secs(30));
        }
        assert_eq!(clock.patience(), ACCEPT_MAX);
    }
}
