//! When the requests of an open loop are due.

use std::time::Duration;

use super::args::Arrivals;

/// The due times of one thread's requests, from the start of the run; endless.
#[derive(Debug)]
pub(crate) struct DueTimes {
    arrivals: Arrivals,
    rate: f64,
    random: fastrand::Rng,
    next: f64,
}

impl DueTimes {
    /// The share of thread `index` of `threads` in `rate` requests a second. With constant arrivals the threads take
    /// turns. With Poisson arrivals each thread is random by itself; their sum is a Poisson process again.
    pub(crate) fn new(arrivals: Arrivals, rate: f64, seed: u64, index: u32, threads: u32) -> Self {
        let mut due = Self {
            arrivals,
            rate: rate / f64::from(threads.max(1)),
            random: fastrand::Rng::with_seed(seed.wrapping_add(u64::from(index))),
            next: f64::from(index) / rate,
        };
        if arrivals == Arrivals::Poisson {
            due.next = due.gap();
        }
        due
    }

    fn gap(&mut self) -> f64 {
        match self.arrivals {
            Arrivals::Constant => self.rate.recip(),
            // 1 - [0, 1) is never 0, so its logarithm is finite.
            Arrivals::Poisson => -(1.0 - self.random.f64()).ln() / self.rate,
        }
    }
}

impl Iterator for DueTimes {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let due = self.next;
        self.next += self.gap();
        Duration::try_from_secs_f64(due).ok()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn constant_threads_take_turns() {
        let mut all: Vec<Duration> = (0..4)
            .flat_map(|i| DueTimes::new(Arrivals::Constant, 100.0, 1, i, 4).take(25))
            .collect();
        all.sort_unstable();
        for (n, due) in all.iter().enumerate() {
            assert!(due.abs_diff(Duration::from_millis(10) * u32::try_from(n).unwrap()) < Duration::from_micros(1));
        }
    }

    #[test]
    fn poisson_has_its_rate_and_its_spread_and_is_repeatable() {
        let draw = |seed| {
            DueTimes::new(Arrivals::Poisson, 50.0, seed, 0, 1)
                .take(20_000)
                .collect::<Vec<_>>()
        };
        let due = draw(7);
        assert_eq!(due, draw(7));
        assert_ne!(due, draw(8));
        let gaps: Vec<f64> = due.windows(2).map(|w| (w[1] - w[0]).as_secs_f64()).collect();
        let count = 19_999.0;
        let mean = gaps.iter().sum::<f64>() / count;
        let variance = gaps.iter().map(|g| (g - mean).powi(2)).sum::<f64>() / count;
        assert!((mean - 0.02).abs() < 0.001, "{mean}");
        assert!((variance.sqrt() - 0.02).abs() < 0.002, "{variance}");
    }
}
