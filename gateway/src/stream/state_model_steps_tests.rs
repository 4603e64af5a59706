//! The steps that are possible in a world of the model, and the faults that each uses up.

use super::*;

impl World {
    /// All steps that are possible now.
    pub(super) fn steps(&self) -> Vec<Step> {
        if self.stream.is_choosing() {
            let mut steps = vec![Step::Leave, Step::GiveUp];
            if self.lives.len() < ATTEMPTS {
                // The workers are alike: the first one chosen is called a.
                let chosen = self.lives.iter().any(|life| life.target.or(life.worker).is_some());
                steps.push(Step::Publish(None));
                // The last attempt goes to the queue subject, where either may take it.
                if self.lives.len() + 1 < ATTEMPTS {
                    steps.push(Step::Publish(Some(0)));
                    steps.extend(chosen.then_some(Step::Publish(Some(1))));
                }
                steps.push(Step::Wait);
            }
            for attempt in (0..self.lives.len()).filter(|attempt| self.lives[*attempt].worker.is_none()) {
                for worker in self.takers(attempt) {
                    let taken = self.answers(attempt, worker).contains(&Say::Accepted);
                    steps.extend(taken.then_some(Step::LeaveBefore { attempt, worker }));
                }
            }
            return steps;
        }
        let mut steps = vec![Step::Leave, Step::Deadline, Step::Timer, Step::LinkRestored, Step::Go];
        for worker in 0..WORKERS.len() {
            steps.extend([Step::Gone(worker), Step::Instance(worker), Step::Held(worker)]);
            steps.extend((self.instances[worker] == 1).then_some(Step::Restart(worker)));
        }
        for attempt in 0..self.lives.len() {
            self.steps_of(attempt, &mut steps);
        }
        steps
    }

    fn steps_of(&self, attempt: usize, steps: &mut Vec<Step>) {
        let life = &self.lives[attempt];
        let mut says = |worker: usize, say: Say| {
            steps.extend([true, false].map(|arrives| Step::Says {
                attempt,
                worker,
                say,
                arrives,
            }));
        };
        match life.worker {
            _ if life.silent => {}
            None => {
                for worker in self.takers(attempt) {
                    for say in self.answers(attempt, worker) {
                        says(worker, say);
                    }
                }
                steps.push(Step::NoResponders(attempt));
            }
            Some(worker) => {
                let token = life.start + life.made;
                says(
                    worker,
                    if token < ANSWER.len() {
                        Say::Token(token)
                    } else {
                        Say::Finish
                    },
                );
                says(worker, Say::Fails(ErrorCode::Internal, true));
                says(worker, Say::Fails(ErrorCode::Internal, false));
                says(worker, Say::Fails(ErrorCode::Draining, true));
                says(worker, Say::Refuse(RejectReason::Draining));
            }
        }
        steps.extend(life.newest.map(|_| Step::Again(attempt)));
    }

    /// The workers that may take the request. A worker gets the messages of one subject in order; its own subject and the
    /// queue subject have no common order.
    fn takers(&self, attempt: usize) -> Vec<usize> {
        let life = &self.lives[attempt];
        let later = self.lives.get(attempt + 1..).unwrap_or_default();
        let passed = |worker: usize| {
            let same = |other: &Life| other.target == life.target && other.worker == Some(worker);
            later.iter().any(same)
        };
        let mut takers = life.target.map_or_else(|| vec![0, 1], |worker| vec![worker]);
        takers.retain(|worker| !passed(*worker));
        takers
    }

    /// The answers that `worker` may give. It never runs one request twice.
    fn answers(&self, attempt: usize, worker: usize) -> Vec<Say> {
        let floor = self.lives[attempt].floor;
        let mut running = (0..self.lives.len()).filter(|other| self.generates(*other, worker));
        let Some(other) = running.next() else {
            let mut answers = vec![
                Say::Accepted,
                Say::Refuse(RejectReason::Busy),
                Say::Refuse(RejectReason::Unsupported),
            ];
            // It remembers for some time what it ran to an end.
            let ran = |life: &Life| life.worker == Some(worker) && life.silent && life.seq > 1;
            let known = self.lives.iter().rposition(ran);
            let known = known.is_some_and(|other| other as u32 >= floor && !self.is_told_to_stop(other, worker));
            answers.extend(known.then_some(Say::Refuse(RejectReason::Duplicate)));
            return answers;
        };
        let mut answers = Vec::new();
        if other as u32 >= floor {
            answers.push(Say::Refuse(RejectReason::Duplicate));
        }
        // A cancel counts for all attempts up to its own, also for requests that come after it.
        let cancelled = self.is_told_to_stop(other, worker) && attempt > other;
        if (other as u32) < floor || cancelled {
            answers.push(Say::Accepted);
        }
        answers
    }

    /// The faults that this step uses up.
    pub(super) fn cost(&self, step: Step) -> u32 {
        match step {
            Step::Says {
                say: Say::Accepted | Say::Token(_) | Say::Finish,
                arrives: true,
                ..
            }
            | Step::Publish(_) => 0,
            Step::GiveUp | Step::Leave | Step::LeaveBefore { .. } | Step::Deadline => 0,
            Step::Instance(_) | Step::Held(_) => 0,
            Step::Gone(worker) if self.instances[worker] > 1 => 0,
            _ => 1,
        }
    }
}
