//! Workloads: requests with their times of arrival, made from a seed.

mod agents;
mod chat;
pub mod demand;
mod giant;
mod groups;
mod mixed;
mod unshared;

use self::demand::Demand;
use crate::prompt::Request;

/// The workloads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Workload {
    /// Mooncake's trace of tools and agents: prompts of 8,600 tokens on average, 59 % of which came before.
    Agents,
    /// llm-d's benchmark: 150 system prompts of 6,000 tokens, with five users each.
    Groups,
    /// Chats of several turns under a few system prompts.
    Chat,
    /// One prompt of 30,000 tokens that all requests share.
    Giant,
    /// Nothing is shared.
    Unshared,
    /// A mixture of agents, groups and what shares nothing.
    Mixed,
}

impl Workload {
    /// Those that have tables of their own, in their order.
    pub const ALL: [Self; 5] = [Self::Agents, Self::Groups, Self::Chat, Self::Giant, Self::Unshared];

    /// Its name in tables and plots.
    pub fn name(self) -> &'static str {
        match self {
            Self::Agents => "tools and agents",
            Self::Groups => "150 system prompts",
            Self::Chat => "chat",
            Self::Giant => "one giant prompt",
            Self::Unshared => "no sharing",
            Self::Mixed => "mixed",
        }
    }

    /// Its name on the command line.
    pub fn key(self) -> &'static str {
        match self {
            Self::Agents => "agents",
            Self::Groups => "groups",
            Self::Chat => "chat",
            Self::Giant => "giant",
            Self::Unshared => "unshared",
            Self::Mixed => "mixed",
        }
    }

    /// The requests, by time of arrival.
    pub fn requests(self, demand: Demand) -> Vec<Request> {
        let mut requests = match self {
            Self::Agents => agents::requests(demand),
            Self::Groups => groups::requests(demand),
            Self::Chat => chat::requests(demand),
            Self::Giant => giant::requests(demand),
            Self::Unshared => unshared::requests(demand),
            Self::Mixed => mixed::requests(demand),
        };
        requests.retain(|request| request.at < demand.length);
        requests.sort_by_key(|request| request.at);
        requests
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::best_hits;
    use crate::time::{SECOND, seconds};

    fn demand(rate: f64) -> Demand {
        Demand {
            rate,
            length: 400 * SECOND,
            seed: 1,
        }
    }

    /// Requests per second in the second half, mean tokens of prompt and answer, and the part of the prompt tokens that
    /// an endless cache would hold.
    fn shape(workload: Workload) -> [f64; 4] {
        let requests = workload.requests(demand(50.0));
        assert!(requests.is_sorted_by_key(|request| request.at));
        let late = requests.iter().filter(|request| request.at >= 200 * SECOND).count();
        let hits: u64 = best_hits(&requests).into_iter().map(u64::from).sum();
        let prompt: u64 = requests.iter().map(|request| u64::from(request.prompt_tokens())).sum();
        let answer: u64 = requests.iter().map(|request| u64::from(request.answer.tokens)).sum();
        #[expect(clippy::cast_precision_loss, reason = "a test")]
        let [late, hits, prompt, answer, count] = [
            late as f64,
            hits as f64,
            prompt as f64,
            answer as f64,
            requests.len() as f64,
        ];
        [
            late / seconds(200 * SECOND),
            prompt / count,
            answer / count,
            hits / prompt,
        ]
    }

    fn near(found: f64, wanted: f64, part: f64) {
        assert!((found / wanted - 1.0).abs() <= part, "{found} is not {wanted}");
    }

    #[test]
    fn agents_have_the_shape_of_mooncakes_trace() {
        let [rate, prompt, answer, shared] = shape(Workload::Agents);
        near(rate, 50.0, 0.1);
        near(prompt, 8_596.0, 0.1);
        near(answer, 182.0, 0.1);
        near(shared, 0.59, 0.06);
    }

    #[test]
    fn every_workload_keeps_its_rate() {
        for workload in Workload::ALL {
            let [rate, prompt, answer, shared] = shape(workload);
            eprintln!(
                "{}: {rate:.1}/s {prompt:.0} + {answer:.0}, shared {shared:.3}",
                workload.name()
            );
            near(rate, 50.0, 0.1);
        }
    }

    #[test]
    fn a_seed_repeats() {
        for workload in Workload::ALL {
            let [one, other] = [0, 1].map(|_| workload.requests(demand(5.0)));
            assert!(
                one.iter()
                    .zip(&other)
                    .all(|(one, other)| one.at == other.at && one.prompt == other.prompt)
            );
        }
    }
}
