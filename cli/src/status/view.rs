//! What is shown, and in which order.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde::Serialize;
use tokenbus_protocol::{Capacity, ModelCapacity, Name, WorkerCapacity};

/// Where the numbers come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Source {
    /// A coordinator's snapshot.
    Coordinator,
    /// The workers themselves: no coordinator answers.
    Workers,
}

/// All that `status` and `top` show.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct View {
    /// The cluster.
    pub(super) namespace: Name,
    /// Where the numbers come from.
    pub(super) source: Source,
    /// The coordinators that were heard, and whether each leads.
    pub(super) coordinators: BTreeMap<Name, bool>,
    /// The numbers.
    #[serde(flatten)]
    pub(super) capacity: Capacity,
}

/// By what models and workers are sorted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum SortKey {
    /// By name, a to z.
    #[default]
    Name,
    /// Most running requests first.
    Active,
    /// Most waiting requests first.
    Queued,
    /// Most free slots first.
    Free,
    /// Most tokens per second first.
    Tokens,
    /// Longest time to first token first (models: longest wait).
    Latency,
}

/// The order of models and workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Order {
    /// By what.
    pub(super) key: SortKey,
    /// The other way round.
    pub(super) reversed: bool,
}

impl Order {
    /// Sorts both lists; equals stay in the order of their names.
    pub(super) fn sort(self, capacity: &mut Capacity) {
        capacity.models.sort_by(|a, b| a.model.cmp(&b.model));
        capacity.workers.sort_by(|a, b| a.report.worker.cmp(&b.report.worker));
        capacity.models.sort_by(|a, b| self.directed(self.models(a, b)));
        capacity.workers.sort_by(|a, b| self.directed(self.workers(a, b)));
    }

    fn directed(self, ordering: Ordering) -> Ordering {
        if self.reversed { ordering.reverse() } else { ordering }
    }

    fn models(self, a: &ModelCapacity, b: &ModelCapacity) -> Ordering {
        match self.key {
            SortKey::Name => a.model.cmp(&b.model),
            SortKey::Active => b.active.cmp(&a.active),
            SortKey::Queued => b.queued.cmp(&a.queued),
            SortKey::Free => b.free.cmp(&a.free),
            SortKey::Tokens => b.tokens_per_second.total_cmp(&a.tokens_per_second),
            SortKey::Latency => b.estimated_wait_ms.cmp(&a.estimated_wait_ms),
        }
    }

    fn workers(self, a: &WorkerCapacity, b: &WorkerCapacity) -> Ordering {
        match self.key {
            SortKey::Name => a.report.worker.cmp(&b.report.worker),
            SortKey::Active => b.report.active.cmp(&a.report.active),
            SortKey::Queued => b.report.queued.cmp(&a.report.queued),
            SortKey::Free => b.report.free().cmp(&a.report.free()),
            SortKey::Tokens => b.report.tokens_per_second.total_cmp(&a.report.tokens_per_second),
            SortKey::Latency => b.report.ttft.p50.total_cmp(&a.report.ttft.p50),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
pub(super) mod tests {
    use tokenbus_protocol::{Capabilities, ModelInfo, Quantiles, Total, WorkerReport, WorkerState};

    use super::*;

    pub(in super::super) fn worker(id: &str, active: u32, tokens_per_second: f64) -> WorkerCapacity {
        WorkerCapacity {
            report: WorkerReport {
                worker: Name::new(id).unwrap(),
                instance: 1,
                seq: 1,
                version: "0.1.0".to_owned(),
                host: "box".to_owned(),
                engine: "sim".to_owned(),
                state: WorkerState::Ready,
                started_at_ms: 0,
                models: vec![ModelInfo {
                    name: "m".to_owned(),
                    context_length: None,
                    capabilities: Capabilities::default(),
                }],
                slots: 8,
                active,
                queued: 0,
                tokens_per_second,
                ttft: Quantiles {
                    p50: 20.4,
                    p90: 50.0,
                    p99: 1234.0,
                },
                itl: Quantiles::default(),
                kv_used: None,
                slots_from: None,
            },
            age_ms: 420,
        }
    }

    pub(in super::super) fn model(name: &str, wait: Option<u64>) -> ModelCapacity {
        ModelCapacity {
            model: name.to_owned(),
            workers: 1,
            slots: 8,
            free: 6,
            active: 2,
            queued: 0,
            waiting: 7,
            tokens_per_second: 99.96,
            estimated_wait_ms: wait,
            desired_workers: 1,
            on_demand: false,
            context_length: None,
            capabilities: Capabilities::default(),
        }
    }

    pub(in super::super) fn view(workers: Vec<WorkerCapacity>, models: Vec<ModelCapacity>) -> View {
        let name = |text| Name::new(text).unwrap();
        View {
            namespace: name("tb"),
            source: Source::Coordinator,
            coordinators: BTreeMap::from([(name("c1"), true), (name("c2"), false)]),
            capacity: Capacity {
                coordinator: name("c1"),
                seq: 3,
                at_ms: 0,
                workers,
                models,
                total: Total {
                    workers: 2,
                    slots: 16,
                    free: 14,
                    active: 2,
                    queued: 0,
                    waiting: 14,
                    tokens_per_second: 123.4,
                },
                lost: vec![],
            },
        }
    }

    fn sorted(key: SortKey, reversed: bool) -> (Vec<String>, Vec<String>) {
        let workers = vec![worker("b", 3, 1.0), worker("a", 1, 9.0), worker("c", 3, 5.0)];
        let models = vec![model("y", Some(7)), model("x", None), model("z", Some(9))];
        let mut capacity = view(workers, models).capacity;
        Order { key, reversed }.sort(&mut capacity);
        let workers = capacity.workers.iter().map(|w| w.report.worker.to_string()).collect();
        (workers, capacity.models.iter().map(|m| m.model.clone()).collect())
    }

    #[test]
    fn names_rise_and_numbers_fall_and_equals_keep_the_order_of_names() {
        assert_eq!(sorted(SortKey::Name, false).0, ["a", "b", "c"]);
        assert_eq!(sorted(SortKey::Name, true).0, ["c", "b", "a"]);
        assert_eq!(sorted(SortKey::Active, false).0, ["b", "c", "a"]);
        assert_eq!(sorted(SortKey::Active, true).0, ["a", "b", "c"]);
        assert_eq!(sorted(SortKey::Free, false).0, ["a", "b", "c"]);
        assert_eq!(sorted(SortKey::Tokens, false).0, ["a", "c", "b"]);
        assert_eq!(
            sorted(SortKey::Latency, false).1,
            ["z", "y", "x"],
            "an unknown wait is the least"
        );
    }

    #[test]
    fn json_has_the_snapshot_at_its_top() {
        let json = serde_json::to_value(view(vec![worker("a", 1, 2.0)], vec![])).unwrap();
        assert_eq!(json["source"], "coordinator");
        assert_eq!(json["coordinators"]["c1"], true);
        assert_eq!(json["workers"][0]["worker"], "a");
        assert_eq!(json["coordinator"], "c1");
    }
}
