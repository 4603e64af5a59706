//! The metrics of `/metrics`.

mod workers;

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeGaugeValue};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokenbus_bus::BusMetrics;
use tokenbus_protocol::{Capacity, ModelCapacity, Total, WorkerState};
use tokio::sync::watch;

pub(crate) use workers::WorkerTotals;

use workers::WorkerCollector;

/// Counters of the coordinator itself; clones share their values.
#[derive(Debug, Clone, Default)]
pub(crate) struct Metrics {
    /// 1 while this coordinator leads.
    pub(crate) leading: Gauge,
    /// Statuses received.
    pub(crate) statuses: Counter,
    /// Statuses refused: late, repeated, of a replaced instance, or one too many.
    pub(crate) refused: Counter,
    /// Snapshots published.
    pub(crate) snapshots: Counter,
    /// Events published.
    pub(crate) events: Counter,
    /// Snapshots, answers and events dropped because the bus did not accept them.
    pub(crate) unsent: Counter,
}

/// All metrics of a coordinator, under `tokenbus_coordinator_`, and those of all workers, under `tokenbus_worker_`.
pub(crate) fn registry(
    metrics: &Metrics,
    bus: &BusMetrics,
    newest: watch::Receiver<Arc<Capacity>>,
    totals: watch::Receiver<WorkerTotals>,
) -> Registry {
    let mut all = Registry::default();
    let workers = WorkerCollector::new(metrics.leading.clone(), newest.clone(), totals);
    all.sub_registry_with_prefix("tokenbus_worker")
        .register_collector(Box::new(workers));
    let registry = all.sub_registry_with_prefix("tokenbus_coordinator");
    registry.register("leading", "1 while this coordinator leads", metrics.leading.clone());
    registry.register("statuses", "Worker statuses received", metrics.statuses.clone());
    registry.register(
        "statuses_refused",
        "Worker statuses that were late, repeated, of a replaced instance or one too many",
        metrics.refused.clone(),
    );
    registry.register("snapshots", "Capacity snapshots published", metrics.snapshots.clone());
    registry.register("events", "Events published", metrics.events.clone());
    registry.register(
        "unsent",
        "Messages dropped because the bus did not take them",
        metrics.unsent.clone(),
    );
    bus.register(registry);
    registry.register_collector(Box::new(CapacityCollector { newest }));
    all
}

/// Encodes the newest snapshot at each scrape, so that a model that is gone leaves no number behind.
struct CapacityCollector {
    newest: watch::Receiver<Arc<Capacity>>,
}

impl fmt::Debug for CapacityCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CapacityCollector").finish_non_exhaustive()
    }
}

impl Collector for CapacityCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let capacity = Arc::clone(&self.newest.borrow());
        let mut family = encoder.encode_descriptor("workers", "Workers by state", None, MetricType::Gauge)?;
        for state in WorkerState::ALL {
            let count = capacity
                .workers
                .iter()
                .filter(|worker| worker.report.state == *state)
                .count();
            family
                .encode_family(&[("state", state.as_str())])?
                .encode_gauge(&count)?;
        }
        encoder
            .encode_descriptor(
                "lost_workers",
                "Workers lost lately that are not back",
                None,
                MetricType::Gauge,
            )?
            .encode_gauge(&capacity.lost.len())?;
        for (name, help, of) in TOTALS {
            encoder
                .encode_descriptor(name, help, None, MetricType::Gauge)?
                .encode_gauge(&of(&capacity.total))?;
        }
        for (name, help, of) in MODEL_COUNTS {
            gauge(&mut encoder, &capacity, name, help, |model| Some(of(model)))?;
        }
        gauge(
            &mut encoder,
            &capacity,
            "model_tokens_per_second",
            "Completion tokens per second",
            |model| Some(model.tokens_per_second),
        )?;
        let wait = "Estimated wait of a new request for a slot, where it is known";
        gauge(&mut encoder, &capacity, "model_estimated_wait_seconds", wait, |model| {
            let ms = model.estimated_wait_ms?;
            #[allow(clippy::cast_precision_loss, reason = "an estimate")]
            Some(ms as f64 / 1000.0)
        })
    }
}

type TotalGauge = fn(&Total) -> f64;

/// The gauges over all ready workers, each counted once.
const TOTALS: [(&str, &str, TotalGauge); 6] = [
    ("slots", "Slots of all ready workers", |total| total.slots.into()),
    ("free_slots", "Free slots of all ready workers", |total| {
        total.free.into()
    }),
    ("active", "Requests running on all ready workers", |total| {
        total.active.into()
    }),
    ("queued", "Requests waiting on all ready workers", |total| {
        total.queued.into()
    }),
    (
        "waiting",
        "Requests waiting at gateways for a worker with room",
        |total| total.waiting.into(),
    ),
    (
        "tokens_per_second",
        "Completion tokens per second of all ready workers",
        |total| total.tokens_per_second,
    ),
];

type ModelGauge = fn(&ModelCapacity) -> u32;

/// The integer gauges of each model.
const MODEL_COUNTS: [(&str, &str, ModelGauge); 7] = [
    ("model_workers", "Ready workers that serve the model", |model| {
        model.workers
    }),
    (
        "model_slots",
        "Slots of those workers, shared with their other models: they do not add up",
        |model| model.slots,
    ),
    ("model_free_slots", "Free slots of those workers", |model| model.free),
    (
        "model_active",
        "Requests for the model that run on those workers",
        |model| model.active,
    ),
    (
        "model_queued",
        "Requests for the model that wait on those workers",
        |model| model.queued,
    ),
    (
        "model_waiting",
        "Requests for the model that wait at gateways for a worker with room",
        |model| model.waiting,
    ),
    (
        "model_desired_workers",
        "Workers that the load asks for: the autoscaling signal",
        |model| model.desired_workers,
    ),
];

/// One gauge with a value for each model that has one.
fn gauge<V: EncodeGaugeValue>(
    encoder: &mut DescriptorEncoder<'_>,
    capacity: &Capacity,
    name: &str,
    help: &str,
    of: impl Fn(&ModelCapacity) -> Option<V>,
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for model in &capacity.models {
        if let Some(value) = of(model) {
            family
                .encode_family(&[("model", model.model.as_str())])?
                .encode_gauge(&value)?;
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use prometheus_client::encoding::text::encode;
    use tokenbus_protocol::Name;

    use super::*;
    use crate::limits::LOST_AFTER;
    use crate::registry::fixture::{at, info, reporting, status};
    use crate::scaling::Scaling;
    use crate::snapshot::{Stamp, fold};
    use crate::waiting::WaitingAtGateways;

    #[test]
    fn models_are_told_with_awkward_names_and_vanish_with_the_model() {
        let mut workers = crate::registry::Registry::new(LOST_AFTER);
        let busy = reporting(status("w", 1, 1), |report| {
            report.models = vec![info("a \"b\"\\\n/c")];
            report.active = 4;
            report.queued = 2;
        });
        workers.observe(busy, at(0.0)).unwrap();
        let stamp = Stamp {
            coordinator: Name::new("c").unwrap(),
            seq: 1,
            at_ms: 0,
        };
        let capacity = fold(
            &workers,
            &WaitingAtGateways::default(),
            &mut Scaling::default(),
            stamp.clone(),
            at(0.0),
        );
        let (newest, told) = watch::channel(Arc::new(capacity));
        let metrics = Metrics::default();
        metrics.statuses.inc();
        let (_, totals) = watch::channel(WorkerTotals::default());
        let registry = registry(&metrics, &BusMetrics::default(), told, totals);

        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        let label = r#"{model="a \"b\"\\\n/c"}"#;
        for line in [
            format!("tokenbus_coordinator_model_slots{label} 4"),
            format!("tokenbus_coordinator_model_free_slots{label} 0"),
            format!("tokenbus_coordinator_model_queued{label} 2"),
            format!("tokenbus_coordinator_model_waiting{label} 0"),
            "tokenbus_coordinator_slots 4.0".to_owned(),
            "tokenbus_coordinator_active 4.0".to_owned(),
            format!("tokenbus_coordinator_model_desired_workers{label} 2"),
            r#"tokenbus_coordinator_workers{state="ready"} 1"#.to_owned(),
            "tokenbus_coordinator_statuses_total 1".to_owned(),
            "tokenbus_coordinator_nats_connected 0".to_owned(),
        ] {
            assert!(text.lines().any(|l| l == line), "no {line} in\n{text}");
        }
        assert!(!text.contains("model_estimated_wait_seconds{"), "unknown is not told");

        let nobody = crate::registry::Registry::new(LOST_AFTER);
        newest.send_replace(Arc::new(fold(
            &nobody,
            &WaitingAtGateways::default(),
            &mut Scaling::default(),
            stamp,
            at(0.0),
        )));
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        assert!(!text.contains("{model="));
    }
}
