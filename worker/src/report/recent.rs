//! Latency quantiles and rates of the last few seconds.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokenbus_protocol::Quantiles;

use crate::limits::LATENCY_MAX;

/// Two significant digits: a quantile is within 1 %.
const DIGITS: u8 = 2;

/// Latencies of the last window: two histograms of half a window each, of which the older is
/// dropped whole.
#[derive(Debug)]
pub(crate) struct Latencies {
    current: Option<Histogram<u64>>,
    previous: Option<Histogram<u64>>,
    half: Duration,
    since: Instant,
}

impl Latencies {
    /// Quantiles over about `window`.
    pub(crate) fn new(window: Duration, now: Instant) -> Self {
        Self {
            current: histogram(),
            previous: histogram(),
            half: window / 2,
            since: now,
        }
    }

    /// Books `count` equal latencies.
    pub(crate) fn record(&mut self, latency: Duration, count: u32, now: Instant) {
        self.turn(now);
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        if let Some(histogram) = &mut self.current {
            histogram.saturating_record(micros);
            if let Some(more) = u64::from(count).checked_sub(1).filter(|more| *more > 0) {
                histogram.saturating_record_n(micros, more);
            }
        }
    }

    /// The quantiles in milliseconds; all 0 when nothing was measured lately.
    pub(crate) fn quantiles(&mut self, now: Instant) -> Quantiles {
        self.turn(now);
        let Some(mut all) = self.current.clone() else {
            return Quantiles::default();
        };
        if let Some(previous) = &self.previous {
            // Both have the same bounds, so adding cannot fail.
            let _ = all.add(previous);
        }
        if all.is_empty() {
            return Quantiles::default();
        }
        let milliseconds = |quantile| Duration::from_micros(all.value_at_quantile(quantile)).as_secs_f64() * 1e3;
        Quantiles {
            p50: milliseconds(0.5),
            p90: milliseconds(0.9),
            p99: milliseconds(0.99),
        }
    }

    fn turn(&mut self, now: Instant) {
        let age = now.saturating_duration_since(self.since);
        if age < self.half {
            return;
        }
        std::mem::swap(&mut self.current, &mut self.previous);
        if let Some(histogram) = &mut self.current {
            histogram.reset();
        }
        if age >= self.half * 2
            && let Some(histogram) = &mut self.previous
        {
            histogram.reset();
        }
        self.since = now;
    }
}

fn histogram() -> Option<Histogram<u64>> {
    let max = u64::try_from(LATENCY_MAX.as_micros()).unwrap_or(u64::MAX);
    Histogram::new_with_bounds(1, max, DIGITS).ok()
}

/// The rate of a growing count over the last window.
#[derive(Debug)]
pub(crate) struct Rate {
    samples: VecDeque<(Instant, u64)>,
    window: Duration,
}

impl Rate {
    /// A rate over `window`.
    pub(crate) fn new(window: Duration) -> Self {
        Self {
            samples: VecDeque::new(),
            window,
        }
    }

    /// Notes the count at this moment and returns how much it grew per second. Samples closer
    /// than a tenth of the window replace each other, so that their number is bounded.
    pub(crate) fn sample(&mut self, now: Instant, count: u64) -> f64 {
        let close = |at: &Instant| now.saturating_duration_since(*at) < self.window / 10;
        if self.samples.len() < 2 || !self.samples.iter().nth_back(1).is_some_and(|(at, _)| close(at)) {
            self.samples.push_back((now, count));
        } else if let Some(last) = self.samples.back_mut() {
            *last = (now, count);
        }
        // The oldest sample kept is the last one at or before the window's begin.
        while let Some((second, _)) = self.samples.get(1) {
            if now.saturating_duration_since(*second) < self.window {
                break;
            }
            self.samples.pop_front();
        }
        match self.samples.front() {
            Some((at, first)) if now > *at => {
                // A few thousand tokens a second over seconds: far below the 2^53 of an f64.
                #[allow(clippy::cast_precision_loss)]
                let grown = count.saturating_sub(*first) as f64;
                grown / now.saturating_duration_since(*at).as_secs_f64()
            }
            _ => 0.0,
        }
    }
}

#[cfg(test)]
#[allow(clippy::float_cmp)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_in_milliseconds_and_near() {
        let now = Instant::now();
        let mut l = Latencies::new(Duration::from_secs(30), now);
        assert_eq!(l.quantiles(now), Quantiles::default());
        for ms in 1..=100 {
            l.record(Duration::from_millis(ms), 1, now);
        }
        let q = l.quantiles(now);
        assert!((q.p50 - 50.0).abs() < 1.5, "{q:?}");
        assert!((q.p90 - 90.0).abs() < 2.0, "{q:?}");
        assert!((q.p99 - 99.0).abs() < 2.0, "{q:?}");
    }

    #[test]
    fn a_latency_of_several_tokens_counts_for_each() {
        let now = Instant::now();
        let mut l = Latencies::new(Duration::from_secs(30), now);
        l.record(Duration::from_millis(1), 1, now);
        l.record(Duration::from_millis(100), 9, now);
        assert!(l.quantiles(now).p50 > 90.0);
    }

    #[test]
    fn what_is_old_is_forgotten_and_not_too_early() {
        let now = Instant::now();
        let at = |s| now + Duration::from_secs(s);
        let mut l = Latencies::new(Duration::from_secs(30), now);
        l.record(Duration::from_millis(10), 1, at(14));
        assert!(l.quantiles(at(16)).p50 > 9.0, "in the older half");
        assert_eq!(l.quantiles(at(31)), Quantiles::default());
        l.record(Duration::from_millis(10), 1, at(32));
        assert_eq!(l.quantiles(at(100)), Quantiles::default(), "after a long silence");
    }

    #[test]
    fn a_latency_beyond_the_largest_is_kept_at_the_largest() {
        let now = Instant::now();
        let mut l = Latencies::new(Duration::from_secs(30), now);
        l.record(Duration::from_hours(5), 1, now);
        assert!(l.quantiles(now).p50 > 500_000.0);
    }

    #[test]
    fn a_rate_follows_the_window() {
        let now = Instant::now();
        let mut rate = Rate::new(Duration::from_secs(5));
        assert_eq!(rate.sample(now, 0), 0.0);
        for s in 1..=10_u64 {
            let r = rate.sample(now + Duration::from_secs(s), s * 100);
            assert!((r - 100.0).abs() < 1e-6, "{r}");
        }
        let later = now + Duration::from_secs(16);
        assert!(rate.sample(later, 1000) < 100.0);
        assert_eq!(rate.sample(later + Duration::from_secs(6), 1000), 0.0);
    }

    #[test]
    fn samples_are_bounded() {
        let now = Instant::now();
        let mut rate = Rate::new(Duration::from_secs(5));
        for ms in 0..100_000_u64 {
            rate.sample(now + Duration::from_millis(ms), ms);
        }
        assert!(rate.samples.len() < 30, "{}", rate.samples.len());
    }
}
