//! Prompts that share nothing.

use super::demand::{Demand, poisson};
use crate::prompt::{Path, Request};
use crate::random::{mix, tokens};

pub(super) fn requests(demand: Demand) -> Vec<Request> {
    let mut rng = fastrand::Rng::with_seed(mix(demand.seed));
    let mut all = Vec::new();
    poisson(&mut rng, demand.rate, demand.length, |rng, at| {
        let mut path = Path::default();
        let text = rng.u64(..);
        path.message(text, tokens(rng, 1_500.0, 0.9, 16..=30_000));
        let answer = tokens(rng, 200.0, 0.7, 8..=1_500);
        all.push(path.ask(at, text, mix(text), answer));
    });
    all
}
