//! What a simulated cluster consists of.

use crate::engine::EngineSpec;
use crate::time::{MILLISECOND, Nanos, SECOND};

/// The engine of all scenarios that say nothing else: a model of some 30 billion parameters on one large GPU.
pub const ENGINE: EngineSpec = EngineSpec {
    slots: 32,
    prefill_rate: 10_000.0,
    step: 0.020,
    step_per_sequence: 0.000_4,
    decode_beside_prefill: 0.7,
    cache_tokens: 200_000,
};

/// A simulated cluster.
#[derive(Debug, Clone)]
pub struct Cluster {
    /// The engines.
    pub engines: Vec<EngineSpec>,
    /// How many gateways share the requests.
    pub gateways: usize,
    /// Time from a gateway to a worker, and back.
    pub link: Nanos,
    /// Time between two statuses of a worker.
    pub status_every: Nanos,
    /// Part of the statuses that never arrive.
    pub status_loss: f64,
    /// Until a gateway notices that a worker is gone.
    pub notice: Nanos,
}

impl Cluster {
    /// Equal workers.
    pub fn even(workers: usize, gateways: usize) -> Self {
        Self {
            engines: vec![ENGINE; workers],
            gateways,
            link: MILLISECOND / 2,
            status_every: SECOND,
            status_loss: 0.01,
            notice: 300 * MILLISECOND,
        }
    }

    /// Workers of speeds 1, 2 and 4 in turn.
    pub fn uneven(workers: usize, gateways: usize) -> Self {
        let speeds = [1.0, 2.0, 4.0];
        let mut cluster = Self::even(workers, gateways);
        for (engine, speed) in cluster.engines.iter_mut().zip(speeds.into_iter().cycle()) {
            *engine = ENGINE.faster(speed / 2.0);
        }
        cluster
    }
}
