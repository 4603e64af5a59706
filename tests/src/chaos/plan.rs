//! The plan of a seeded run. Pure: the same seed gives the same plan.

use std::fmt;
use std::time::Duration;

/// One fault. It is healed before the next one of the same target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// kill -9 of a worker, restarted after this time.
    KillWorker(usize, Duration),
    /// SIGSTOP of a worker, SIGCONT after this time.
    FreezeWorker(usize, Duration),
    /// SIGTERM of a worker, and a restart.
    RestartWorker(usize),
    /// A worker's link to NATS is closed and refuses connections for this long.
    CutLink(usize, Duration),
    /// A worker's link to NATS carries nothing for this long, without telling anybody.
    StallLink(usize, Duration),
    /// A worker's link to NATS is delayed by 100 ms for this long.
    SlowLink(usize, Duration),
    /// kill -9 of a coordinator, restarted after this time.
    KillCoordinator(usize, Duration),
    /// kill -9 of a gateway, restarted after this time. Its clients see their connections break.
    KillGateway(usize, Duration),
    /// SIGTERM of a gateway, and a restart.
    RestartGateway(usize),
    /// kill -9 of the nats-server, restarted after this time.
    KillNats(Duration),
    /// kill -9 of one server of a NATS cluster, restarted after this time.
    KillNode(usize, Duration),
    /// SIGSTOP of one server of a NATS cluster, SIGCONT after this time.
    FreezeNode(usize, Duration),
    /// A worker's link to NATS loses packets for this long.
    LossyLink(usize, Duration),
    /// kill -9 of every worker, all restarted after this time.
    KillAllWorkers(Duration),
}

/// A fault, and the pause between the end of the previous one and its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// The pause before it.
    pub pause: Duration,
    /// The fault.
    pub act: Act,
}

/// The number of targets of each role.
#[derive(Debug, Clone, Copy)]
pub struct Cast {
    /// Workers.
    pub workers: usize,
    /// Gateways.
    pub gateways: usize,
    /// Coordinators.
    pub coordinators: usize,
}

/// The faults of a run: endless, in order.
#[derive(Debug, Clone)]
pub struct Plan {
    random: SplitMix,
    cast: Cast,
}

impl Plan {
    /// The plan of this seed.
    pub fn new(seed: u64, cast: Cast) -> Self {
        Self {
            random: SplitMix(seed),
            cast,
        }
    }

    fn act(&mut self) -> Act {
        let Cast {
            workers,
            gateways,
            coordinators,
        } = self.cast;
        let random = &mut self.random;
        match random.below(20) {
            0..=5 => Act::KillWorker(random.one_of(workers), random.millis(0, 2_000)),
            6..=7 => Act::FreezeWorker(random.one_of(workers), random.millis(300, 8_000)),
            8..=10 => Act::RestartWorker(random.one_of(workers)),
            11..=12 => Act::CutLink(random.one_of(workers), random.millis(100, 3_000)),
            13 => Act::StallLink(random.one_of(workers), random.millis(300, 8_000)),
            14 => Act::SlowLink(random.one_of(workers), random.millis(500, 3_000)),
            15..=16 => Act::KillCoordinator(random.one_of(coordinators), random.millis(0, 3_000)),
            17 => Act::KillGateway(random.one_of(gateways), random.millis(0, 1_000)),
            18 => Act::RestartGateway(random.one_of(gateways)),
            _ => Act::KillNats(random.millis(100, 3_000)),
        }
    }
}

impl Iterator for Plan {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        // Long enough for streams to make progress in between: after three losses in a row without progress the
        // client gets an error.
        let pause = self.random.millis(700, 2_500);
        let act = self.act();
        Some(Step { pause, act })
    }
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KillWorker(number, back) => write!(f, "kill -9 of worker {number}, back after {back:?}"),
            Self::FreezeWorker(number, time) => write!(f, "worker {number} frozen for {time:?}"),
            Self::RestartWorker(number) => write!(f, "worker {number} restarted in order"),
            Self::CutLink(number, time) => write!(f, "link of worker {number} cut for {time:?}"),
            Self::StallLink(number, time) => write!(f, "link of worker {number} stalled for {time:?}"),
            Self::SlowLink(number, time) => write!(f, "link of worker {number} slow for {time:?}"),
            Self::KillCoordinator(number, back) => write!(f, "kill -9 of coordinator {number}, back after {back:?}"),
            Self::KillGateway(number, back) => write!(f, "kill -9 of gateway {number}, back after {back:?}"),
            Self::RestartGateway(number) => write!(f, "gateway {number} restarted in order"),
            Self::KillNats(back) => write!(f, "kill -9 of the nats-server, back after {back:?}"),
            Self::KillNode(number, back) => write!(f, "kill -9 of NATS node {number}, back after {back:?}"),
            Self::FreezeNode(number, time) => write!(f, "NATS node {number} frozen for {time:?}"),
            Self::LossyLink(number, time) => write!(f, "link of worker {number} loses packets for {time:?}"),
            Self::KillAllWorkers(back) => write!(f, "kill -9 of every worker, back after {back:?}"),
        }
    }
}

/// Steele, Lea and Flood's SplitMix64, written out so that a seed always gives the same plan.
#[derive(Debug, Clone)]
pub(super) struct SplitMix(pub(super) u64);

impl SplitMix {
    fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`. The tiny bias of the remainder is harmless here.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.draw() % bound
    }

    /// A time between `from` and `to` milliseconds.
    pub(super) fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.below(to - from))
    }

    /// An index below `count`.
    pub(super) fn one_of(&mut self, count: usize) -> usize {
        usize::try_from(self.below(count as u64)).expect("a small number")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAST: Cast = Cast {
        workers: 4,
        gateways: 2,
        coordinators: 2,
    };

    #[test]
    fn a_seed_means_one_plan() {
        let plan = |seed| Plan::new(seed, CAST).take(200).collect::<Vec<_>>();
        assert_eq!(plan(1), plan(1));
        assert_ne!(plan(1), plan(2));
        // Golden: a seed in a report must keep its meaning.
        let first: Vec<String> = plan(1).iter().take(3).map(|step| step.act.to_string()).collect();
        assert_eq!(first, GOLDEN);
    }

    const GOLDEN: [&str; 3] = [
        "kill -9 of the nats-server, back after 690ms",
        "kill -9 of worker 0, back after 1.045s",
        "kill -9 of worker 2, back after 737ms",
    ];

    #[test]
    fn every_act_occurs_and_hurts_only_what_is_there() {
        let acts: Vec<Act> = Plan::new(7, CAST).take(1000).map(|step| step.act).collect();
        let kinds: std::collections::HashSet<_> = acts.iter().map(std::mem::discriminant).collect();
        assert_eq!(kinds.len(), 10);
        for act in acts {
            let (number, count) = match act {
                Act::KillWorker(number, _)
                | Act::FreezeWorker(number, _)
                | Act::RestartWorker(number)
                | Act::CutLink(number, _)
                | Act::StallLink(number, _)
                | Act::SlowLink(number, _) => (number, CAST.workers),
                Act::KillGateway(number, _) | Act::RestartGateway(number) => (number, CAST.gateways),
                Act::KillCoordinator(number, _) => (number, CAST.coordinators),
                Act::KillNats(_) => (0, 1),
                Act::KillNode(..) | Act::FreezeNode(..) | Act::LossyLink(..) | Act::KillAllWorkers(_) => {
                    panic!("not of a run that breaks one thing at a time: {act}")
                }
            };
            assert!(number < count, "{act}");
        }
    }
}
