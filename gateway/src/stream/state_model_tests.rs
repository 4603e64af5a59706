//! The state machine under every interleaving of a small world, up to a number of faults.
//!
//! The world: two workers, a queue subject, three attempts, an answer of two tokens. A worker's
//! frames may be lost, come twice, come late, and come for attempts that the stream has left;
//! workers are restarted, or wrongly thought dead; timers fire at any moment; the client leaves
//! whenever it likes. What is expected ([`World::apply`], [`World::take_in`], [`World::at_the_end`])
//! is said without looking into the state machine.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::*;

const WORKERS: [&str; 2] = ["a", "b"];
const ATTEMPTS: usize = 3;
const ANSWER: [&str; 2] = ["t0 ", "t1 "];

/// What a worker says.
#[derive(Debug, Clone, Copy, Hash, PartialEq, Eq)]
enum Say {
    Accepted,
    Token(usize),
    Finish,
    Alive,
    Refuse(RejectReason),
    Fails(ErrorCode, bool),
}

impl Say {
    /// Whether the worker has nothing more to say.
    fn is_last(self) -> bool {
        !matches!(self, Self::Accepted | Self::Token(_) | Self::Alive)
    }
}

/// What may happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Publish(Option<usize>),
    Wait,
    GiveUp,
    /// The worker's next frame for the attempt, and whether it arrives.
    Says {
        attempt: usize,
        worker: usize,
        say: Say,
        arrives: bool,
    },
    /// The attempt's newest frame comes now, again or for the first time.
    Again(usize),
    NoResponders(usize),
    Restart(usize),
    Gone(usize),
    Instance(usize),
    LinkRestored,
    Go,
    Timer,
    Deadline,
    Overflow,
    Leave,
    /// The client leaves while this attempt's `Accepted` waits to be read.
    LeaveBefore {
        attempt: usize,
        worker: usize,
    },
}

/// One published attempt, as its worker knows it.
#[derive(Debug, Clone, Hash)]
struct Life {
    target: Option<usize>,
    floor: u32,
    /// Token that it starts with.
    start: usize,
    worker: Option<usize>,
    instance: u64,
    seq: u32,
    made: usize,
    newest: Option<(u32, Say)>,
    alive_said: bool,
    /// It says nothing more.
    silent: bool,
    /// The worker has stopped; frames may still be on their way.
    stopped: bool,
    /// A frame of it has arrived.
    heard: bool,
}

#[derive(Clone)]
struct World {
    stream: StreamState,
    now: Instant,
    resumable: bool,
    lives: Vec<Life>,
    instances: [u64; 2],
    /// Up to which attempt each worker was told to stop.
    cancelled: [Option<u32>; 2],
    /// The attempt whose output is the client's.
    current: Option<usize>,
    /// Who made each token that the client has.
    text: Vec<usize>,
    floor: u32,
    ended: bool,
    left: bool,
    faults: u32,
}

/// Hashes text without keeping it.
struct Text(DefaultHasher);

impl std::fmt::Write for Text {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0.write(text.as_bytes());
        Ok(())
    }
}

fn worker_index(worker: &Name) -> usize {
    WORKERS.iter().position(|known| *known == worker.as_str()).unwrap()
}

macro_rules! ensure {
    ($condition:expr, $($what:tt)+) => {
        if !$condition {
            return Err(format!($($what)+));
        }
    };
}

impl World {
    fn new(faults: u32, not_resumable: Option<&'static str>, resumable: bool) -> Self {
        let now = Instant::now();
        Self {
            stream: StreamState::new(now + Duration::from_secs(60), not_resumable),
            now,
            resumable,
            lives: Vec::new(),
            instances: [1; 2],
            cancelled: [None; 2],
            current: None,
            text: Vec::new(),
            floor: 0,
            ended: false,
            left: false,
            faults,
        }
    }

    /// All that tells two worlds apart. The stream is taken whole, as its `Debug` text, so that no
    /// field that is added to it is forgotten here.
    fn fingerprint(&self) -> u64 {
        let mut text = Text(DefaultHasher::new());
        write!(text, "{:?}", self.stream).unwrap();
        let Text(mut hasher) = text;
        (&self.lives, self.instances, self.cancelled, self.current).hash(&mut hasher);
        (&self.text, self.floor, self.ended, self.left, self.faults).hash(&mut hasher);
        hasher.finish()
    }

    fn is_told_to_stop(&self, attempt: usize, worker: usize) -> bool {
        self.cancelled[worker].is_some_and(|upto| attempt as u32 <= upto)
    }

    fn generates(&self, attempt: usize, worker: usize) -> bool {
        let life = &self.lives[attempt];
        life.worker == Some(worker) && !life.silent && !life.stopped
    }

    /// Everything that may happen now.
    fn steps(&self) -> Vec<Step> {
        if self.stream.is_choosing() {
            let mut steps = vec![Step::Leave, Step::GiveUp];
            if self.lives.len() < ATTEMPTS {
                steps.extend([Some(0), Some(1), None].map(Step::Publish));
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
        let mut steps = vec![
            Step::Leave,
            Step::Overflow,
            Step::Deadline,
            Step::Timer,
            Step::LinkRestored,
            Step::Go,
        ];
        for worker in 0..WORKERS.len() {
            steps.extend([Step::Gone(worker), Step::Instance(worker)]);
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
                if !life.alive_said {
                    says(worker, Say::Alive);
                }
            }
        }
        steps.extend(life.newest.map(|_| Step::Again(attempt)));
    }

    /// Who may take the request: one subject's messages come to a worker in order, those of its own
    /// subject and of the queue subject in any.
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

    /// What `worker` may answer to the request: one request never runs twice on it.
    fn answers(&self, attempt: usize, worker: usize) -> Vec<Say> {
        let floor = self.lives[attempt].floor;
        let mut running = (0..self.lives.len()).filter(|other| self.generates(*other, worker));
        let Some(other) = running.next() else {
            return vec![
                Say::Accepted,
                Say::Refuse(RejectReason::Busy),
                Say::Refuse(RejectReason::Unsupported),
            ];
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

    /// How much of what may go wrong this uses up.
    fn cost(&self, step: Step) -> u32 {
        match step {
            Step::Says {
                say: Say::Accepted | Say::Token(_) | Say::Finish,
                arrives: true,
                ..
            }
            | Step::Publish(_) => 0,
            Step::GiveUp | Step::Leave | Step::LeaveBefore { .. } | Step::Deadline | Step::Overflow => 0,
            Step::Instance(_) => 0,
            Step::Gone(worker) if self.instances[worker] > 1 => 0,
            _ => 1,
        }
    }

    fn apply(&mut self, step: Step) -> Result<(), String> {
        let mut actions = Vec::new();
        let now = self.now;
        let mut from = None;
        match step {
            Step::Publish(target) => return self.publish(target),
            Step::Wait => self.stream.wait(now, Duration::from_secs(1)),
            Step::GiveUp => self.stream.fail(CallError::ShuttingDown, &mut actions),
            Step::Says {
                attempt,
                worker,
                say,
                arrives,
            } => {
                self.say(attempt, worker, say);
                if arrives {
                    from = Some(attempt);
                    self.arrive(attempt, &mut actions);
                }
            }
            Step::Again(attempt) => {
                from = Some(attempt);
                self.arrive(attempt, &mut actions);
            }
            Step::NoResponders(attempt) => {
                self.lives[attempt].silent = true;
                let attempt = attempt as u32;
                self.stream.on_event(Event::NoResponders { attempt }, now, &mut actions);
            }
            Step::Restart(worker) => {
                self.instances[worker] += 1;
                for life in self.lives.iter_mut().filter(|life| life.worker == Some(worker)) {
                    life.stopped = true;
                }
            }
            Step::Gone(worker) => {
                let worker = name(WORKERS[worker]);
                self.stream.on_event(Event::WorkerGone { worker }, now, &mut actions);
            }
            Step::Instance(worker) => {
                let instance = self.instances[worker];
                let worker = name(WORKERS[worker]);
                let event = Event::WorkerInstance { worker, instance };
                self.stream.on_event(event, now, &mut actions);
            }
            Step::LinkRestored => self.stream.on_event(Event::LinkRestored, now, &mut actions),
            Step::Go => self.stream.on_event(Event::Go, now, &mut actions),
            Step::Overflow => self.stream.on_event(Event::Overflow, now, &mut actions),
            // Time only passes here: the worlds that differ in nothing but the hour stay one.
            Step::Timer => self.stream.tick(self.stream.timer(), &mut actions),
            Step::Deadline => self.stream.tick(self.stream.deadline, &mut actions),
            Step::Leave => self.leave(&mut actions),
            Step::LeaveBefore { attempt, worker } => {
                self.say(attempt, worker, Say::Accepted);
                from = Some(attempt);
                self.arrive(attempt, &mut actions);
                self.leave(&mut actions);
            }
        }
        self.take_in(from, actions)
    }

    fn leave(&mut self, actions: &mut Vec<Action>) {
        self.left = true;
        self.stream.abandon(actions);
    }

    fn publish(&mut self, target: Option<usize>) -> Result<(), String> {
        self.stream.take_loss();
        let published = self
            .stream
            .publish(target.map(|worker| name(WORKERS[worker])), self.now, PATIENCE);
        let attempt = published.map_err(|error| format!("{error} although it was placed"))?;
        let resumed: String = attempt
            .resume
            .iter()
            .flat_map(|resume| &resume.choices)
            .map(|choice| choice.text.as_str())
            .collect();
        let delivered = ANSWER[..self.text.len()].concat();
        ensure!(resumed == delivered, "resumes {resumed:?}, delivered was {delivered:?}");
        ensure!(
            attempt.attempt as usize == self.lives.len(),
            "attempt {}",
            attempt.attempt
        );
        ensure!(attempt.floor >= self.floor, "the floor fell to {}", attempt.floor);
        ensure!(
            attempt.floor <= attempt.attempt,
            "the floor {} is above the attempt",
            attempt.floor
        );
        self.floor = attempt.floor;
        self.lives.push(Life {
            target,
            floor: attempt.floor,
            start: self.text.len(),
            worker: None,
            instance: 0,
            seq: 0,
            made: 0,
            newest: None,
            alive_said: false,
            silent: false,
            stopped: false,
            heard: false,
        });
        Ok(())
    }

    /// The worker sends its next frame.
    fn say(&mut self, attempt: usize, worker: usize, say: Say) {
        if say == Say::Accepted {
            for life in self.lives.iter_mut().filter(|life| life.worker == Some(worker)) {
                life.stopped = true;
            }
        }
        let life = &mut self.lives[attempt];
        if life.worker.is_none() {
            life.worker = Some(worker);
            life.instance = self.instances[worker];
        }
        life.newest = Some((life.seq, say));
        life.seq += 1;
        life.made += usize::from(matches!(say, Say::Token(_)));
        life.alive_said |= say == Say::Alive;
        life.silent = say.is_last();
    }

    /// The attempt's newest frame reaches the stream.
    fn arrive(&mut self, attempt: usize, actions: &mut Vec<Action>) {
        let life = &mut self.lives[attempt];
        life.heard = true;
        let worker = WORKERS[life.worker.unwrap()];
        let (seq, say) = life.newest.unwrap();
        let body = match say {
            Say::Accepted => Body::Accepted(Accepted {
                id: uuid::Uuid::nil(),
                worker: name(worker),
                instance: life.instance,
                queue_position: 0,
                resumable: self.resumable,
            }),
            Say::Token(token) => Body::Delta(Delta {
                text: ANSWER[token].into(),
                tokens: 1,
                token_ids: vec![attempt as u32],
                ..Delta::default()
            }),
            Say::Finish => finish((ANSWER.len() - life.start) as u64),
            Say::Alive => Body::Alive(Alive::default()),
            Say::Refuse(reason) => reject(worker, reason),
            Say::Fails(code, retryable) => error(code, retryable),
        };
        let frame = Frame {
            stream: 1,
            attempt: attempt as u32,
            seq,
            body,
        };
        let worker = name(worker);
        self.stream.on_event(Event::Frame { worker, frame }, self.now, actions);
    }

    /// Checks what the stream wants done after a frame of attempt `from`, or after something else.
    fn take_in(&mut self, from: Option<usize>, actions: Vec<Action>) -> Result<(), String> {
        let mut stopped = Vec::new();
        for action in actions {
            ensure!(!self.ended, "{action:?} after the end");
            match action {
                Action::Place => self.current = None,
                Action::Taken { attempt, worker } => {
                    ensure!(
                        from == Some(attempt as usize),
                        "{attempt} is taken by a frame of {from:?}"
                    );
                    ensure!(attempt >= self.floor, "{attempt} is below the floor");
                    ensure!(self.current.is_none(), "taken twice");
                    ensure!(
                        self.lives[attempt as usize].worker == Some(worker_index(&worker)),
                        "by {worker}"
                    );
                    ensure!(
                        self.lives[attempt as usize].start == self.text.len(),
                        "it would leave a gap"
                    );
                    self.current = Some(attempt as usize);
                }
                Action::Output(Output::Accepted { .. }) => {}
                Action::Output(Output::Delta(delta)) => {
                    ensure!(self.current.is_some() && from == self.current, "output of {from:?}");
                    ensure!(
                        delta.token_ids.first().map(|id| *id as usize) == from,
                        "whose is {delta:?}?"
                    );
                    ensure!(
                        ANSWER.get(self.text.len()) == Some(&&*delta.text),
                        "repeated or missing: {delta:?}"
                    );
                    self.text.extend(from);
                }
                Action::Output(Output::Finish(finish)) => {
                    ensure!(self.current.is_some() && from == self.current, "the end of {from:?}");
                    ensure!(
                        self.text.len() == ANSWER.len(),
                        "finished after {} tokens",
                        self.text.len()
                    );
                    ensure!(
                        finish.completion_tokens == Some(ANSWER.len() as u64),
                        "counted {finish:?}"
                    );
                    self.ended = true;
                }
                Action::Fail(_) => self.ended = true,
                Action::Cancel { worker, attempt } => {
                    let worker = worker_index(&worker);
                    stopped.push((worker, attempt as usize));
                    self.cancelled[worker] = self.cancelled[worker].max(Some(attempt));
                }
            }
        }
        if self.left || self.ended {
            ensure!(self.stream.is_done(), "ended and goes on");
            return self.at_the_end();
        }
        ensure!(!self.stream.is_done(), "it ended and said nothing");
        ensure!(self.stream.timer() <= self.stream.deadline, "it may wait for ever");
        if let Some(current) = self.current {
            let hit = |(worker, upto): &(usize, usize)| current <= *upto && self.generates(current, *worker);
            ensure!(!stopped.iter().any(hit), "it cancels its own run");
        }
        Ok(())
    }

    /// Nobody generates for a stream that has ended, as far as its gateway can know. Not taken yet:
    /// the demultiplexer cancels what is accepted for a stream that is not there. Never heard of:
    /// the request went to the queue subject, or to a worker that was thought dead, and `Accepted`
    /// was lost; the request's time limit ends it.
    fn at_the_end(&self) -> Result<(), String> {
        for (attempt, life) in self.lives.iter().enumerate() {
            let Some(worker) = life.worker.filter(|worker| self.generates(attempt, *worker)) else {
                continue;
            };
            let told = self.is_told_to_stop(attempt, worker);
            ensure!(
                told || !life.heard,
                "{} generates attempt {attempt} for nobody",
                WORKERS[worker]
            );
        }
        Ok(())
    }
}

#[derive(Default)]
struct Explorer {
    seen: HashSet<u64>,
    path: Vec<Step>,
    finished: usize,
    failed: usize,
    moved: usize,
}

impl Explorer {
    /// Every world that can come from `world`.
    fn explore(&mut self, world: &World) {
        if !self.seen.insert(world.fingerprint()) {
            return;
        }
        if world.left || world.ended {
            self.finished += usize::from(world.text.len() == ANSWER.len() && !world.left);
            self.failed += usize::from(world.text.len() < ANSWER.len() && !world.left);
            self.moved += usize::from(world.text.first() != world.text.last());
            return;
        }
        for step in world.steps() {
            let Some(faults) = world.faults.checked_sub(world.cost(step)) else {
                continue;
            };
            let mut next = world.clone();
            next.faults = faults;
            self.path.push(step);
            if let Err(what) = next.apply(step) {
                panic!("{what}\nafter {:?}\n{:?}", self.path, next.stream);
            }
            self.explore(&next);
            self.path.pop();
        }
    }

    fn run(faults: u32, not_resumable: Option<&'static str>, resumable: bool) -> Self {
        let mut explorer = Self::default();
        explorer.explore(&World::new(faults, not_resumable, resumable));
        explorer
    }
}

#[test]
fn every_interleaving_keeps_the_text_whole_and_leaves_nobody_generating() {
    let explorer = Explorer::run(3, None, true);
    let (worlds, finished, failed, moved) = (explorer.seen.len(), explorer.finished, explorer.failed, explorer.moved);
    eprintln!("{worlds} {finished} {failed} {moved}");
    assert!(
        worlds > 1000 && finished > 100 && failed > 100 && moved > 10,
        "{worlds} {finished} {failed} {moved}"
    );
}

#[test]
fn every_interleaving_without_resume_ends_honestly() {
    for (not_resumable, resumable) in [(Some("its output follows a grammar"), true), (None, false)] {
        let explorer = Explorer::run(2, not_resumable, resumable);
        assert_eq!(explorer.moved, 0, "what cannot be continued was continued");
        let (worlds, finished, failed) = (explorer.seen.len(), explorer.finished, explorer.failed);
        eprintln!("{worlds} {finished} {failed}");
        assert!(
            worlds > 1000 && finished > 100 && failed > 100,
            "{worlds} {finished} {failed}"
        );
    }
}
