//! All metric families, and the series of one model.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use tokenbus_protocol::LeftCause;

use super::connections::Connections;
use super::histogram::Histogram;
use super::keys::KeyFamilies;
use super::labels::{
    CauseLabel, Class, ClassLabel, DeadlyLabel, MAX_MODEL_LABELS, ModelLabel, OTHER, PlacementLabel, RefusalLabels,
    RequestLabels, UNKNOWN,
};
use super::pace::ITL_BUCKETS;

// From a cached prefix on a fast engine to a long prefill after a wait.
const TTFT_BUCKETS: &[f64] = &[
    0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0,
];
const DURATION_BUCKETS: &[f64] = &[
    0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0,
];

type Histograms = Family<ModelLabel, Histogram, fn() -> Histogram>;

#[derive(Debug)]
pub(super) struct Families {
    pub(super) requests: Family<RequestLabels, Counter>,
    pub(super) refusals: Family<RefusalLabels, Counter>,
    pub(super) in_flight: Gauge,
    waiting_by_class: Family<ClassLabel, Gauge>,
    /// Those series, resolved once: each request that waits sets them twice.
    pub(super) waiting: [Gauge; Class::ALL.len()],
    pub(super) waiting_bytes: Gauge,
    pub(super) connections: Connections,
    pub(super) attempts: Counter,
    pub(super) republishes: Counter,
    pub(super) failovers: Family<CauseLabel, Counter>,
    pub(super) prompt_tokens: Family<ModelLabel, Counter>,
    pub(super) completion_tokens: Family<ModelLabel, Counter>,
    pub(super) cached_tokens: Family<ModelLabel, Counter>,
    pub(super) placements: Family<PlacementLabel, Counter>,
    pub(super) deadly: Family<DeadlyLabel, Counter>,
    pub(super) prefix_cuts: Gauge,
    pub(super) prefix_bytes: Gauge,
    pub(super) keys: KeyFamilies,
    pub(super) ttft: Histograms,
    pub(super) itl: Histograms,
    pub(super) duration: Histograms,
    pub(super) by_model: RwLock<HashMap<Arc<str>, Arc<Series>>>,
}

impl Default for Families {
    fn default() -> Self {
        let waiting_by_class = Family::<ClassLabel, Gauge>::default();
        Self {
            requests: Family::default(),
            refusals: Family::default(),
            in_flight: Gauge::default(),
            waiting: Class::ALL
                .map(|class| waiting_by_class.get_or_create_owned(&ClassLabel { class: class.as_str() })),
            waiting_by_class,
            waiting_bytes: Gauge::default(),
            connections: Connections::default(),
            attempts: Counter::default(),
            republishes: Counter::default(),
            failovers: Family::default(),
            prompt_tokens: Family::default(),
            completion_tokens: Family::default(),
            cached_tokens: Family::default(),
            placements: Family::default(),
            deadly: Family::default(),
            prefix_cuts: Gauge::default(),
            prefix_bytes: Gauge::default(),
            keys: KeyFamilies::default(),
            ttft: Family::new_with_constructor(|| Histogram::new(TTFT_BUCKETS)),
            itl: Family::new_with_constructor(|| Histogram::new(&ITL_BUCKETS)),
            duration: Family::new_with_constructor(|| Histogram::new(DURATION_BUCKETS)),
            by_model: RwLock::default(),
        }
    }
}

/// The series of one model. A request looks them up once.
#[derive(Debug)]
pub(super) struct Series {
    pub(super) model: Arc<str>,
    pub(super) prompt_tokens: Counter,
    pub(super) completion_tokens: Counter,
    pub(super) cached_tokens: Counter,
    pub(super) ttft: Histogram,
    pub(super) itl: Histogram,
    pub(super) duration: Histogram,
}

impl Families {
    pub(super) fn register(&self, registry: &mut Registry) {
        let f = self;
        registry.register("requests", "Requests by model, outcome and status", f.requests.clone());
        registry.register(
            "refusals",
            "Requests that were refused with a 4xx, by model and error code",
            f.refusals.clone(),
        );
        registry.register(
            "requests_in_flight",
            "Requests that are being answered",
            f.in_flight.clone(),
        );
        registry.register(
            "requests_waiting",
            "Requests that wait for a worker with room, by class: begun (a worker had it before), high, normal, low (by priority)",
            f.waiting_by_class.clone(),
        );
        registry.register_with_unit(
            "waiting",
            "Bodies of requests that wait for a worker with room",
            Unit::Bytes,
            f.waiting_bytes.clone(),
        );
        f.connections.register(registry);
        registry.register("attempts", "Publishes of a request to workers", f.attempts.clone());
        registry.register(
            "republishes",
            "Publishes beyond a request's first: refused, unanswered or lost before",
            f.republishes.clone(),
        );
        registry.register(
            "failovers",
            "Requests that a worker had begun and that went on at another one, by why they left: gone, restarted, silent, \
             frames_lost, given_back, engine, handed_over",
            f.failovers.clone(),
        );
        f.begin_at_zero();
        f.register_tokens(registry);
        f.register_placement(registry);
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

    fn register_tokens(&self, registry: &mut Registry) {
        registry.register(
            "prompt_tokens",
            "Prompt tokens of finished requests",
            self.prompt_tokens.clone(),
        );
        registry.register(
            "completion_tokens",
            "Completion tokens delivered, also of requests that did not finish",
            self.completion_tokens.clone(),
        );
        registry.register(
            "cached_tokens",
            "Prompt tokens of finished requests that the engine had in its cache",
            self.cached_tokens.clone(),
        );
    }

    /// What is rare begins at 0, so that its first time is an increase, and that a page has it before.
    fn begin_at_zero(&self) {
        for cause in [
            LeftCause::Gone,
            LeftCause::Restarted,
            LeftCause::Silent,
            LeftCause::FramesLost,
            LeftCause::GivenBack,
            LeftCause::Engine,
            LeftCause::HandedOver,
        ] {
            let cause = cause.as_str();
            drop(self.failovers.get_or_create(&CauseLabel { cause }));
        }
        for seen in ["here", "elsewhere"] {
            drop(self.deadly.get_or_create(&DeadlyLabel { seen }));
        }
    }

    fn register_placement(&self, registry: &mut Registry) {
        registry.register(
            "deadly_requests",
            "Requests of which engines died, and that are refused for a time: seen here or told by another gateway",
            self.deadly.clone(),
        );
        registry.register(
            "placements",
            "Requests sent to a chosen worker, by the reason of the choice",
            self.placements.clone(),
        );
        registry.register(
            "prefix_cuts",
            "Cuts of prompts that workers are known to hold",
            self.prefix_cuts.clone(),
        );
        registry.register_with_unit(
            "prefix_index",
            "Knowledge of what workers hold",
            Unit::Bytes,
            self.prefix_bytes.clone(),
        );
    }

    pub(super) fn existing(&self, model: &str) -> Option<Arc<Series>> {
        let by_model = self.by_model.read().unwrap_or_else(PoisonError::into_inner);
        by_model.get(model).cloned()
    }

    pub(super) fn series(&self, model: &str) -> Arc<Series> {
        if let Some(series) = self.existing(model) {
            return series;
        }
        let mut by_model = self.by_model.write().unwrap_or_else(PoisonError::into_inner);
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
                prompt_tokens: self.prompt_tokens.get_or_create_owned(&label),
                completion_tokens: self.completion_tokens.get_or_create_owned(&label),
                cached_tokens: self.cached_tokens.get_or_create_owned(&label),
                ttft: self.ttft.get_or_create_owned(&label),
                itl: self.itl.get_or_create_owned(&label),
                duration: self.duration.get_or_create_owned(&label),
                model: name.clone(),
            })
        };
        by_model.entry(name.clone()).or_insert_with(create).clone()
    }
}
