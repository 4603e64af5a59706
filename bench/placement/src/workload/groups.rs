//! Many system prompts, as in llm-d's benchmark: 150 of 6,000 tokens, each with five users who have 1,200 tokens of
//! their own before each question.

use super::demand::{Demand, poisson};
use crate::prompt::{Path, Request};
use crate::random::{mix, tokens};

const PROMPTS: u64 = 150;
const USERS: u64 = 5;

pub(super) fn requests(demand: Demand) -> Vec<Request> {
    let mut rng = fastrand::Rng::with_seed(mix(demand.seed));
    let mut all = Vec::new();
    poisson(&mut rng, demand.rate, demand.length, |rng, at| {
        let prompt = rng.u64(..PROMPTS);
        let user = rng.u64(..USERS);
        let mut path = Path::default();
        path.message(prompt, 6_000);
        path.message(1_000 + user, 1_200);
        let question = rng.u64(..);
        path.message(question, tokens(rng, 60.0, 0.5, 8..=400));
        let answer = tokens(rng, 220.0, 0.5, 8..=1_000);
        all.push(path.ask(at, prompt * USERS + user, question, answer));
    });
    all
}
