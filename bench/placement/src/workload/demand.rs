//! How many requests of a workload come, and when.

use fastrand::Rng;

use crate::prompt::Request;
use crate::random::exponential;
use crate::time::{Nanos, SECOND, from_seconds, seconds};

/// How many requests, how fast and from which seed.
#[derive(Debug, Clone, Copy)]
pub struct Demand {
    /// Requests per second, on average.
    pub rate: f64,
    /// For how long.
    pub length: Nanos,
    /// The seed.
    pub seed: u64,
}

/// Sessions begin this long before the run does, so that it finds them at every stage.
const LEAD: Nanos = 300 * SECOND;

/// Sessions that begin at `rate` a second: calls `each` with the time of each beginning, counted from [`LEAD`] before
/// the run, and keeps what they ask during the run.
pub(super) fn sessions(
    rng: &mut Rng,
    rate: f64,
    length: Nanos,
    mut each: impl FnMut(&mut Rng, Nanos, &mut Vec<Request>),
) -> Vec<Request> {
    let mut all = Vec::new();
    poisson(rng, rate, LEAD + length, |rng, at| each(rng, at, &mut all));
    all.retain_mut(|request| {
        let at = request.at.checked_sub(LEAD);
        request.at = at.unwrap_or(0);
        at.is_some()
    });
    all
}

/// Poisson arrivals: calls `each` with the time of each of them.
pub(super) fn poisson(rng: &mut Rng, rate: f64, length: Nanos, mut each: impl FnMut(&mut Rng, Nanos)) {
    let mut at = 0.0;
    let end = seconds(length);
    loop {
        at += exponential(rng, 1.0 / rate);
        if at >= end {
            return;
        }
        each(rng, from_seconds(at));
    }
}
