//! The metrics of all workers, from their statuses: a worker listens on no port. Only the leading coordinator exports
//! them, so that a sum over all coordinators counts each worker once.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::Gauge;
use tokenbus_protocol::{Capacity, Name, Quantiles, Totals, WorkerReport};
use tokio::sync::watch;

/// The counts of each worker since its start.
pub(crate) type WorkerTotals = BTreeMap<Name, Totals>;

/// Encodes the newest reports and counts at each scrape, so that a worker that is gone leaves no number behind.
pub(super) struct WorkerCollector {
    /// 1 while this coordinator leads.
    leading: Gauge,
    newest: watch::Receiver<Arc<Capacity>>,
    totals: watch::Receiver<WorkerTotals>,
}

impl fmt::Debug for WorkerCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerCollector").finish_non_exhaustive()
    }
}

impl WorkerCollector {
    pub(super) fn new(
        leading: Gauge,
        newest: watch::Receiver<Arc<Capacity>>,
        totals: watch::Receiver<WorkerTotals>,
    ) -> Self {
        Self {
            leading,
            newest,
            totals,
        }
    }
}

type Count = fn(&Totals) -> f64;

/// How a worker's requests ended.
const OUTCOMES: [(&str, Count); 4] = [
    ("finished", |totals| float(totals.finished)),
    ("failed", |totals| float(totals.failed)),
    ("rejected", |totals| float(totals.rejected)),
    ("cancelled", |totals| float(totals.cancelled)),
];

const COUNTS: [(&str, &str, Count); 7] = [
    ("completion_tokens", "Completion tokens of each worker", |totals| {
        float(totals.tokens)
    }),
    (
        "prompt_tokens",
        "Prompt tokens of each worker's finished requests, as far as its engine counts them",
        |totals| float(totals.prompt_tokens),
    ),
    (
        "cached_prompt_tokens",
        "Prompt tokens of those requests that each worker's engine had in its cache, as far as it counts them",
        |totals| float(totals.cached_tokens),
    ),
    (
        "trace_spans_dropped",
        "Spans that each worker dropped because too many waited for the OpenTelemetry collector",
        |totals| float(totals.spans_dropped),
    ),
    (
        "first_outputs",
        "Requests of each worker with a first output",
        |totals| float(totals.first_outputs),
    ),
    (
        "first_output_seconds",
        "From the arrival of those requests at the worker to their first output, together",
        |totals| float(totals.first_output_ms) / 1000.0,
    ),
    (
        "engine_losses",
        "Times that each worker's engine was ready and then was not: its process ended, or it did not answer or generate",
        |totals| float(totals.engine_losses),
    ),
];

type Level = fn(&WorkerReport) -> Option<f64>;

const LEVELS: [(&str, &str, Level); 5] = [
    ("slots", "Requests that each worker runs at once", |report| {
        Some(report.slots.into())
    }),
    ("active", "Requests running on each worker", |report| {
        Some(report.active.into())
    }),
    ("queued", "Requests waiting on each worker", |report| {
        Some(report.queued.into())
    }),
    (
        "kv_used_ratio",
        "Used part of the KV cache of each worker's engine, 0 to 1, where the engine tells it",
        |report| report.kv_used,
    ),
    (
        "start_time_seconds",
        "Unix time of each worker's start, by its own clock: it changes when the worker is restarted",
        |report| Some(float(report.started_at_ms) / 1000.0),
    ),
];

type Latency = fn(&WorkerReport) -> &Quantiles;

const LATENCIES: [(&str, &str, Latency); 2] = [
    (
        "recent_time_to_first_token_seconds",
        "From a request's arrival at the worker to its first output in the last half minute, by percentile",
        |report| &report.ttft,
    ),
    (
        "recent_inter_token_latency_seconds",
        "Between the outputs of a request in the last half minute, by percentile",
        |report| &report.itl,
    ),
];

/// A count as a metric has it.
#[allow(clippy::cast_precision_loss, reason = "a metric's value is a float")]
fn float(count: u64) -> f64 {
    count as f64
}

impl Collector for WorkerCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        if self.leading.get() == 0 {
            return Ok(());
        }
        counts(&mut encoder, &self.totals.borrow())?;
        let capacity = Arc::clone(&self.newest.borrow());
        let reports: Vec<&WorkerReport> = capacity.workers.iter().map(|worker| &worker.report).collect();
        levels(&mut encoder, &reports)?;
        latencies(&mut encoder, &reports)
    }
}

fn counts(encoder: &mut DescriptorEncoder<'_>, workers: &WorkerTotals) -> fmt::Result {
    let help = "Requests of each worker by how they ended there";
    let mut family = encoder.encode_descriptor("requests", help, None, MetricType::Counter)?;
    for (worker, totals) in workers {
        for (outcome, of) in OUTCOMES {
            family
                .encode_family(&[("worker", worker.as_str()), ("outcome", outcome)])?
                .encode_counter::<NoLabelSet, _, u64>(&of(totals), None)?;
        }
    }
    for (name, help, of) in COUNTS {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (worker, totals) in workers {
            family
                .encode_family(&[("worker", worker.as_str())])?
                .encode_counter::<NoLabelSet, _, u64>(&of(totals), None)?;
        }
    }
    Ok(())
}

fn levels(encoder: &mut DescriptorEncoder<'_>, reports: &[&WorkerReport]) -> fmt::Result {
    for (name, help, of) in LEVELS {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for report in reports {
            if let Some(value) = of(report) {
                family
                    .encode_family(&[("worker", report.worker.as_str())])?
                    .encode_gauge(&value)?;
            }
        }
    }
    Ok(())
}

fn latencies(encoder: &mut DescriptorEncoder<'_>, reports: &[&WorkerReport]) -> fmt::Result {
    for (name, help, of) in LATENCIES {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for report in reports {
            let quantiles = of(report);
            for (percentile, ms) in [("50", quantiles.p50), ("90", quantiles.p90), ("99", quantiles.p99)] {
                family
                    .encode_family(&[("worker", report.worker.as_str()), ("percentile", percentile)])?
                    .encode_gauge(&(ms / 1000.0))?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use prometheus_client::encoding::text::encode;
    use tokenbus_bus::BusMetrics;
    use tokenbus_protocol::Total;

    use super::super::{Metrics, registry};
    use super::*;

    #[test]
    fn only_the_leader_tells_of_the_workers() {
        let totals = Totals {
            finished: 3,
            tokens: 12,
            first_output_ms: 1500,
            ..Totals::default()
        };
        let worker = Name::new("w1").unwrap();
        let (_totals, told) = watch::channel(WorkerTotals::from([(worker.clone(), totals)]));
        let (_newest, newest) = watch::channel(Arc::new(Capacity {
            coordinator: worker.clone(),
            seq: 0,
            at_ms: 0,
            workers: Vec::new(),
            models: Vec::new(),
            total: Total::default(),
            lost: Vec::new(),
        }));
        let metrics = Metrics::default();
        let registry = registry(&metrics, &BusMetrics::default(), newest, told);
        let page = || {
            let mut text = String::new();
            encode(&mut text, &registry).unwrap();
            text
        };
        assert!(!page().contains("tokenbus_worker_"));
        metrics.leading.set(1);
        let text = page();
        for line in [
            r#"tokenbus_worker_requests_total{worker="w1",outcome="finished"} 3.0"#,
            r#"tokenbus_worker_completion_tokens_total{worker="w1"} 12.0"#,
            r#"tokenbus_worker_first_output_seconds_total{worker="w1"} 1.5"#,
        ] {
            assert!(text.lines().any(|l| l == line), "no {line} in\n{text}");
        }
    }
}
