//! The outcome of a load: every stream, and its silences.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::check::Failure;

/// Silences from this length on are kept. Shorter ones are the pace of the engine on a busy machine.
const SILENCE: Duration = Duration::from_millis(200);

/// Most failures of each kind that are shown.
const SHOWN: usize = 4;

/// One stream, from its request to its end.
#[derive(Debug)]
pub struct Sample {
    /// The gateway that answered.
    pub gateway: SocketAddr,
    /// When the first try was sent.
    pub began: Instant,
    /// When the status came.
    pub head: Option<Instant>,
    /// When it ended.
    pub ended: Instant,
    /// Its outcome.
    pub result: Result<(), Failure>,
    /// Number of requests that it took.
    pub tries: usize,
    /// Whether the answer was requested in one piece.
    pub unary: bool,
    /// Times without text longer than 200 ms, including the one before the first text. An answer in one piece has
    /// none: it is silent until complete.
    silences: Vec<(Instant, Instant)>,
    heard: Instant,
    begun: bool,
}

impl Sample {
    pub(super) fn begin(gateway: SocketAddr) -> Self {
        let now = Instant::now();
        Self {
            gateway,
            began: now,
            head: None,
            ended: now,
            result: Ok(()),
            tries: 1,
            unary: false,
            silences: Vec::new(),
            heard: now,
            begun: false,
        }
    }

    /// Records text; returns whether it is the first.
    pub(super) fn text(&mut self, now: Instant) -> bool {
        if now.duration_since(self.heard) >= SILENCE {
            self.silences.push((self.heard, now));
        }
        self.heard = now;
        !std::mem::replace(&mut self.begun, true)
    }

    pub(super) fn end(&mut self) {
        self.ended = Instant::now();
        if self.result.is_err() && !self.unary && self.ended.duration_since(self.heard) >= SILENCE {
            self.silences.push((self.heard, self.ended));
        }
    }

    /// Its first try was at `began`, at a gateway that did not answer.
    pub(super) fn waited_since(&mut self, began: Instant) {
        if let Some(first) = self.silences.first_mut().filter(|first| first.0 == self.began) {
            first.0 = began;
        }
        self.began = began;
    }

    /// How long its client was told to wait before the next try.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self.result {
            Err(Failure::Status { retry_after, .. }) => retry_after.map(Duration::from_secs),
            _ => None,
        }
    }

    /// The longest silence that overlaps `from` to `to`.
    fn silence(&self, from: Instant, to: Instant) -> Option<Duration> {
        let within = self.silences.iter().filter(|(begin, end)| *begin <= to && *end >= from);
        within.map(|(begin, end)| end.duration_since(*begin)).max()
    }
}

/// Quantiles of times.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Quantiles {
    /// Number of times.
    pub count: usize,
    /// The median.
    pub p50: Duration,
    /// 99 of 100 are at most this long.
    pub p99: Duration,
    /// The longest.
    pub max: Duration,
}

impl Quantiles {
    /// The quantiles of `times`.
    pub fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let at = |part: usize| times.get((times.len() * part / 100).min(times.len().saturating_sub(1)));
        Self {
            count: times.len(),
            p50: at(50).copied().unwrap_or_default(),
            p99: at(99).copied().unwrap_or_default(),
            max: times.last().copied().unwrap_or_default(),
        }
    }
}

/// The outcome of a load.
#[derive(Debug)]
pub struct Report {
    /// Every stream.
    pub samples: Vec<Sample>,
    /// Start of the time scale for failures: the start of the first one, unless set.
    pub epoch: Instant,
}

impl Report {
    pub(super) fn new(samples: Vec<Sample>) -> Self {
        let epoch = samples
            .iter()
            .map(|sample| sample.began)
            .min()
            .unwrap_or_else(Instant::now);
        Self { samples, epoch }
    }

    /// Number of complete streams.
    pub fn whole(&self) -> usize {
        self.samples.iter().filter(|sample| sample.result.is_ok()).count()
    }

    /// Failures of streams that `which` picks, by kind.
    pub fn failures(&self, which: impl Fn(&Sample) -> bool) -> BTreeMap<String, Vec<String>> {
        let mut kinds = BTreeMap::<String, Vec<String>>::new();
        for sample in self.samples.iter().filter(|sample| which(sample)) {
            if let Err(failure) = &sample.result {
                let (at, age) = (
                    sample.ended.duration_since(self.epoch),
                    sample.ended.duration_since(sample.began),
                );
                let what = format!("{failure}; {:.2} s into the load, after {age:?}", at.as_secs_f64());
                kinds.entry(failure.kind()).or_default().push(what);
            }
        }
        kinds
    }

    /// Checks that every stream was complete.
    ///
    /// # Panics
    /// When one was not; lists the failures by kind.
    #[track_caller]
    pub fn assert_whole(&self) {
        self.assert_whole_where(|_| true);
    }

    /// Checks that every stream that `which` picks was complete.
    ///
    /// # Panics
    /// When one was not; lists the failures by kind.
    #[track_caller]
    pub fn assert_whole_where(&self, which: impl Fn(&Sample) -> bool) {
        let failures = self.failures(which);
        assert!(failures.is_empty(), "{}{}", self.summary(), listed(&failures));
    }

    /// Checks that no failed stream was told a lie.
    ///
    /// # Panics
    /// When one was.
    #[track_caller]
    pub fn assert_honest(&self) {
        let lies = self.failures(|sample| sample.result.as_ref().is_err_and(|failure| !failure.is_honest()));
        assert!(lies.is_empty(), "{}{}", self.summary(), listed(&lies));
    }

    /// The silences between `from` and `to`: the longest of each stream that had one of at least 200 ms.
    pub fn silences(&self, from: Instant, to: Instant) -> Quantiles {
        Quantiles::of(
            self.samples
                .iter()
                .filter_map(|sample| sample.silence(from, to))
                .collect(),
        )
    }

    /// One line: the numbers of streams and of complete streams.
    pub fn summary(&self) -> String {
        format!("{} of {} streams whole", self.whole(), self.samples.len())
    }

    /// Prints the measurements between `from` and `to` as one line of JSON, for docs/faults.md.
    pub fn record(&self, scenario: &str, from: Instant, to: Instant) {
        let silences = self.silences(from, to);
        let line = serde_json::json!({
            "scenario": scenario, "streams": self.samples.len(), "whole": self.whole(),
            "interrupted": silences.count, "p50_ms": silences.p50.as_millis(),
            "p99_ms": silences.p99.as_millis(), "max_ms": silences.max.as_millis(),
        });
        eprintln!("measured {line}");
    }
}

fn listed(failures: &BTreeMap<String, Vec<String>>) -> String {
    let mut text = String::new();
    for (kind, all) in failures {
        let _ = write!(text, "\n{} x {kind}", all.len());
        for one in all.iter().take(SHOWN) {
            let _ = write!(text, "\n    {one}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_of_what_there_is() {
        assert_eq!(Quantiles::of(Vec::new()), Quantiles::default());
        let hundred = Quantiles::of((1..=100).rev().map(Duration::from_millis).collect());
        let told = [hundred.p50, hundred.p99, hundred.max].map(|time| time.as_millis());
        assert_eq!((hundred.count, told), (100, [51, 100, 100]));
    }

    #[test]
    fn the_longest_silence_within_a_time_counts() {
        let mut sample = Sample::begin("127.0.0.1:1".parse().unwrap());
        let at = |millis: u64| sample.began + Duration::from_millis(millis);
        let times = [300, 310, 1310, 1320, 1820].map(at);
        let (from, to) = (at(400), at(1400));
        let (late, later) = (at(1500), at(1600));
        for (number, time) in times.into_iter().enumerate() {
            assert_eq!(sample.text(time), number == 0);
        }
        assert_eq!(sample.silence(from, to), Some(Duration::from_secs(1)));
        assert_eq!(sample.silence(late, later), Some(Duration::from_millis(500)));
        let report = Report::new(vec![sample]);
        assert_eq!(report.silences(from, to).count, 1);
    }
}
