//! The meter that each request carries.

use std::sync::Arc;

use tokio::time::Instant;

use super::families::{Families, Series};
use super::histogram::Histogram;
use super::labels::{CLIENT_GONE, Outcome, RequestLabels, UNKNOWN};

/// The measure of one request. Dropped before [`Meter::end`], it counts as cancelled by the client.
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
    /// The count is the engine's own and final; output that is written later is in it.
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
            settled: false,
            ended: false,
        }
    }

    /// The model, which the cluster has: its series are used from now on.
    pub fn model(&mut self, model: &str) {
        if self.series.is_none() {
            self.series = Some(self.families.series(model));
        }
    }

    /// Whether its model is known.
    pub fn is_named(&self) -> bool {
        self.series.is_some()
    }

    /// A model that a client named, of which nothing else is known: no series is made for it.
    pub fn claimed_model(&mut self, model: &str) {
        if self.series.is_none() {
            self.series = self.families.existing(model);
        }
    }

    /// Output that is written at `now`: `tokens` completion tokens, `paced` of them of the first
    /// choice (choices are generated side by side, so only one of them shows the pace).
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
                series.itl.observe(each, paced);
                self.last = Some(now);
            }
            Some(_) => {}
        }
    }

    /// The output so far is void: the answer begins anew.
    pub fn anew(&mut self) {
        self.counted = 0;
    }

    /// Output that was sent until `at`, whose pace was noted when it was.
    pub fn sent(&mut self, at: Instant, tokens: u64) {
        if !self.settled {
            self.counted = self.counted.saturating_add(tokens);
        }
        self.last = Some(at);
    }

    /// Where the pace of its model's tokens is noted.
    pub fn pace(&self) -> Option<Histogram> {
        self.series.as_ref().map(|series| series.itl.clone())
    }

    /// The counts that the answer's end brought; they replace what was counted on the way. `cached`
    /// tells those of the prompt that the engine had in its cache.
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

    /// Tokens of the prompt, where the engine told them by now.
    pub fn prompt(&self) -> Option<u64> {
        self.prompt
    }

    /// Tokens delivered.
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

    /// Time since the request's arrival.
    pub fn elapsed(&self, now: Instant) -> std::time::Duration {
        now.saturating_duration_since(self.started)
    }

    /// The request ended. Only the first end counts.
    pub fn end(&mut self, now: Instant, outcome: Outcome, status: u16) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let model = self
            .series
            .as_ref()
            .map_or_else(|| UNKNOWN.into(), |series| series.model.clone());
        let labels = RequestLabels {
            model,
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
