//! What happens to one request on its way: the stream's driver writes it down, and the request's record tells it at the
//! end. Nothing is written on the path of tokens.

mod kept;
mod spans;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokenbus_protocol::{LeftCause, Name, Step, StepKind};
use tokio::time::Instant;

pub use kept::KeptStories;
pub(crate) use spans::tell;

use crate::limits::{STORY_STEPS, STORY_WHY};

/// The steps of one request so far. Clones share them: a call of an alias goes to one model after the other.
#[derive(Debug, Clone, Default)]
pub struct Way(Arc<Mutex<Steps>>);

#[derive(Debug, Default)]
struct Steps {
    kept: Vec<Noted>,
    more: u32,
    attempts: u32,
    /// Since when it waits for a free slot.
    waits_since: Option<Instant>,
    waited: Duration,
}

#[derive(Debug)]
struct Noted {
    at: Instant,
    kind: StepKind,
    attempt: Option<u32>,
    worker: Option<Name>,
    cause: Option<LeftCause>,
    why: Option<Box<str>>,
}

/// The whole way, for the request's story.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Told {
    pub(crate) steps: Vec<Step>,
    pub(crate) more: u32,
    pub(crate) attempts: u32,
    pub(crate) waited: Duration,
}

impl Way {
    /// It waits at the gateway for a free slot.
    pub(crate) fn waits(&self, now: Instant) {
        self.change(|steps| {
            steps.waits_since.get_or_insert(now);
            steps.note(now, StepKind::Waits, None, None, None);
        });
    }

    /// It waits no longer.
    pub(crate) fn waits_no_longer(&self, now: Instant) {
        self.change(|steps| steps.stop_waiting(now));
    }

    /// How often it was published so far.
    pub(crate) fn attempts(&self) -> u32 {
        let mut attempts = 0;
        self.change(|steps| attempts = steps.attempts);
        attempts
    }

    /// It was published to `worker`, or to the queue group; `why` says how that was chosen, if that is known.
    pub(crate) fn sent(&self, now: Instant, attempt: u32, worker: Option<&Name>, why: Option<&str>) {
        self.change(|steps| {
            steps.attempts += 1;
            steps.note(now, StepKind::Sent, Some(attempt), worker, why);
        });
    }

    /// `worker` accepted it.
    pub(crate) fn accepted(&self, now: Instant, attempt: u32, worker: &Name) {
        self.change(|steps| steps.note(now, StepKind::Accepted, Some(attempt), Some(worker), None));
    }

    /// `worker` refused it.
    pub(crate) fn refused(&self, now: Instant, attempt: u32, worker: &Name, why: &str) {
        self.change(|steps| steps.note(now, StepKind::Refused, Some(attempt), Some(worker), Some(why)));
    }

    /// Nobody was there to take it.
    pub(crate) fn unanswered(&self, now: Instant, attempt: u32, worker: Option<&Name>) {
        self.change(|steps| steps.note(now, StepKind::Unanswered, Some(attempt), worker, None));
    }

    /// It left `worker`, which was lost, failed or handed it over.
    pub(crate) fn left(&self, now: Instant, attempt: u32, worker: &Name, (cause, why): (LeftCause, &str)) {
        self.change(|steps| {
            let before = steps.kept.len();
            steps.note(now, StepKind::Left, Some(attempt), Some(worker), Some(why));
            if let Some(noted) = steps.kept.get_mut(before) {
                noted.cause = Some(cause);
            }
        });
    }

    /// The way until `now` of a request that arrived at `arrived`.
    pub(crate) fn told(&self, arrived: Instant, now: Instant) -> Told {
        let mut told = Told::default();
        self.change(|steps| {
            steps.stop_waiting(now);
            told = Told {
                steps: steps.kept.iter().map(|noted| noted.step(arrived)).collect(),
                more: steps.more,
                attempts: steps.attempts,
                waited: steps.waited,
            };
        });
        told
    }

    fn change(&self, change: impl FnOnce(&mut Steps)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Steps {
    fn note(&mut self, at: Instant, kind: StepKind, attempt: Option<u32>, worker: Option<&Name>, why: Option<&str>) {
        if self.kept.len() >= STORY_STEPS {
            self.more = self.more.saturating_add(1);
            return;
        }
        self.kept.push(Noted {
            at,
            kind,
            attempt,
            worker: worker.cloned(),
            cause: None,
            why: why.map(|why| why.chars().take(STORY_WHY).collect()),
        });
    }

    fn stop_waiting(&mut self, now: Instant) {
        if let Some(since) = self.waits_since.take() {
            self.waited += now.saturating_duration_since(since);
        }
    }
}

impl Noted {
    fn step(&self, arrived: Instant) -> Step {
        let after = self.at.saturating_duration_since(arrived);
        Step {
            after_ms: u64::try_from(after.as_millis()).unwrap_or(u64::MAX),
            kind: self.kind,
            attempt: self.attempt,
            worker: self.worker.clone(),
            cause: self.cause,
            why: self.why.as_deref().map(str::to_owned),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn waits_add_up_and_steps_have_their_times() {
        let arrived = Instant::now();
        let at = |ms| arrived + Duration::from_millis(ms);
        let worker = Name::new("w").unwrap();
        let way = Way::default();
        way.waits(at(5));
        way.waits_no_longer(at(25));
        way.sent(at(25), 0, Some(&worker), None);
        way.refused(at(30), 0, &worker, "busy");
        way.waits(at(30));
        let told = way.told(arrived, at(40));
        assert_eq!(told.waited, Duration::from_millis(30));
        assert_eq!((told.attempts, told.more), (1, 0));
        let kinds: Vec<(u64, StepKind)> = told.steps.iter().map(|step| (step.after_ms, step.kind)).collect();
        let expected = [
            (5, StepKind::Waits),
            (25, StepKind::Sent),
            (30, StepKind::Refused),
            (30, StepKind::Waits),
        ];
        assert_eq!(kinds, expected);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_without_end_costs_no_more_than_its_bound() {
        let (way, now) = (Way::default(), Instant::now());
        let worker = Name::new("w").unwrap();
        for attempt in 0..1000 {
            way.refused(now, attempt, &worker, &"x".repeat(100_000));
        }
        let told = way.told(now, now);
        assert_eq!((told.steps.len(), told.more), (STORY_STEPS, 968));
        assert!(
            told.steps
                .iter()
                .all(|step| step.why.as_ref().unwrap().len() == STORY_WHY)
        );
    }
}
