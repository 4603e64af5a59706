//! What is simulated: every workload at three loads with every policy, an uneven fleet, and the loss of workers.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::capacity;
use crate::cluster::{Arrivals, Run};
use crate::policy::Kind;
use crate::setting::Cluster;
use crate::stats::{Figures, Outcome, Window, best_hits};
use crate::time::{Nanos, SECOND};
use crate::workload::Workload;
use crate::workload::demand::Demand;

/// Loads, as parts of the capacity.
pub const LOADS: [f64; 3] = [0.5, 0.8, 0.95];

/// How large and how long the simulations are.
#[derive(Debug, Clone, Copy)]
pub struct Extent {
    /// Workers.
    pub workers: usize,
    /// Gateways.
    pub gateways: usize,
    /// Time before anything is counted.
    pub warm: Nanos,
    /// Time in which arrivals are counted.
    pub counted: Nanos,
    /// The seed.
    pub seed: u64,
}

impl Extent {
    /// Time of all arrivals.
    fn length(&self) -> Nanos {
        self.warm + self.counted
    }

    fn window(&self) -> Window {
        Window {
            from: self.warm,
            until: self.length(),
            limit: 2 * SECOND,
        }
    }
}

/// The figures of one policy.
#[derive(Debug, Clone)]
pub struct Row {
    /// The policy.
    pub policy: Kind,
    /// What it reached.
    pub figures: Figures,
    /// Its decisions by reason.
    pub reasons: Vec<(&'static str, u64)>,
}

/// Every workload at every load.
#[derive(Debug, Clone, Default)]
pub struct Study {
    cells: Vec<(Workload, f64, Row)>,
    capacities: Vec<(Workload, f64)>,
}

impl Study {
    /// Requests per second that the cluster can serve of a workload; 0 if it was not measured.
    pub fn capacity(&self, workload: Workload) -> f64 {
        let found = self.capacities.iter().find(|(measured, _)| *measured == workload);
        found.map_or(0.0, |(_, rate)| *rate)
    }

    /// One policy's figures; empty ones if it was not simulated.
    pub fn figures(&self, workload: Workload, load: f64, policy: Kind) -> Figures {
        let found = self
            .cells
            .iter()
            .find(|(of, at, row)| *of == workload && (at - load).abs() < 1e-9 && row.policy == policy);
        found.map(|(_, _, row)| row.figures.clone()).unwrap_or_default()
    }

    /// The loads that were simulated.
    pub fn loads(&self) -> Vec<f64> {
        let mut loads: Vec<f64> = self.cells.iter().map(|(_, load, _)| *load).collect();
        loads.sort_by(f64::total_cmp);
        loads.dedup();
        loads
    }

    /// All that was simulated.
    pub fn cells(&self) -> &[(Workload, f64, Row)] {
        &self.cells
    }
}

/// Runs `job` for every item on all processors; the results are in the order of the items.
pub fn in_parallel<T: Sync, R: Send>(items: &[T], job: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::with_capacity(items.len()));
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads.min(items.len()) {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(number) else { return };
                    let result = job(item);
                    if let Ok(mut done) = done.lock() {
                        done.push((number, result));
                    }
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_default();
    done.sort_by_key(|(number, _)| *number);
    done.into_iter().map(|(_, result)| result).collect()
}

/// Simulates these workloads at these loads with these policies.
pub fn study(
    extent: Extent,
    workloads: &[Workload],
    loads: &[f64],
    policies: &[Kind],
    done: impl Fn(&str) + Sync,
) -> Study {
    let cluster = Cluster::even(extent.workers, extent.gateways);
    let rates = in_parallel(workloads, |workload| {
        capacity::measure(&cluster, *workload, extent.counted, extent.seed)
    });
    let capacities: Vec<(Workload, f64)> = workloads.iter().copied().zip(rates).collect();
    let points: Vec<(Workload, f64, f64)> = capacities
        .iter()
        .flat_map(|(workload, rate)| loads.iter().map(|load| (*workload, *load, *rate)))
        .collect();
    let mut cells = Vec::new();
    for (workload, load, rate) in points {
        let demand = Demand {
            rate: rate * load,
            length: extent.length(),
            seed: extent.seed,
        };
        for row in compare(&cluster, workload, demand, extent, policies) {
            cells.push((workload, load, row));
        }
        done(&format!("{} at {:.0} %", workload.name(), load * 100.0));
    }
    Study { cells, capacities }
}

fn compare(cluster: &Cluster, workload: Workload, demand: Demand, extent: Extent, policies: &[Kind]) -> Vec<Row> {
    let requests = workload.requests(demand);
    let best = best_hits(&requests);
    in_parallel(policies, |policy| {
        let outcome = Run {
            cluster,
            requests: &requests,
            policy: *policy,
            arrivals: Arrivals::Open,
            kills: &[],
            until: extent.length() + 1_200 * SECOND,
            seed: extent.seed,
        }
        .outcome();
        Row {
            policy: *policy,
            figures: outcome.figures(&requests, &best, extent.window()),
            reasons: outcome.reasons,
        }
    })
}

/// A fleet of speeds 1, 2 and 4 with two workloads mixed, at 80 % of its capacity.
pub fn uneven(extent: Extent, policies: &[Kind]) -> Vec<Row> {
    let cluster = Cluster::uneven(extent.workers, extent.gateways);
    let workload = Workload::Mixed;
    let capacity = capacity::measure(&cluster, workload, extent.counted, extent.seed);
    let demand = Demand {
        rate: capacity * LOADS[1],
        length: extent.length(),
        seed: extent.seed,
    };
    compare(&cluster, workload, demand, extent, policies)
}

/// What follows the loss of workers.
#[derive(Debug, Clone)]
pub struct Recovery {
    /// The policy.
    pub policy: Kind,
    /// The hit rate in the 30 s before.
    pub before: f64,
    /// The lowest hit rate of a second afterwards, over five seconds.
    pub lowest: f64,
    /// Seconds until the hit rate of five seconds was back at 90 % of that before, and stayed there for ten.
    pub seconds: Option<usize>,
    /// The hit rate of every second, from 30 s before on.
    pub course: Vec<f64>,
}

/// One in eight workers dies at 80 % of what the rest can do.
pub fn recovery(extent: Extent, workload: Workload, policies: &[Kind]) -> Vec<Recovery> {
    let cluster = Cluster::even(extent.workers, extent.gateways);
    let dead = extent.workers / 8;
    #[expect(clippy::cast_precision_loss, reason = "workers are few")]
    let left = 1.0 - dead as f64 / extent.workers as f64;
    let rate = capacity::measure(&cluster, workload, extent.counted, extent.seed) * LOADS[1] * left;
    let length = extent.warm + 30 * SECOND + extent.counted;
    let demand = Demand {
        rate,
        length,
        seed: extent.seed,
    };
    let requests = workload.requests(demand);
    let at = extent.warm + 30 * SECOND;
    let kills: Vec<(Nanos, usize)> = (0..dead).map(|number| (at, number * 8 + 3)).collect();
    in_parallel(policies, |policy| {
        let outcome: Outcome = Run {
            cluster: &cluster,
            requests: &requests,
            policy: *policy,
            arrivals: Arrivals::Open,
            kills: &kills,
            until: length + 1_200 * SECOND,
            seed: extent.seed,
        }
        .outcome();
        let course = outcome.hits_by_second(&requests, at - 30 * SECOND, length);
        recovered(*policy, course)
    })
}

fn recovered(policy: Kind, course: Vec<f64>) -> Recovery {
    #[expect(clippy::cast_precision_loss, reason = "a few seconds")]
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len().max(1) as f64;
    let before = mean(&course[..30]);
    let smooth: Vec<f64> = course[30..].windows(5).map(mean).collect();
    let enough = |part: &[f64]| part.iter().all(|rate| *rate >= 0.9 * before);
    Recovery {
        policy,
        before,
        lowest: smooth.iter().copied().fold(1.0, f64::min),
        seconds: smooth.windows(10).position(enough),
        course,
    }
}
