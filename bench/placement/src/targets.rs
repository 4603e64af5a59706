//! What placement is to reach, and what it reached.

use crate::policy::Kind;
use crate::scenario::{LOADS, Recovery, Row, Study};
use crate::workload::Workload;

/// One target.
#[derive(Debug, Clone)]
pub struct Target {
    /// What is meant.
    pub what: String,
    /// How much of it.
    pub wanted: String,
    /// What was found.
    pub found: String,
    /// Whether that is enough.
    pub met: bool,
}

/// All targets for which something was simulated.
pub fn all(study: &Study, uneven: &[Row], recovery: &[Recovery]) -> Vec<Target> {
    let mut targets = Vec::new();
    for workload in [Workload::Agents, Workload::Groups] {
        if study.capacity(workload) > 0.0 {
            targets.extend(shared(study, workload));
        }
    }
    if study.capacity(Workload::Unshared) > 0.0 {
        targets.extend(LOADS.map(|load| unshared(study, load)));
    }
    if study.capacity(Workload::Giant) > 0.0 {
        let found = study.figures(Workload::Giant, LOADS[1], Kind::OURS).imbalance;
        targets.push(at_most("one giant prompt at 80 %: largest load over mean", 1.3, found));
    }
    let goodput = |kind| {
        uneven
            .iter()
            .find(|row| row.policy == kind)
            .map(|row| row.figures.goodput)
    };
    if let (Some(ours), Some(mark)) = (goodput(Kind::OURS), goodput(Kind::LeastLoaded)) {
        targets.push(Target {
            what: "speeds 1:2:4: goodput beside least loaded".to_owned(),
            wanted: "≥ 1.3".to_owned(),
            found: format!("{:.2}", ours / mark),
            met: ours >= 1.3 * mark,
        });
    }
    let ours = recovery.iter().find(|recovery| recovery.policy == Kind::OURS);
    targets.extend(ours.map(|ours| {
        Target {
            what: "one worker in eight dies: hit rate back to 90 %".to_owned(),
            wanted: "≤ 60 s".to_owned(),
            found: ours
                .seconds
                .map_or_else(|| "never".to_owned(), |seconds| format!("{seconds} s")),
            met: ours.seconds.is_some_and(|seconds| seconds <= 60),
        }
    }));
    targets
}

fn at_most(what: &str, bound: f64, found: f64) -> Target {
    Target {
        what: what.to_owned(),
        wanted: format!("≤ {bound}"),
        found: format!("{found:.2}"),
        met: found <= bound,
    }
}

fn shared(study: &Study, workload: Workload) -> [Target; 2] {
    let p90 = |kind| study.figures(workload, LOADS[1], kind).ttft[1];
    let others = Kind::ALL
        .into_iter()
        .filter(|kind| ![Kind::OURS, Kind::AllKnowing].contains(kind));
    let best = others.map(p90).fold(f64::INFINITY, f64::min);
    let what = format!("{} at 80 %: TTFT p90 beside the best other policy's", workload.name());
    [
        at_most(&what, 1.0, p90(Kind::OURS) / best),
        at_most(
            "the same, beside the all-knowing one's",
            1.15,
            p90(Kind::OURS) / p90(Kind::AllKnowing),
        ),
    ]
}

fn unshared(study: &Study, load: f64) -> Target {
    let p99 = |kind| study.figures(Workload::Unshared, load, kind).ttft[2];
    let what = format!("no sharing at {:.0} %: TTFT p99 beside least loaded", load * 100.0);
    at_most(&what, 1.03, p99(Kind::OURS) / p99(Kind::LeastLoaded))
}
