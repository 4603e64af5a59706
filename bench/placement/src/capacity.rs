//! What a cluster can do of a workload.

use crate::cluster::{Arrivals, Run};
use crate::policy::Kind;
use crate::setting::Cluster;
use crate::time::{Nanos, SECOND, seconds};
use crate::workload::Workload;
use crate::workload::demand::Demand;

/// Part of a cluster's slots that are kept busy while its capacity is measured.
const BUSY: [f64; 2] = [0.5, 1.0];

/// Requests per second that the cluster serves if it never lacks any, placed by the all-knowing policy. The workload is
/// made at the rate that was measured before, because how much its requests share depends on it.
pub fn measure(cluster: &Cluster, workload: Workload, length: Nanos, seed: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "workers are few")]
    let mut rate = cluster.engines.len() as f64 * 4.0;
    for _ in 0..2 {
        rate = BUSY
            .into_iter()
            .map(|busy| saturated(cluster, workload, Demand { rate, length, seed }, busy))
            .fold(0.0, f64::max);
    }
    rate
}

fn saturated(cluster: &Cluster, workload: Workload, demand: Demand, busy: f64) -> f64 {
    let requests = workload.requests(demand);
    let slots: u32 = cluster.engines.iter().map(|engine| engine.slots).sum();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a part of the slots"
    )]
    let at_once = (f64::from(slots) * busy) as usize;
    let outcome = Run {
        cluster,
        requests: &requests,
        policy: Kind::AllKnowing,
        arrivals: Arrivals::Closed(at_once),
        kills: &[],
        until: 3_600 * SECOND,
        seed: demand.seed,
    }
    .outcome();
    // The first third warms the caches; when fewer requests are left than are to be at once, the load falls.
    let mut ends: Vec<Nanos> = outcome.fates.iter().filter_map(|fate| fate.ended).collect();
    ends.sort_unstable();
    let (from, until) = (ends.len() / 3, ends.len().saturating_sub(at_once));
    let (Some(first), Some(last)) = (ends.get(from), ends.get(until)) else {
        return 1.0;
    };
    #[expect(clippy::cast_precision_loss, reason = "requests are few")]
    let served = until.saturating_sub(from) as f64;
    served / seconds(last.saturating_sub(*first)).max(1e-9)
}
