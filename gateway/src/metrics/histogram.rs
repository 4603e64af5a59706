//! A histogram that is observed without a lock. The registry's own takes a mutex each time, and inter-token latency is
//! observed at every write.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::{MetricType, TypedMetric};

/// A histogram of durations in seconds; clones share their values.
#[derive(Debug, Clone)]
pub(super) struct Histogram(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    // Each bucket's upper bound in seconds and its own count (not cumulative). The last bound is infinite.
    buckets: Box<[(f64, AtomicU64)]>,
    nanoseconds: AtomicU64,
}

impl Histogram {
    /// A histogram with these upper bounds in seconds, ascending. A last bucket for everything above is added.
    pub(super) fn new(bounds: &[f64]) -> Self {
        let bounds = bounds.iter().copied().chain([f64::INFINITY]);
        Self(Arc::new(Inner {
            buckets: bounds.map(|bound| (bound, AtomicU64::new(0))).collect(),
            nanoseconds: AtomicU64::new(0),
        }))
    }

    /// Counts `times` observations of `value`. Returns the number of their bucket, from 0.
    pub(super) fn observe(&self, value: Duration, times: u64) -> usize {
        let seconds = value.as_secs_f64();
        let bucket = self.0.buckets.iter().take_while(|(bound, _)| seconds > *bound).count();
        if let Some((_, count)) = self.0.buckets.get(bucket) {
            count.fetch_add(times, Ordering::Relaxed);
        }
        let nanoseconds = u64::try_from(value.as_nanos()).unwrap_or(u64::MAX);
        self.0
            .nanoseconds
            .fetch_add(nanoseconds.saturating_mul(times), Ordering::Relaxed);
        bucket
    }

    /// Number of observations.
    #[cfg(test)]
    pub(super) fn count(&self) -> u64 {
        self.0
            .buckets
            .iter()
            .map(|(_, count)| count.load(Ordering::Relaxed))
            .sum()
    }
}

impl TypedMetric for Histogram {
    const TYPE: MetricType = MetricType::Histogram;
}

impl EncodeMetric for Histogram {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        let load = |(bound, count): &(f64, AtomicU64)| (*bound, count.load(Ordering::Relaxed));
        let buckets: Vec<(f64, u64)> = self.0.buckets.iter().map(load).collect();
        // The count must match the buckets that were just read.
        let count = buckets.iter().map(|(_, count)| count).sum();
        let sum = Duration::from_nanos(self.0.nanoseconds.load(Ordering::Relaxed)).as_secs_f64();
        encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use prometheus_client::registry::Registry;

    use super::*;

    #[test]
    fn observations_fall_into_their_buckets() {
        let histogram = Histogram::new(&[0.1, 1.0]);
        let mut registry = Registry::default();
        registry.register("h", "help", histogram.clone());
        histogram.observe(Duration::from_millis(100), 1);
        histogram.observe(Duration::from_millis(500), 4);
        histogram.observe(Duration::from_secs(3), 1);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for line in [
            "# TYPE h histogram",
            "h_sum 5.1",
            "h_count 6",
            "h_bucket{le=\"0.1\"} 1",
            "h_bucket{le=\"1.0\"} 5",
            "h_bucket{le=\"+Inf\"} 6",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} in {text}");
        }
        assert_eq!(histogram.count(), 6);
    }
}
