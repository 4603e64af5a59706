//! Tools and agents, in the shape of Mooncake's trace: system prompts of very different length and popularity, and
//! sessions that come back with everything said so far and the result of a tool.
//!
//! The trace has 23,608 requests with 8,596 tokens of prompt and 182 of answer on average; 59 % of the prompts' blocks
//! of 512 tokens came before. A test compares.

use super::demand::{Demand, sessions};
use crate::prompt::{Path, Request};
use crate::random::{Zipf, exponential, geometric, mix, tokens};
use crate::time::from_seconds;

/// Kinds of agents, each with its system prompt.
const KINDS: u32 = 160;

/// Turns of a session, on average.
const TURNS: f64 = 1.7;

/// Seconds between two turns, on average, besides the time of the answer.
const PAUSE: f64 = 12.0;

/// Tokens of one block of the trace.
const PIECE: u32 = 512;

/// Longest prompt.
const LONGEST: u32 = 100_000;

pub(super) fn requests(demand: Demand) -> Vec<Request> {
    let mut rng = fastrand::Rng::with_seed(mix(demand.seed));
    let popular = Zipf::new(KINDS, 0.9);
    let systems: Vec<u32> = (0..KINDS)
        .map(|_| tokens(&mut rng, 3_300.0, 0.7, 300..=24_000))
        .collect();
    let mut session = 0;
    sessions(&mut rng, demand.rate / TURNS, demand.length, |rng, at, all| {
        session += 1;
        let kind = popular.draw(rng);
        let mut path = Path::default();
        path.message_in_pieces(kind as u64, systems[kind], PIECE);
        let mut now = at;
        for turn in 0..geometric(rng, TURNS, 40) {
            let said = rng.u64(..);
            path.message_in_pieces(said, tokens(rng, 1_500.0, 1.25, 20..=60_000), PIECE);
            if path.tokens() > LONGEST {
                break;
            }
            let answer = tokens(rng, 120.0, 0.9, 4..=2_000);
            all.push(path.ask(now, session, mix(said ^ u64::from(turn)), answer));
            now += from_seconds(exponential(rng, PAUSE) + f64::from(answer) * 0.04 + 1.0);
        }
    })
}
