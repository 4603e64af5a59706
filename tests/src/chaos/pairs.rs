//! The plan of a seeded run with two faults at a time. Pure: the same seed gives the same plan.

use std::fmt;
use std::time::Duration;

use super::plan::{Act, Cast, SplitMix};

/// Two faults that overlap in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pair {
    /// The pause before the first.
    pub pause: Duration,
    /// The first fault.
    pub first: Act,
    /// How long after the first fault the second begins. The first is not healed by then.
    pub lag: Duration,
    /// The second fault.
    pub second: Act,
}

/// The faults of a run: endless, in order.
#[derive(Debug, Clone)]
pub struct Pairs {
    random: SplitMix,
    cast: Cast,
    nodes: usize,
}

/// What a fault occupies while it lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Thing {
    Worker(usize),
    EveryWorker,
    Coordinator(usize),
    /// Clients need one of the gateways.
    Gateway,
    /// NATS needs most of its servers.
    Node,
}

impl Thing {
    fn of(act: Act) -> Self {
        match act {
            Act::KillWorker(number, _)
            | Act::FreezeWorker(number, _)
            | Act::RestartWorker(number)
            | Act::CutLink(number, _)
            | Act::StallLink(number, _)
            | Act::SlowLink(number, _)
            | Act::LossyLink(number, _) => Self::Worker(number),
            Act::KillAllWorkers(_) => Self::EveryWorker,
            Act::KillCoordinator(number, _) => Self::Coordinator(number),
            Act::KillGateway(..) | Act::RestartGateway(_) => Self::Gateway,
            Act::KillNats(_) | Act::KillNode(..) | Act::FreezeNode(..) => Self::Node,
        }
    }

    fn clashes(self, other: Self) -> bool {
        match (self, other) {
            (Self::EveryWorker, Self::Worker(_) | Self::EveryWorker) | (Self::Worker(_), Self::EveryWorker) => true,
            (one, two) => one == two,
        }
    }
}

impl Pairs {
    /// The plan of this seed, with `nodes` NATS servers.
    pub fn new(seed: u64, cast: Cast, nodes: usize) -> Self {
        Self {
            random: SplitMix(seed),
            cast,
            nodes,
        }
    }

    fn act(&mut self) -> Act {
        let Cast {
            workers,
            gateways,
            coordinators,
        } = self.cast;
        let random = &mut self.random;
        match random.below(24) {
            0..=5 => Act::KillWorker(random.one_of(workers), random.millis(200, 2_500)),
            6..=7 => Act::FreezeWorker(random.one_of(workers), random.millis(500, 7_000)),
            8..=10 => Act::RestartWorker(random.one_of(workers)),
            11 => Act::CutLink(random.one_of(workers), random.millis(300, 3_000)),
            12 => Act::StallLink(random.one_of(workers), random.millis(500, 7_000)),
            13 => Act::SlowLink(random.one_of(workers), random.millis(1_000, 4_000)),
            14 => Act::LossyLink(random.one_of(workers), random.millis(1_000, 4_000)),
            15..=16 => Act::KillCoordinator(random.one_of(coordinators), random.millis(300, 3_000)),
            17 => Act::KillGateway(random.one_of(gateways), random.millis(200, 1_500)),
            18 => Act::RestartGateway(random.one_of(gateways)),
            19..=20 => Act::KillNode(random.one_of(self.nodes), random.millis(300, 3_000)),
            21..=22 => Act::FreezeNode(random.one_of(self.nodes), random.millis(500, 6_000)),
            // Well within the time that a stream waits for a successor of its last worker.
            _ => Act::KillAllWorkers(random.millis(0, 3_000)),
        }
    }
}

impl Iterator for Pairs {
    type Item = Pair;

    fn next(&mut self) -> Option<Pair> {
        let pause = self.random.millis(1_500, 4_000);
        let first = self.act();
        let second = loop {
            let second = self.act();
            if !Thing::of(first).clashes(Thing::of(second)) {
                break second;
            }
        };
        // No fault is healed within 200 ms.
        let lag = self.random.millis(0, 200);
        Some(Pair {
            pause,
            first,
            lag,
            second,
        })
    }
}

impl fmt::Display for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {:?} later {}", self.first, self.lag, self.second)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const CAST: Cast = Cast {
        workers: 4,
        gateways: 2,
        coordinators: 2,
    };

    fn plan(seed: u64) -> Pairs {
        Pairs::new(seed, CAST, 3)
    }

    #[test]
    fn a_seed_means_one_plan() {
        let some = |seed| plan(seed).take(200).collect::<Vec<_>>();
        assert_eq!(some(1), some(1));
        assert_ne!(some(1), some(2));
        // Golden: a seed in a report must keep its meaning.
        let first: Vec<String> = plan(1).take(3).map(|pair| pair.to_string()).collect();
        assert_eq!(first, GOLDEN);
    }

    const GOLDEN: [&str; 3] = [
        "worker 2 frozen for 5.235s; 45ms later worker 0 restarted in order",
        "kill -9 of worker 2, back after 1.537s; 16ms later NATS node 2 frozen for 5.022s",
        "kill -9 of worker 1, back after 714ms; 85ms later kill -9 of worker 2, back after 1.144s",
    ];

    #[test]
    fn two_of_any_kinds_meet_and_never_more_than_may_be_missing() {
        let pairs: Vec<Pair> = plan(7).take(20_000).collect();
        let kinds = |pair: &Pair| {
            (
                std::mem::discriminant(&pair.first),
                std::mem::discriminant(&pair.second),
            )
        };
        let met: HashSet<_> = pairs.iter().map(kinds).collect();
        // 13 kinds, any two of them, in both orders, except: two gateways (4), two NATS servers (4), all workers
        // twice (1), all workers and one of them (2 × 7).
        assert_eq!(met.len(), 13 * 13 - 4 - 4 - 1 - 14);
        for pair in pairs {
            let (one, two) = (Thing::of(pair.first), Thing::of(pair.second));
            assert!(!one.clashes(two) && !two.clashes(one), "{pair}");
        }
    }
}
