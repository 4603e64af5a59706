//! What the gateway counts, and the meter that each request carries.

mod histogram;
mod keys;

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use tokio::time::Instant;

pub use histogram::Histogram;
use keys::KeyFamilies;
pub use keys::{MAX_KEY_LABELS, Tokens};

/// Models with series of their own. Beyond it they share one: a metrics store suffers from labels
/// without bound, whoever makes up the names.
pub const MAX_MODEL_LABELS: usize = 1000;

/// Label of requests for models that the cluster is not known to have.
const UNKNOWN: &str = "(unknown)";

/// Label of models beyond [`MAX_MODEL_LABELS`].
const OTHER: &str = "(other)";

/// Status that stands for a client that went away before it was answered (nginx's number).
pub const CLIENT_GONE: u16 = 499;

// From a cached prefix on a fast engine to a long prefill behind a queue.
const TTFT_BUCKETS: &[f64] = &[
    0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0,
];
const ITL_BUCKETS: &[f64] = &[0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0];
const DURATION_BUCKETS: &[f64] = &[
    0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0,
];

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Answered in full.
    Succeeded,
    /// The cluster's fault: an engine failed, a worker was lost.
    Failed,
    /// Not taken: a wrong request, an unknown model, no room.
    Rejected,
    /// Its time was over.
    TimedOut,
    /// The client went away, or did not read.
    Cancelled,
}

impl Outcome {
    /// The label's value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Rejected => "rejected",
            Self::TimedOut => "timed_out",
            Self::Cancelled => "cancelled",
        }
    }
}

impl EncodeLabelValue for Outcome {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        EncodeLabelValue::encode(&self.as_str(), encoder)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    model: Arc<str>,
    outcome: Outcome,
    status: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ModelLabel {
    model: Arc<str>,
}

/// The gateway's metrics; clones share their values.
#[derive(Debug, Clone, Default)]
pub struct Metrics(Arc<Families>);

type Histograms = Family<ModelLabel, Histogram, fn() -> Histogram>;

#[derive(Debug)]
struct Families {
    requests: Family<RequestLabels, Counter>,
    in_flight: Gauge,
    waiting: Gauge,
    waiting_bytes: Gauge,
    attempts: Counter,
    republishes: Counter,
    prompt_tokens: Family<ModelLabel, Counter>,
    completion_tokens: Family<ModelLabel, Counter>,
    cached_tokens: Family<ModelLabel, Counter>,
    keys: KeyFamilies,
    ttft: Histograms,
    itl: Histograms,
    duration: Histograms,
    by_model: RwLock<HashMap<Arc<str>, Arc<Series>>>,
}

impl Default for Families {
    fn default() -> Self {
        Self {
            requests: Family::default(),
            in_flight: Gauge::default(),
            waiting: Gauge::default(),
            waiting_bytes: Gauge::default(),
            attempts: Counter::default(),
            republishes: Counter::default(),
            prompt_tokens: Family::default(),
            completion_tokens: Family::default(),
            cached_tokens: Family::default(),
            keys: KeyFamilies::default(),
            ttft: Family::new_with_constructor(|| Histogram::new(TTFT_BUCKETS)),
            itl: Family::new_with_constructor(|| Histogram::new(ITL_BUCKETS)),
            duration: Family::new_with_constructor(|| Histogram::new(DURATION_BUCKETS)),
            by_model: RwLock::default(),
        }
    }
}

/// The series of one model, looked up once per request.
#[derive(Debug)]
struct Series {
    model: Arc<str>,
    prompt_tokens: Counter,
    completion_tokens: Counter,
    cached_tokens: Counter,
    ttft: Histogram,
    itl: Histogram,
    duration: Histogram,
}

impl Metrics {
    /// Registers everything under the registry's prefix.
    pub fn register(&self, registry: &mut Registry) {
        let f = &*self.0;
        registry.register("requests", "Requests by model, outcome and status", f.requests.clone());
        registry.register(
            "requests_in_flight",
            "Requests that are being answered",
            f.in_flight.clone(),
        );
        registry.register(
            "requests_waiting",
            "Requests that wait for a worker with room",
            f.waiting.clone(),
        );
        registry.register_with_unit(
            "waiting",
            "Bodies of requests that wait for a worker with room",
            Unit::Bytes,
            f.waiting_bytes.clone(),
        );
        registry.register("attempts", "Publishes of a request to workers", f.attempts.clone());
        registry.register(
            "republishes",
            "Publishes beyond a request's first: refused, unanswered or lost before",
            f.republishes.clone(),
        );
        registry.register(
            "prompt_tokens",
            "Prompt tokens of finished requests",
            f.prompt_tokens.clone(),
        );
        registry.register(
            "completion_tokens",
            "Completion tokens delivered, also of requests that did not finish",
            f.completion_tokens.clone(),
        );
        registry.register(
            "cached_tokens",
            "Prompt tokens of finished requests that the engine had in its cache",
            f.cached_tokens.clone(),
        );
        f.keys.register(registry);
        for (name, help, family) in [
            (
                "time_to_first_token",
                "From a request's arrival to its first output",
                &f.ttft,
            ),
            (
                "inter_token_latency",
                "Between tokens of a request's first choice",
                &f.itl,
            ),
            (
                "request_duration",
                "From a request's arrival to the end of its answer",
                &f.duration,
            ),
        ] {
            registry.register_with_unit(name, help, Unit::Seconds, family.clone());
        }
    }

    /// Requests that wait for room; the waiting room sets it.
    pub fn waiting(&self) -> &Gauge {
        &self.0.waiting
    }

    /// Bytes of their bodies; the waiting room sets it.
    pub fn waiting_bytes(&self) -> &Gauge {
        &self.0.waiting_bytes
    }

    /// Publishes of requests; the dispatcher counts.
    pub fn attempts(&self) -> &Counter {
        &self.0.attempts
    }

    /// Publishes beyond the first of a request; the dispatcher counts.
    pub fn republishes(&self) -> &Counter {
        &self.0.republishes
    }

    /// API keys that are known; whoever reads them sets it.
    pub fn keys(&self) -> &Gauge {
        &self.0.keys.known
    }

    /// API keys that vanished without being revoked, and hold for a time; whoever reads them sets it.
    pub fn keys_held(&self) -> &Gauge {
        &self.0.keys.held
    }

    /// Times that the bucket of keys was found wiped.
    pub fn key_losses(&self) -> &Counter {
        &self.0.keys.losses
    }

    /// A request with the API key `key` has ended.
    pub fn key_used(&self, key: &str, tokens: Tokens) {
        self.0.keys.used(key, tokens);
    }

    /// A request was refused because its key's limit of `limit` was reached.
    pub fn key_limited(&self, key: &str, limit: &'static str) {
        self.0.keys.limited(key, limit);
    }

    /// A request was refused because it is nobody's.
    pub fn stranger(&self, reason: &'static str) {
        self.0.keys.stranger(reason);
    }

    /// Settings were read again; `applied` says whether they could be used.
    pub fn reloaded(&self, what: &'static str, applied: bool) {
        self.0.keys.reloaded(what, applied);
    }

    /// How often they were.
    pub fn reloads(&self, what: &'static str, applied: bool) -> u64 {
        self.0.keys.reloads(what, applied)
    }

    /// Usage records that wait to be published, or for their confirmation.
    pub fn usage_waiting(&self) -> &Gauge {
        &self.0.keys.usage_waiting
    }

    /// One of them waits no longer: it was published, or is lost.
    pub fn usage_done(&self, published: bool) {
        self.0.keys.usage_done(published);
    }

    /// Usage records that are lost.
    pub fn usage_dropped(&self) -> &Counter {
        &self.0.keys.usage_dropped
    }

    /// Requests that are being answered.
    pub fn in_flight(&self) -> i64 {
        self.0.in_flight.get()
    }

    /// Starts measuring a request that arrived at `now`; it counts as in flight until the meter
    /// is dropped.
    pub fn begin(&self, now: Instant) -> Meter {
        self.0.in_flight.inc();
        Meter {
            metrics: self.clone(),
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

    fn existing(&self, model: &str) -> Option<Arc<Series>> {
        let by_model = self.0.by_model.read().unwrap_or_else(PoisonError::into_inner);
        by_model.get(model).cloned()
    }

    fn series(&self, model: &str) -> Arc<Series> {
        if let Some(series) = self.existing(model) {
            return series;
        }
        let mut by_model = self.0.by_model.write().unwrap_or_else(PoisonError::into_inner);
        let reserved = model == OTHER || model == UNKNOWN;
        let name: Arc<str> = if reserved || by_model.len() < MAX_MODEL_LABELS {
            model
        } else {
            OTHER
        }
        .into();
        let label = ModelLabel { model: name.clone() };
        let create = || {
            Arc::new(Series {
                prompt_tokens: self.0.prompt_tokens.get_or_create_owned(&label),
                completion_tokens: self.0.completion_tokens.get_or_create_owned(&label),
                cached_tokens: self.0.cached_tokens.get_or_create_owned(&label),
                ttft: self.0.ttft.get_or_create_owned(&label),
                itl: self.0.itl.get_or_create_owned(&label),
                duration: self.0.duration.get_or_create_owned(&label),
                model: name.clone(),
            })
        };
        by_model.entry(name.clone()).or_insert_with(create).clone()
    }
}

/// The measure of one request. Dropped before [`Meter::end`], it counts as cancelled by the client.
#[derive(Debug)]
pub struct Meter {
    metrics: Metrics,
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
    /// The model, which the cluster has: its series are used from now on.
    pub fn model(&mut self, model: &str) {
        if self.series.is_none() {
            self.series = Some(self.metrics.series(model));
        }
    }

    /// Whether its model is known.
    pub fn is_named(&self) -> bool {
        self.series.is_some()
    }

    /// A model that a client named, of which nothing else is known: no series is made for it.
    pub fn claimed_model(&mut self, model: &str) {
        if self.series.is_none() {
            self.series = self.metrics.existing(model);
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
        self.metrics.0.requests.get_or_create(&labels).inc();
        if let Some(series) = &self.series {
            series.completion_tokens.inc_by(self.counted);
            series.duration.observe(self.elapsed(now), 1);
        }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.end(Instant::now(), Outcome::Cancelled, CLIENT_GONE);
        self.metrics.0.in_flight.dec();
    }
}

#[cfg(test)]
mod tests;
