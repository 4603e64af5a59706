//! The inter-token latency of one request. Each observation counts for its model's histogram and for the request.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::histogram::Histogram;

/// Upper bounds of the inter-token latency's buckets, seconds.
pub(super) const ITL_BUCKETS: [f64; 11] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0];

/// The counts of one request, one for each bucket and one for everything above; clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct OwnPace(Arc<[AtomicU32; ITL_BUCKETS.len() + 1]>);

/// Where the inter-token latency of one request is recorded; clones share their values.
#[derive(Debug, Clone)]
pub struct Pace {
    model: Histogram,
    own: OwnPace,
}

impl Pace {
    pub(super) fn new(model: &Histogram, own: &OwnPace) -> Self {
        Self {
            model: model.clone(),
            own: own.clone(),
        }
    }

    /// Counts `times` observations of `value`.
    pub fn observe(&self, value: Duration, times: u64) {
        observe(&self.model, &self.own, value, times);
    }

    /// The pace of a request of no model, for tests.
    #[cfg(test)]
    pub(crate) fn alone() -> Self {
        Self::new(&Histogram::new(&ITL_BUCKETS), &OwnPace::default())
    }

    /// Number of observations.
    #[cfg(test)]
    pub(crate) fn count(&self) -> u64 {
        self.model.count()
    }
}

/// Counts `times` observations of `value` for the model and for the request.
pub(super) fn observe(model: &Histogram, own: &OwnPace, value: Duration, times: u64) {
    let bucket = model.observe(value, times);
    if let Some(count) = own.0.get(bucket) {
        count.fetch_add(u32::try_from(times).unwrap_or(u32::MAX), Ordering::Relaxed);
    }
}

impl OwnPace {
    /// The quantile `q`, 0 to 1, with the observations spread evenly over their bucket. `None` without observations.
    pub(super) fn quantile(&self, q: f64) -> Option<Duration> {
        let counts = self.0.each_ref().map(|count| f64::from(count.load(Ordering::Relaxed)));
        let all: f64 = counts.iter().sum();
        if all == 0.0 {
            return None;
        }
        let wanted = q * all;
        let (mut below, mut lower) = (0.0, 0.0);
        for (count, upper) in counts.iter().zip(ITL_BUCKETS) {
            if *count > 0.0 && below + count >= wanted {
                let part = ((wanted - below) / count).clamp(0.0, 1.0);
                return Some(Duration::from_secs_f64(lower + (upper - lower) * part));
            }
            below += count;
            lower = upper;
        }
        Some(Duration::from_secs_f64(lower))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_lies_in_its_bucket() {
        let own = OwnPace::default();
        assert_eq!(own.quantile(0.99), None);
        let pace = Pace::new(&Histogram::new(&ITL_BUCKETS), &own);
        pace.observe(Duration::from_millis(15), 99);
        pace.observe(Duration::from_millis(400), 1);
        assert_eq!(pace.count(), 100);
        assert_eq!(own.quantile(0.99), Some(Duration::from_millis(20)));
        assert_eq!(own.quantile(0.5).map(|time| time.as_millis()), Some(15));
        assert!(own.quantile(1.0).unwrap() > Duration::from_millis(200));
        pace.observe(Duration::from_secs(60), 1000);
        assert_eq!(own.quantile(0.99), Some(Duration::from_secs(5)));
    }
}
