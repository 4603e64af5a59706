//! What decides where a request goes. Each gateway has a policy of its own, which sees only what that gateway hears.

mod all_knowing;
mod bounded_hash;
mod cache_aware;
pub mod decide;
mod dynamo;
mod least_loaded;
mod loads;
mod ours;
mod random;
mod round_robin;

use self::decide::Policy;
use crate::reporter::MakeReporter;
use crate::setting::Cluster;
use crate::worker_side::WorkerSide;

/// The policies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Any worker.
    Random,
    /// One worker after the other.
    RoundRobin,
    /// The worker with the smallest share of taken slots.
    LeastLoaded,
    /// Consistent hashing with bounded loads.
    BoundedHash,
    /// `SGLang`'s cache-aware policy.
    CacheAware,
    /// Dynamo's cost.
    Dynamo,
    /// tokenbus's.
    Ours,
    /// The shortest time to the first token, from perfect knowledge.
    AllKnowing,
}

impl Kind {
    /// The one that tokenbus has.
    pub const OURS: Self = Self::Ours;

    /// All of them, in the order of the tables.
    pub const ALL: [Self; 8] = [
        Self::Random,
        Self::RoundRobin,
        Self::LeastLoaded,
        Self::BoundedHash,
        Self::CacheAware,
        Self::Dynamo,
        Self::Ours,
        Self::AllKnowing,
    ];

    /// Its name in tables and plots.
    pub fn name(self) -> &'static str {
        match self {
            Self::Random => "random",
            Self::RoundRobin => "round robin",
            Self::LeastLoaded => "least loaded",
            Self::BoundedHash => "bounded hash",
            Self::CacheAware => "SGLang's",
            Self::Dynamo => "Dynamo's",
            Self::Ours => "tokenbus",
            Self::AllKnowing => "all-knowing",
        }
    }

    /// Whether workers refuse what would wait for a slot, as tokenbus's do; others keep it in a queue of their own.
    pub fn workers_refuse(self) -> bool {
        self == Self::Ours
    }

    /// What makes the part of a worker that reports to the gateways, where the policy needs one.
    pub fn reporter(self) -> Option<MakeReporter> {
        (self == Self::Ours).then_some(WorkerSide::boxed)
    }

    /// A policy for one gateway of a cluster.
    pub fn build(self, cluster: &Cluster, seed: u64) -> Box<dyn Policy> {
        let engines = &cluster.engines;
        let workers = engines.len();
        match self {
            Self::Random => Box::new(random::Random::new(workers, seed)),
            Self::RoundRobin => Box::new(round_robin::RoundRobin::new(workers, seed)),
            Self::LeastLoaded => Box::new(least_loaded::LeastLoaded::new(workers, seed)),
            Self::BoundedHash => Box::new(bounded_hash::BoundedHash::new(workers)),
            Self::CacheAware => Box::new(cache_aware::CacheAware::new(workers, seed)),
            Self::Dynamo => Box::new(dynamo::Dynamo::new(workers, seed)),
            Self::Ours => Box::new(ours::Ours::new(cluster, seed)),
            Self::AllKnowing => Box::new(all_knowing::AllKnowing::new(seed)),
        }
    }
}
