//! What a run has shown.

use crate::engine::Number;
use crate::prompt::Request;
use crate::time::{Nanos, SECOND, seconds};

/// What became of one request.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Fate {
    /// When its first token arrived at the client.
    pub first_token: Option<Nanos>,
    /// When it ended.
    pub ended: Option<Nanos>,
    /// How often it ended: once, if the simulation is right.
    pub ends: u32,
    /// Tokens of its prompt that were cached, in its last run.
    pub cached: u32,
    /// Times that it was sent to a worker.
    pub sent: u32,
    /// Times that a worker refused it.
    pub refused: u32,
    /// Times that its worker was lost.
    pub lost: u32,
}

/// What a whole run has shown.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Outcome {
    /// Of each request.
    pub fates: Vec<Fate>,
    /// Requests at each worker, sampled: the time, and the largest number over the mean.
    pub imbalance: Vec<(Nanos, f64)>,
    /// The integral of the requests in the system over time, in seconds.
    pub presence: f64,
    /// Requests that have ended.
    pub ended_count: u64,
    /// When the last event happened.
    pub over_at: Nanos,
    /// Decisions by reason, where the policy gives reasons.
    pub reasons: Vec<(&'static str, u64)>,
}

/// The figures of a run, over the requests that arrive within a window.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Figures {
    /// Requests counted.
    pub requests: usize,
    /// Time to the first token in seconds: the median, and what 90 and 99 of 100 do not exceed.
    pub ttft: [f64; 3],
    /// Requests per second whose first token came within the limit.
    pub goodput: f64,
    /// The part of all requests that these are.
    pub good: f64,
    /// Cached tokens of all prompt tokens.
    pub hits: f64,
    /// Cached tokens of those that one endless cache would have had.
    pub hits_of_best: f64,
    /// The mean of the largest number of requests at a worker over the mean number.
    pub imbalance: f64,
    /// Requests that never ended.
    pub failed: usize,
    /// Refusals by workers for each request.
    pub refused: f64,
}

/// A window of arrivals, and the limit of a good time to the first token.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    /// Its beginning.
    pub from: Nanos,
    /// Its end.
    pub until: Nanos,
    /// The limit.
    pub limit: Nanos,
}

/// Cached tokens of each request in one endless cache that serves them in the order of arrival.
pub fn best_hits(requests: &[Request]) -> Vec<u32> {
    let mut seen = rustc_hash::FxHashSet::default();
    let hits = requests.iter().map(|request| {
        let held = request.prompt.iter().take_while(|segment| seen.contains(&segment.id));
        let tokens: u32 = held.map(|segment| segment.tokens).sum();
        seen.extend(request.prompt.iter().map(|segment| segment.id));
        seen.insert(request.answer.id);
        tokens / crate::prompt::BLOCK * crate::prompt::BLOCK
    });
    hits.collect()
}

/// The value at `part` of the sorted `values`; 0 if there are none.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "an index within the values"
)]
pub fn quantile(values: &[f64], part: f64) -> f64 {
    let index = (values.len() as f64 * part).ceil() as usize;
    values
        .get(index.saturating_sub(1).min(values.len().saturating_sub(1)))
        .copied()
        .unwrap_or(0.0)
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

impl Outcome {
    /// The figures of the requests that arrive in `window`; `best` is that of [`best_hits`].
    pub fn figures(&self, requests: &[Request], best: &[u32], window: Window) -> Figures {
        let counted: Vec<Number> = (0..requests.len())
            .filter(|number| (window.from..window.until).contains(&requests[*number].at))
            .collect();
        let ttft = |number: &Number| {
            let first = self.fates[*number].first_token?;
            Some(seconds(first.saturating_sub(requests[*number].at)))
        };
        let mut times: Vec<f64> = counted
            .iter()
            .map(|number| ttft(number).unwrap_or(f64::INFINITY))
            .collect();
        times.sort_unstable_by(f64::total_cmp);
        let limit = seconds(window.limit);
        let good = times.partition_point(|time| *time <= limit);
        let sum = |of: &dyn Fn(Number) -> u32| counted.iter().map(|number| u64::from(of(*number))).sum::<u64>();
        let cached = sum(&|number| self.fates[number].cached);
        let within: Vec<f64> = self
            .imbalance
            .iter()
            .filter(|(at, _)| (window.from..window.until).contains(at))
            .map(|(_, imbalance)| *imbalance)
            .collect();
        let count = counted.len() as u64;
        Figures {
            requests: counted.len(),
            ttft: [0.5, 0.9, 0.99].map(|part| quantile(&times, part)),
            goodput: ratio(good as u64, 1) / seconds(window.until - window.from),
            good: ratio(good as u64, count),
            hits: ratio(cached, sum(&|number| requests[number].prompt_tokens())),
            hits_of_best: ratio(cached, sum(&|number| best[number])),
            #[expect(clippy::cast_precision_loss, reason = "samples are few")]
            imbalance: within.iter().sum::<f64>() / (within.len().max(1) as f64),
            failed: counted
                .iter()
                .filter(|number| self.fates[**number].ended.is_none())
                .count(),
            refused: ratio(sum(&|number| self.fates[number].refused), count),
        }
    }

    /// The hit rate of the requests that arrive in each second from `from` to `until`.
    pub fn hits_by_second(&self, requests: &[Request], from: Nanos, until: Nanos) -> Vec<f64> {
        let length = usize::try_from((until - from) / SECOND).unwrap_or(0);
        let mut cached = vec![0_u64; length];
        let mut tokens = vec![0_u64; length];
        for (request, fate) in requests.iter().zip(&self.fates) {
            let second = request.at.checked_sub(from).map(|since| since / SECOND);
            let Some(second) = second.and_then(|second| usize::try_from(second).ok()) else {
                continue;
            };
            if second < length {
                cached[second] += u64::from(fate.cached);
                tokens[second] += u64::from(request.prompt_tokens());
            }
        }
        cached
            .into_iter()
            .zip(tokens)
            .map(|(part, whole)| ratio(part, whole))
            .collect()
    }
}
