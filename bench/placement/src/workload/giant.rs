//! One prompt of 30,000 tokens that every request shares, with a question of its own behind it.

use super::demand::{Demand, poisson};
use crate::prompt::{Path, Request};
use crate::random::{mix, tokens};

pub(super) fn requests(demand: Demand) -> Vec<Request> {
    let mut rng = fastrand::Rng::with_seed(mix(demand.seed));
    let mut all = Vec::new();
    poisson(&mut rng, demand.rate, demand.length, |rng, at| {
        let mut path = Path::default();
        path.message(1, 30_000);
        let question = rng.u64(..);
        path.message(question, tokens(rng, 300.0, 0.8, 10..=4_000));
        let answer = tokens(rng, 180.0, 0.6, 8..=1_000);
        all.push(path.ask(at, question, mix(question), answer));
    });
    all
}
