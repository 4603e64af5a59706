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
    /// To the model's queue subject: NATS chooses.
    Queue,
    /// Nobody has room.
    Wait,
    /// No worker of the model can do what is asked: this is missing.
    Cannot(Features),
    /// Nor can any at the moment, but one that could was there lately.
    Gone,
}

/// What a request has tried since it last waited.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tried<'a> {
    /// Workers that should not be tried again now.
    pub excluded: &'a [Name],
    /// Publishes that came to nothing.
    pub untaken: usize,
}

impl View {
    /// What is known of the workers that serve `model`, for a request that needs this.
    pub fn able(&self, model: &str, needs: Features) -> Able {
        able::judge(self.serving(model), needs)
    }

    /// Whether a worker is known that serves `model` and may be able to do this.
    pub fn could(&self, model: &str, needs: Features) -> bool {
        matches!(self.able(model, needs), Able::All | Able::Some)
    }

    /// What of `needs` tells the workers of `model` apart.
    pub fn telling(&self, model: &str, needs: Features) -> Features {
        able::telling(self.serving(model), needs)
    }

    fn serving(&self, model: &str) -> impl Iterator<Item = Features> {
        self.workers.values().filter_map(move |worker| worker.serves(model))
    }

    /// Where a request for `model` should go. After two publishes that came to nothing since it last waited, the choice is left to NATS; after four,
    /// the request waits. Where some of the workers cannot do what it needs, it is not left to NATS.
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
            let lately = self.models.get(model).is_some_and(|model| model.able.had(needs, now));
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
        // Without a snapshot nobody knows the room: whoever can is asked.
        let roomy = |worker: &Worker| !fresh || worker.free() > 0;
        let mut roomy: Vec<(&Name, &Worker)> = self
            .workers
            .iter()
            .filter(|(name, worker)| worker.does(model, needs) && roomy(worker) && !excluded.contains(name))
            .collect();
        // The best of two random ones: as good as the best of all under load, and gateways that
        // see the same snapshot do not all run to the same worker.
        let Some(first) = draw(&mut roomy, random) else {
            return if !fresh || untaken > 0 && !mixed {
                Choice::Queue
            } else {
                Choice::Wait
            };
        };
        let best = match draw(&mut roomy, random) {
            Some(second) if score::cost(&second.1.facts()) < score::cost(&first.1.facts()) => second,
            _ => first,
        };
        Choice::Worker(best.0.clone())
    }

    /// Free slots of all workers that serve `model` and can do this.
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
