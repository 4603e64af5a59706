//! A smoothed time and how much it varies.

use std::time::Duration;

/// The mean of a measured time and its deviation, smoothed as TCP's retransmission timer does it (RFC 6298).
#[derive(Debug, Clone, Copy, Default)]
pub struct SmoothedTime {
    mean: Duration,
    deviation: Duration,
}

impl SmoothedTime {
    /// Starts with one sample: half of it counts as the deviation.
    pub fn new(sample: Duration) -> Self {
        Self {
            mean: sample,
            deviation: sample / 2,
        }
    }

    /// Adds a sample.
    pub fn observe(&mut self, sample: Duration) {
        self.deviation = (self.deviation * 3 + self.mean.abs_diff(sample)) / 4;
        self.mean = (self.mean * 7 + sample) / 8;
    }

    /// The smoothed time.
    pub fn mean(self) -> Duration {
        self.mean
    }

    /// By how much samples may exceed the mean: four deviations.
    pub fn margin(self) -> Duration {
        self.deviation * 4
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_steady_time_has_no_margin_in_the_end() {
        let mut time = SmoothedTime::new(MS * 100);
        assert_eq!((time.mean(), time.margin()), (MS * 100, MS * 200));
        for _ in 0..50 {
            time.observe(MS * 100);
        }
        assert!(time.mean() == MS * 100 && time.margin() < MS);
    }

    #[test]
    fn a_sample_moves_the_mean_by_an_eighth_and_the_deviation_by_a_quarter() {
        let mut time = SmoothedTime::default();
        time.observe(MS * 800);
        assert_eq!((time.mean(), time.margin()), (MS * 100, MS * 800));
    }
}
