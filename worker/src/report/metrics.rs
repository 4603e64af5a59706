//! Counters of a worker, and the recent latencies that its status tells.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use tokenbus_protocol::{Quantiles, RejectReason, Totals};
use tokenbus_telemetry::SpanCounts;

use crate::limits::LATENCY_WINDOW;
use crate::report::recent::Latencies;
use crate::sync::lock;

/// Upper bounds of the time-to-first-token histogram, seconds.
const TTFT_BUCKETS: [f64; 14] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
];

/// How a stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// With a `Finish`.
    Finished,
    /// With an `Error`.
    Failed,
    /// Because the client's time was over.
    TimedOut,
    /// Cancelled by the gateway, or replaced by a later attempt.
    Cancelled,
    /// Handed over to another worker because this one stops.
    HandedOver,
    /// Stopped because its gateway is gone.
    GatewayLost,
}

impl Outcome {
    /// Its label.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
            Self::Cancelled => "cancelled",
            Self::HandedOver => "handed_over",
            Self::GatewayLost => "gateway_lost",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct QuantileLabel {
    quantile: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

/// Counters of one worker; clones share their values. Handles are resolved once: booking a token
/// touches no map.
#[derive(Debug, Clone)]
pub struct Metrics {
    requests: Family<OutcomeLabel, Counter>,
    rejects: Family<ReasonLabel, Counter>,
    finished: Counter,
    failed: Counter,
    timed_out: Counter,
    cancelled: Counter,
    handed_over: Counter,
    gateway_lost: Counter,
    rejected: Counter,
    tokens: Counter,
    prompt_tokens: Counter,
    cached_tokens: Counter,
    /// Spans for the OpenTelemetry collector.
    pub(crate) spans: SpanCounts,
    /// The count and the sum of the times to first token, for the status.
    first_outputs: Counter,
    first_output_ms: Counter,
    pub(crate) batches: Counter,
    pub(crate) batch_bytes: Counter,
    pub(crate) unsent_batches: Counter,
    pub(crate) unsent_answers: Counter,
    pub(crate) overflows: Counter,
    pub(crate) offers: Counter,
    pub(crate) lapsed_offers: Counter,
    pub(crate) slots: Gauge,
    pub(crate) running: Gauge,
    pub(crate) queued: Gauge,
    pub(crate) gateways: Gauge,
    pub(crate) gateways_lost: Counter,
    pub(crate) engine_losses: Counter,
    pub(crate) outbox_bytes: Gauge,
    ttft_seconds: Histogram,
    /// Only quantiles, set when the status is made: a histogram would cost each token a lock more.
    itl_seconds: Family<QuantileLabel, Gauge<f64, AtomicU64>>,
    recent: Arc<Recent>,
}

#[derive(Debug)]
struct Recent {
    ttft: Mutex<Latencies>,
    itl: Mutex<Latencies>,
}

impl Default for Metrics {
    fn default() -> Self {
        let requests = Family::<OutcomeLabel, Counter>::default();
        let labelled = |outcome| requests.get_or_create(&OutcomeLabel { outcome }).clone();
        let of = |outcome: Outcome| labelled(outcome.as_str());
        let latencies = || Mutex::new(Latencies::new(LATENCY_WINDOW, Instant::now()));
        Self {
            finished: of(Outcome::Finished),
            failed: of(Outcome::Failed),
            timed_out: of(Outcome::TimedOut),
            cancelled: of(Outcome::Cancelled),
            handed_over: of(Outcome::HandedOver),
            gateway_lost: of(Outcome::GatewayLost),
            rejected: labelled("rejected"),
            requests,
            rejects: Family::default(),
            tokens: Counter::default(),
            prompt_tokens: Counter::default(),
            cached_tokens: Counter::default(),
            spans: SpanCounts::default(),
            first_outputs: Counter::default(),
            first_output_ms: Counter::default(),
            batches: Counter::default(),
            batch_bytes: Counter::default(),
            unsent_batches: Counter::default(),
            unsent_answers: Counter::default(),
            overflows: Counter::default(),
            offers: Counter::default(),
            lapsed_offers: Counter::default(),
            slots: Gauge::default(),
            running: Gauge::default(),
            queued: Gauge::default(),
            gateways: Gauge::default(),
            gateways_lost: Counter::default(),
            engine_losses: Counter::default(),
            outbox_bytes: Gauge::default(),
            ttft_seconds: Histogram::new(TTFT_BUCKETS),
            itl_seconds: Family::default(),
            recent: Arc::new(Recent {
                ttft: latencies(),
                itl: latencies(),
            }),
        }
    }
}

impl Metrics {
    /// Registers all of them under the registry's prefix.
    pub fn register(&self, registry: &mut Registry) {
        let r = registry;
        r.register("worker_requests", "Requests by how they ended", self.requests.clone());
        r.register("worker_rejects", "Requests not taken, by reason", self.rejects.clone());
        r.register("worker_tokens", "Completion tokens", self.tokens.clone());
        r.register(
            "worker_prompt_tokens",
            "Prompt tokens of finished requests",
            self.prompt_tokens.clone(),
        );
        r.register(
            "worker_cached_prompt_tokens",
            "Prompt tokens that the engine had in its cache, as far as it counts them",
            self.cached_tokens.clone(),
        );
        self.spans.register(r);
        self.register_sent(r);
        r.register(
            "worker_slot_offers",
            "Free slots that were offered to waiting gateways in turn",
            self.offers.clone(),
        );
        r.register(
            "worker_slot_offers_lapsed",
            "Offered slots that their gateway neither took nor declined in time",
            self.lapsed_offers.clone(),
        );
        r.register(
            "worker_slots",
            "Requests that the engine runs at once",
            self.slots.clone(),
        );
        r.register("worker_running", "Requests running", self.running.clone());
        r.register("worker_queued", "Requests waiting", self.queued.clone());
        r.register("worker_gateways", "Gateways with an outbox", self.gateways.clone());
        r.register(
            "worker_gateways_lost",
            "Gateways whose streams were stopped because they are gone",
            self.gateways_lost.clone(),
        );
        r.register(
            "worker_engine_losses",
            "Times that the engine was ready and then was not",
            self.engine_losses.clone(),
        );
        r.register(
            "worker_outbox_bytes",
            "Bytes that wait for gateways",
            self.outbox_bytes.clone(),
        );
        r.register(
            "worker_ttft_seconds",
            "From a request's arrival to its first output",
            self.ttft_seconds.clone(),
        );
        r.register(
            "worker_itl_seconds",
            "Time between two outputs of a stream in the last half minute, by quantile",
            self.itl_seconds.clone(),
        );
    }

    fn register_sent(&self, r: &mut Registry) {
        r.register("worker_batches", "Messages with frames sent", self.batches.clone());
        r.register(
            "worker_batch_bytes",
            "Bytes of messages with frames",
            self.batch_bytes.clone(),
        );
        r.register(
            "worker_unsent_batches",
            "Messages with frames that NATS refused",
            self.unsent_batches.clone(),
        );
        r.register(
            "worker_unsent_answers",
            "Small answers dropped because the queue to NATS was full",
            self.unsent_answers.clone(),
        );
        r.register(
            "worker_outbox_overflows",
            "Streams ended because the queue to their gateway was full",
            self.overflows.clone(),
        );
    }

    /// Counts since the start.
    pub fn totals(&self) -> Totals {
        Totals {
            finished: self.finished.get(),
            failed: self.failed.get() + self.timed_out.get() + self.handed_over.get(),
            rejected: self.rejected.get(),
            cancelled: self.cancelled.get() + self.gateway_lost.get(),
            tokens: self.tokens.get(),
            prompt_tokens: self.prompt_tokens.get(),
            cached_tokens: self.cached_tokens.get(),
            spans_dropped: self.spans.dropped(),
            first_outputs: self.first_outputs.get(),
            first_output_ms: self.first_output_ms.get(),
            engine_losses: self.engine_losses.get(),
        }
    }

    pub(crate) fn ended(&self, outcome: Outcome) {
        match outcome {
            Outcome::Finished => &self.finished,
            Outcome::Failed => &self.failed,
            Outcome::TimedOut => &self.timed_out,
            Outcome::Cancelled => &self.cancelled,
            Outcome::HandedOver => &self.handed_over,
            Outcome::GatewayLost => &self.gateway_lost,
        }
        .inc();
    }

    pub(crate) fn refused(&self, reason: RejectReason) {
        self.rejected.inc();
        let reason = reason.as_str();
        self.rejects.get_or_create(&ReasonLabel { reason }).inc();
    }

    pub(crate) fn generated(&self, tokens: u64) {
        self.tokens.inc_by(tokens);
    }

    /// The engine read a prompt of this many tokens.
    pub(crate) fn read(&self, prompt_tokens: u64, cached: u64) {
        self.prompt_tokens.inc_by(prompt_tokens);
        self.cached_tokens.inc_by(cached);
    }

    pub(crate) fn first_output(&self, latency: Duration, now: Instant) {
        self.ttft_seconds.observe(latency.as_secs_f64());
        self.first_outputs.inc();
        self.first_output_ms
            .inc_by(u64::try_from(latency.as_millis()).unwrap_or(u64::MAX));
        lock(&self.recent.ttft).record(latency, 1, now);
    }

    pub(crate) fn next_output(&self, latency: Duration, tokens: u32, now: Instant) {
        lock(&self.recent.itl).record(latency / tokens.max(1), tokens.max(1), now);
    }

    pub(crate) fn ttft(&self, now: Instant) -> Quantiles {
        lock(&self.recent.ttft).quantiles(now)
    }

    pub(crate) fn itl(&self, now: Instant) -> Quantiles {
        let itl = lock(&self.recent.itl).quantiles(now);
        for (quantile, milliseconds) in [("0.5", itl.p50), ("0.9", itl.p90), ("0.99", itl.p99)] {
            let gauge = self.itl_seconds.get_or_create(&QuantileLabel { quantile });
            gauge.set(milliseconds / 1e3);
        }
        itl
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn all_that_is_booked_is_shown() {
        let m = Metrics::default();
        let now = Instant::now();
        for outcome in [
            Outcome::Finished,
            Outcome::Failed,
            Outcome::TimedOut,
            Outcome::Cancelled,
            Outcome::HandedOver,
            Outcome::GatewayLost,
        ] {
            m.ended(outcome);
        }
        m.refused(RejectReason::Busy);
        m.generated(2);
        m.read(5, 2);
        m.first_output(Duration::from_millis(10), now);
        m.next_output(Duration::from_millis(20), 1, now);
        m.itl(now);
        let counters = [
            &m.batches,
            &m.batch_bytes,
            &m.unsent_batches,
            &m.unsent_answers,
            &m.overflows,
            &m.offers,
            &m.lapsed_offers,
            &m.gateways_lost,
            &m.engine_losses,
        ];
        for counter in counters {
            counter.inc();
        }
        for gauge in [&m.slots, &m.running, &m.queued, &m.gateways, &m.outbox_bytes] {
            gauge.set(1);
        }
        let mut registry = Registry::default();
        m.register(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        let samples: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        // Six outcomes and the refusals, one reason, three counts of tokens, three of spans, the counters, five gauges, three
        // quantiles, and the buckets, the sum and the count of one histogram.
        assert_eq!(
            samples.len(),
            7 + 1 + 3 + 3 + counters.len() + 5 + 3 + TTFT_BUCKETS.len() + 3,
            "{text}"
        );
        // No span was told here.
        let zero = |line: &&&str| line.ends_with(" 0") && !line.contains("_bucket") && !line.contains("_spans");
        assert_eq!(samples.iter().find(zero), None);
        assert_eq!(m.totals().failed, 3);
        assert_eq!(m.totals().cancelled, 2);
        let totals = m.totals();
        assert_eq!(
            (
                totals.prompt_tokens,
                totals.cached_tokens,
                totals.first_outputs,
                totals.first_output_ms
            ),
            (5, 2, 1, 10)
        );
    }
}
