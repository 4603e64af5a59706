//! Counts and histograms of a run. Each thread has its own; they are added up at the end.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

use super::exchange::Outcome;
use super::failure::{Failure, Kind};
use super::limits::{FAILURES_TOLD_APART, HISTOGRAM_MAX_US};

/// Times in µs, to three significant digits.
#[derive(Debug, Clone)]
pub(crate) struct Times(Histogram<u64>);

impl Times {
    fn new() -> Result<Self, hdrhistogram::CreationError> {
        Histogram::new_with_bounds(1, HISTOGRAM_MAX_US, 3).map(Self)
    }

    fn add(&mut self, time: Duration) {
        self.0
            .saturating_record(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    }

    /// The histogram.
    pub(crate) fn histogram(&self) -> &Histogram<u64> {
        &self.0
    }
}

/// A sort of failure: its number and one example.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failures {
    /// Requests with this failure.
    pub(crate) count: u64,
    /// Text of the first of them.
    pub(crate) example: String,
}

/// The counts of one thread, or of all.
#[derive(Debug, Clone)]
pub(crate) struct Stats {
    /// Requests begun.
    pub(crate) started: u64,
    /// Requests that passed.
    pub(crate) succeeded: u64,
    /// Requests that failed.
    pub(crate) failed: u64,
    /// Tokens received, those of failed requests included.
    pub(crate) tokens: u64,
    /// Arrivals of output, those of failed requests included.
    pub(crate) arrivals: u64,
    /// Failures by kind and code.
    pub(crate) failures: BTreeMap<(Kind, String), Failures>,
    /// Time to the first output.
    pub(crate) ttft: Times,
    /// Gaps between arrivals.
    pub(crate) itl: Times,
    /// Mean time per token after the first arrival, one value for each answer.
    pub(crate) tpot: Times,
    /// Time to the end of the answer.
    pub(crate) total: Times,
    /// Delay of the start of requests.
    pub(crate) start_delay: Times,
}

impl Stats {
    /// Empty counts.
    ///
    /// # Errors
    /// Only if the histograms' bounds were wrong.
    pub(crate) fn new() -> Result<Self, hdrhistogram::CreationError> {
        Ok(Self {
            started: 0,
            succeeded: 0,
            failed: 0,
            tokens: 0,
            arrivals: 0,
            failures: BTreeMap::new(),
            ttft: Times::new()?,
            itl: Times::new()?,
            tpot: Times::new()?,
            total: Times::new()?,
            start_delay: Times::new()?,
        })
    }

    /// Counts a request that ended.
    pub(crate) fn add(&mut self, outcome: Outcome, gaps: &[Duration]) {
        self.tokens += outcome.tokens;
        self.arrivals += outcome.arrivals;
        if let Some(ttft) = outcome.ttft {
            self.ttft.add(ttft);
        }
        self.add_gaps(gaps);
        self.start_delay.add(outcome.start_delay);
        if let Some(failure) = outcome.failure {
            self.failed += 1;
            self.add_failure(failure, 1);
            return;
        }
        self.succeeded += 1;
        self.total.add(outcome.total);
        let after_first = outcome.tokens.saturating_sub(1);
        if let Some(decode) = outcome.decode
            && after_first > 0
        {
            let nanos = decode.as_nanos() / u128::from(after_first);
            self.tpot
                .add(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)));
        }
    }

    /// Counts gaps between arrivals.
    pub(crate) fn add_gaps(&mut self, gaps: &[Duration]) {
        for gap in gaps {
            self.itl.add(*gap);
        }
    }

    /// Adds another thread's counts.
    ///
    /// # Errors
    /// Only if the histograms' bounds differed.
    pub(crate) fn merge(&mut self, other: Self) -> Result<(), hdrhistogram::AdditionError> {
        self.started += other.started;
        self.succeeded += other.succeeded;
        self.failed += other.failed;
        self.tokens += other.tokens;
        self.arrivals += other.arrivals;
        self.ttft.0.add(&other.ttft.0)?;
        self.itl.0.add(&other.itl.0)?;
        self.tpot.0.add(&other.tpot.0)?;
        self.total.0.add(&other.total.0)?;
        self.start_delay.0.add(&other.start_delay.0)?;
        for ((kind, code), Failures { count, example }) in other.failures {
            self.add_failure(Failure { kind, code, example }, count);
        }
        Ok(())
    }

    fn add_failure(&mut self, failure: Failure, count: u64) {
        let Failure { kind, code, example } = failure;
        let mut key = (kind, code);
        if self.failures.len() >= FAILURES_TOLD_APART && !self.failures.contains_key(&key) {
            key = (Kind::Other, String::new());
        }
        self.failures.entry(key).or_insert(Failures { count: 0, example }).count += count;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use super::*;

    fn outcome(tokens: u64, failure: Option<Failure>) -> Outcome {
        Outcome {
            failure,
            tokens,
            arrivals: tokens,
            ttft: Some(Duration::from_millis(20)),
            decode: Some(Duration::from_millis(90)),
            total: Duration::from_millis(111),
            start_delay: Duration::ZERO,
        }
    }

    #[test]
    fn counts_and_adds_up() {
        let mut one = Stats::new().unwrap();
        one.add(outcome(10, None), &[Duration::from_millis(10); 9]);
        let mut two = Stats::new().unwrap();
        two.add(outcome(5, Some(Failure::new(Kind::Status, "429", "full"))), &[]);
        two.add(outcome(0, Some(Failure::new(Kind::Status, "429", "full again"))), &[]);
        one.merge(two).unwrap();
        assert_eq!((one.succeeded, one.failed, one.tokens, one.arrivals), (1, 2, 15, 15));
        assert_eq!(one.itl.histogram().len(), 9);
        assert_eq!(one.ttft.histogram().len(), 3);
        assert_eq!(one.total.histogram().len(), 1);
        let tpot = one.tpot.histogram();
        assert!(tpot.equivalent(tpot.max(), 10_000), "{}", tpot.max());
        let failures = &one.failures[&(Kind::Status, "429".to_owned())];
        assert_eq!((failures.count, failures.example.as_str()), (2, "full"));
    }

    #[test]
    fn failures_of_endless_variety_stay_bounded() {
        let mut stats = Stats::new().unwrap();
        for n in 0..1000 {
            stats.add(outcome(0, Some(Failure::new(Kind::Status, n.to_string(), ""))), &[]);
        }
        assert_eq!(stats.failures.len(), FAILURES_TOLD_APART + 1);
        assert_eq!(stats.failures.values().map(|f| f.count).sum::<u64>(), 1000);
    }
}
