//! The meter that each request carries.

use std::borrow::Cow;
use std::sync::Arc;

use tokio::time::Instant;

use super::families::{Families, Series};
use super::labels::{CLIENT_GONE, OTHER, Outcome, RefusalLabels, RequestLabels, UNKNOWN};
use super::pace::{self, OwnPace, Pace};

/// Measures one request. If it is dropped before [`Meter::end`], the request counts as cancelled by the client.
#[derive(Debug)]
pub struct Meter {
    families: Arc<Families>,
    series: Option<Arc<Series>>,
    started: Instant,
    first: Option<Instant>,
    last: Option<Instant>,
    prompt: Option<u64>,
    counted: u64,
    cached: u64,
    pace: OwnPace,
    /// The count is final and comes from the engine. It includes output that is written later.
    settled: bool,
    ended: bool,
}

impl Meter {
    pub(super) fn begin(families: Arc<Families>, now: Instant) -> Self {
        families.in_flight.inc();
        Self {
            families,
            series: None,
            started: now,
            first: None,
            last: None,
            prompt: None,
            counted: 0,
            cached: 0,
            pace: OwnPace::default(),
            settled: false,
            ended: false,
        }
    }

    /// Sets the request's model, which the cluster has. Its series are used from now on.
    pub fn model(&mut self, model: &str) {
        if self.series.is_none() {
            self.series = Some(self.families.series(model));
        }
    }

    /// Whether the model is set.
    pub fn is_named(&self) -> bool {
        self.series.is_some()
    }

    /// Sets a model that a client named and the cluster may not have. Creates no series for it.
    pub fn claimed_model(&mut self, model: &str) {
        if self.series.is_none() {
            self.series = self.families.existing(model);
        }
    }

    /// Records output written at `now`: `tokens` completion tokens, `paced` of them of the first choice. Choices are
    /// generated side by side, so only one of them shows the pace.
    pub fn output(&mut self, now: Instant, tokens: u64, paced: u64) {
        if !self.settled {
            self.counted = self.counted.saturating_add(tokens);
        }
        self.first.get_or_insert(now);
        let Some(series) = &self.series else { return };
        match self.last {
            None => {
                series.ttft.observe(now.saturating_duration_since(self.started), 1);
                self.last = Some(now);
            }
            Some(last) if paced > 0 => {
                let gap = now.saturating_duration_since(last);
                let each = gap / u32::try_from(paced).unwrap_or(u32::MAX);
                pace::observe(&series.itl, &self.pace, each, paced);
                self.last = Some(now);
            }
            Some(_) => {}
        }
    }

    /// All output so far is void, because the answer starts over.
    pub fn anew(&mut self) {
        (self.counted, self.settled) = (0, false);
    }

    /// Records output sent until `at`, whose pace is already recorded.
    pub fn sent(&mut self, at: Instant, tokens: u64) {
        if !self.settled {
            self.counted = self.counted.saturating_add(tokens);
        }
        self.last = Some(at);
    }

    /// Where the request's inter-token latency is recorded.
    pub fn pace(&self) -> Option<Pace> {
        self.series.as_ref().map(|series| Pace::new(&series.itl, &self.pace))
    }

    /// The 99th percentile of the request's inter-token latency, estimated from a histogram.
    pub fn itl_p99(&self) -> Option<std::time::Duration> {
        self.pace.quantile(0.99)
    }

    /// When the request arrived.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// Sets the counts that came with the answer's end. They replace the counts so far. `cached` is the number of
    /// prompt tokens that the engine had in its cache.
    pub fn usage(&mut self, prompt: Option<u64>, completion: Option<u64>, cached: u64) {
        if let Some(completion) = completion {
            self.counted = completion;
            self.settled = true;
        }
        self.prompt = prompt;
        self.cached = cached;
        if let Some(series) = &self.series {
            series.prompt_tokens.inc_by(prompt.unwrap_or(0));
            series.cached_tokens.inc_by(cached);
        }
    }

    /// Tokens of the prompt, if the engine has reported them.
    pub fn prompt(&self) -> Option<u64> {
        self.prompt
    }

    /// Completion tokens delivered.
    pub fn completion(&self) -> u64 {
        self.counted
    }

    /// Tokens of the prompt that the engine had in its cache.
    pub fn cached(&self) -> u64 {
        self.cached
    }

    /// Time from the request's arrival to its first output.
    pub fn ttft(&self) -> Option<std::time::Duration> {
        let first = self.first?;
        Some(first.saturating_duration_since(self.started))
    }

    /// Time since the request arrived.
    pub fn elapsed(&self, now: Instant) -> std::time::Duration {
        now.saturating_duration_since(self.started)
    }

    /// Records that the request was refused with `code`. Codes that an engine made up share one series.
    pub fn refused(&self, code: Option<&Cow<'static, str>>) {
        let code = match code {
            Some(Cow::Borrowed(code)) => code,
            Some(Cow::Owned(_)) | None => OTHER,
        };
        let model = self.label();
        self.families
            .refusals
            .get_or_create(&RefusalLabels { model, code })
            .inc();
    }

    fn label(&self) -> Arc<str> {
        let known = self.series.as_ref();
        known.map_or_else(|| UNKNOWN.into(), |series| series.model.clone())
    }

    /// Records the request's end. Only the first call counts.
    pub fn end(&mut self, now: Instant, outcome: Outcome, status: u16) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let labels = RequestLabels {
            model: self.label(),
            outcome,
            status: status.into(),
        };
        self.families.requests.get_or_create(&labels).inc();
        if let Some(series) = &self.series {
            series.completion_tokens.inc_by(self.counted);
            series.duration.observe(self.elapsed(now), 1);
        }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.end(Instant::now(), Outcome::Cancelled, CLIENT_GONE);
        self.families.in_flight.dec();
    }
}
