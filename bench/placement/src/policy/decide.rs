//! What a policy is: it places requests, and hears what its gateway hears.

use crate::engine::Number;
use crate::fleet::Fleet;
use crate::prompt::Request;
use crate::reporter::{Report, Room};
use crate::time::Nanos;

/// A request to place.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// Its number in the workload.
    pub number: Number,
    /// The request.
    pub request: &'a Request,
    /// Workers that refused it since it last waited, as a set.
    pub refused_by: crate::holders::Set,
    /// It has waited for this worker, and it is its turn there.
    pub turn_at: Option<usize>,
    /// It may wait for one worker.
    pub may_hold: bool,
    /// The time.
    pub now: Nanos,
    /// What is true of all engines. Only policies whose description says so may look at it.
    pub truth: &'a Fleet,
}

/// Where a request goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// To this worker.
    Worker(usize),
    /// Nowhere yet: it waits at the gateway for a slot of this worker, but no longer than so many nanoseconds.
    Hold(usize, Nanos),
    /// Nowhere yet: it waits at the gateway for any free slot.
    Wait,
}

/// A gateway's policy.
pub trait Policy {
    /// Chooses a worker.
    fn place(&mut self, ask: &Ask<'_>) -> Choice;

    /// The request was sent to this worker.
    fn sent(&mut self, _ask: &Ask<'_>, _worker: usize) {}

    /// The worker has taken the request.
    fn taken(&mut self, _number: Number, _worker: usize) {}

    /// One request more or less waits for this worker, with so many tokens to be read there.
    fn held(&mut self, _number: Number, _worker: usize, _more: bool) {}

    /// A worker refused a request, because its slots were taken.
    fn refused(&mut self, _number: Number, _worker: usize, _now: Nanos) {}

    /// The first token of a request has arrived, and how many tokens of its prompt were cached.
    fn first_token(&mut self, _number: Number, _worker: usize, _cached: u32, _now: Nanos) {}

    /// A request of this gateway has ended, or its worker was lost.
    fn ended(&mut self, _number: Number, _worker: usize, _now: Nanos) {}

    /// What a worker says in its answers to this gateway: the requests that it holds.
    fn room(&mut self, _worker: usize, _room: Room, _now: Nanos) {}

    /// Whether a worker can take a request now, as far as is known.
    fn is_open(&self, _worker: usize) -> bool {
        false
    }

    /// A worker's status has arrived.
    fn status(&mut self, _worker: usize, _report: &Report, _now: Nanos) {}

    /// A worker is lost.
    fn lost(&mut self, worker: usize);

    /// How many decisions had which reason.
    fn reasons(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }
}

/// The candidate with the lowest cost; those that cost the same are equally likely.
pub fn cheapest(
    candidates: impl Iterator<Item = usize>,
    rng: &mut fastrand::Rng,
    mut cost: impl FnMut(usize) -> f64,
) -> Option<usize> {
    let mut best: Option<(usize, f64)> = None;
    let mut equal = 0;
    for candidate in candidates {
        let price = cost(candidate);
        match best {
            Some((_, lowest)) if price > lowest => {}
            Some((_, lowest)) if price >= lowest => {
                equal += 1;
                if rng.u32(..equal) == 0 {
                    best = Some((candidate, price));
                }
            }
            _ => {
                equal = 1;
                best = Some((candidate, price));
            }
        }
    }
    best.map(|(candidate, _)| candidate)
}
