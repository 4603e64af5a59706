//! Chats of several turns under a few system prompts.

use super::demand::{Demand, sessions};
use crate::prompt::{Path, Request};
use crate::random::{Zipf, exponential, geometric, mix, tokens};
use crate::time::from_seconds;

/// Turns of a chat, on average.
const TURNS: f64 = 5.0;

/// Seconds until a person has read the answer and written the next question, on average.
const PAUSE: f64 = 20.0;

pub(super) fn requests(demand: Demand) -> Vec<Request> {
    let mut rng = fastrand::Rng::with_seed(mix(demand.seed));
    let popular = Zipf::new(20, 1.0);
    let mut session = 0;
    sessions(&mut rng, demand.rate / TURNS, demand.length, |rng, at, all| {
        session += 1;
        let mut path = Path::default();
        path.message(popular.draw(rng) as u64, 1_200);
        let mut now = at;
        for _ in 0..geometric(rng, TURNS, 30) {
            let said = rng.u64(..);
            path.message(said, tokens(rng, 120.0, 1.0, 5..=4_000));
            let answer = tokens(rng, 250.0, 0.7, 5..=1_500);
            all.push(path.ask(now, session, mix(said), answer));
            now += from_seconds(exponential(rng, PAUSE) + f64::from(answer) * 0.04 + 2.0);
        }
    })
}
