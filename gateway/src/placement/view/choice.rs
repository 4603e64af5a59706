//! Which worker gets a request.

use tokenbus_protocol::{Features, Name};
use tokio::time::Instant;

use super::super::able::{self, Able};
use super::super::score;
use super::View;
use super::worker::Worker;

/// Where a request should go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// To this worker's own subject.
    Worker(Name),
    /// To the model's queue subject, where NATS chooses.
    Queue,
    /// To the waiting room: no worker has a free slot.
    Wait,
    /// Nowhere: all workers of the model lack these features.
    Cannot(Features),
    /// Nowhere now: no worker has the features, but one had them lately.
    Gone,
}

/// What a request has tried since it last waited.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tried<'a> {
    /// Workers not to try again now.
    pub excluded: &'a [Name],
    /// Publishes that no worker took.
    pub untaken: usize,
}

impl View {
    /// What is known of the workers that serve `model`, for a request with these needs.
    pub fn able(&self, model: &str, needs: Features) -> Able {
        able::judge(self.serving(model), needs)
    }

    /// Whether a worker of `model` with these features was there a short time ago.
    pub fn was_able(&self, model: &str, needs: Features, now: Instant) -> bool {
        self.models.get(model).is_some_and(|model| model.able.had(needs, now))
    }

    /// Whether a known worker serves `model` and may have these features.
    pub fn could(&self, model: &str, needs: Features) -> bool {
        matches!(self.able(model, needs), Able::All | Able::Some)
    }

    /// The part of `needs` that some workers of `model` lack.
    pub fn distinguishing(&self, model: &str, needs: Features) -> Features {
        able::distinguishing(self.serving(model), needs)
    }

    fn serving(&self, model: &str) -> impl Iterator<Item = Features> {
        self.workers.values().filter_map(move |worker| worker.serves(model))
    }

    /// Where a request for `model` should go. After two failed publishes since it last waited, NATS chooses; after
    /// four, the request waits. If some of the workers lack a feature that it needs, NATS does not choose.
    pub fn choose(
        &self,
        model: &str,
        needs: Features,
        tried: Tried<'_>,
        now: Instant,
        random: &mut fastrand::Rng,
    ) -> Choice {
        let Tried { excluded, untaken } = tried;
        let fresh = self.is_fresh(now);
        let able = self.able(model, needs);
        if let (true, Able::None(missing)) = (fresh, able) {
            let lately = self.was_able(model, needs, now);
            return if lately { Choice::Gone } else { Choice::Cannot(missing) };
        }
        if untaken >= 4 {
            return Choice::Wait;
        }
        let mixed = able == Able::Some;
        let any = matches!(able, Able::All | Able::Some);
        if !any || !mixed && (untaken >= 2 || !fresh) {
            return Choice::Queue;
        }
        // Without a fresh snapshot, free slots are unknown, so any able worker is asked.
        let roomy = |worker: &Worker| (!fresh || worker.free() > 0) && !worker.refusals.pause(now);
        let mut roomy: Vec<(&Name, &Worker)> = self
            .workers
            .iter()
            .filter(|(name, worker)| worker.does(model, needs) && roomy(worker) && !excluded.contains(name))
            .collect();
        // The better of two random workers: under load as good as the best of all, and gateways with the same snapshot
        // do not all choose the same worker.
        let Some(first) = draw(&mut roomy, random) else {
            return if !fresh || untaken > 0 && !mixed {
                Choice::Queue
            } else {
                Choice::Wait
            };
        };
        let best = match draw(&mut roomy, random) {
            Some(second) if score::cost(&second.1.load()) < score::cost(&first.1.load()) => second,
            _ => first,
        };
        Choice::Worker(best.0.clone())
    }

    /// Free slots of all workers that serve `model` with these features.
    pub fn free(&self, model: &str, needs: Features) -> u32 {
        self.workers
            .values()
            .filter(|worker| worker.does(model, needs))
            .map(Worker::free)
            .sum()
    }
}

fn draw<T>(from: &mut Vec<T>, random: &mut fastrand::Rng) -> Option<T> {
    (!from.is_empty()).then(|| from.swap_remove(random.usize(..from.len())))
}
