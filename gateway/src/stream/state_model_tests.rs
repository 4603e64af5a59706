//! A model check of the state machine: every interleaving of a small world, up to a number of faults.
//!
//! The world has two workers, a queue subject, three attempts, and an answer of two tokens. A worker's frames may be
//! lost, repeated or late, and may belong to an attempt below the floor. Workers are restarted, or wrongly thought dead.
//! Timers fire at any moment, and the client may leave at any moment. The expectations ([`World::apply`],
//! [`World::take_in`], [`World::at_the_end`]) do not look into the state machine.

use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::*;

const WORKERS: [&str; 2] = ["a", "b"];
const ATTEMPTS: usize = 3;
const ANSWER: [&str; 2] = ["t0 ", "t1 "];

/// A frame that a worker sends.
#[derive(Debug, Clone, Copy, Hash, PartialEq, Eq)]
enum Say {
    Accepted,
    Token(usize),
    Finish,
    Refuse(RejectReason),
    Fails(ErrorCode, bool),
}

impl Say {
    /// Whether it is the last frame of its attempt.
    fn is_last(self) -> bool {
        !matches!(self, Self::Accepted | Self::Token(_))
    }
}

/// A step of the world.
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
    /// The attempt's newest frame arrives now, again or for the first time.
    Again(usize),
    NoResponders(usize),
    Restart(usize),
    Gone(usize),
    Instance(usize),
    /// The worker answers a roll call.
    Held(usize),
    LinkRestored,
    Go,
    Timer,
    Deadline,
    Leave,
    /// The client leaves while this attempt's `Accepted` waits to be read.
    LeaveBefore {
        attempt: usize,
        worker: usize,
    },
}

/// A published attempt, as its worker knows it.
#[derive(Debug, Clone, Hash)]
struct Life {
    target: Option<usize>,
    floor: u32,
    /// The token that it starts with.
    start: usize,
    worker: Option<usize>,
    instance: u64,
    seq: u32,
    made: usize,
    newest: Option<(u32, Say)>,
    /// It has sent its last frame.
    silent: bool,
    /// The worker has stopped; frames may still be on their way.
    stopped: bool,
    /// One of its frames has arrived.
    heard: bool,
}

#[derive(Clone)]
struct World {
    stream: StreamState,
    now: Instant,
    resumable: bool,
    in_one_piece: bool,
    lives: Vec<Life>,
    instances: [u64; 2],
    /// The highest attempt that was cancelled at each worker.
    cancelled: [Option<u32>; 2],
    /// The attempt whose output the client gets.
    current: Option<usize>,
    /// The attempt and worker that made each token that the client has.
    text: Vec<usize>,
    floor: u32,
    ended: bool,
    left: bool,
    faults: u32,
}

/// Hashes text without storing it.
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
            in_one_piece: false,
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

    /// The same world with an answer in one piece.
    fn in_one_piece(mut self) -> Self {
        self.stream = self.stream.in_one_piece(true);
        Self {
            in_one_piece: true,
            ..self
        }
    }

    /// Everything that distinguishes two worlds. The stream counts as its `Debug` text, so that no new field is forgotten
    /// here.
    fn fingerprint(&self) -> u64 {
        let mut text = Text(DefaultHasher::new());
        write!(text, "{:?}", self.stream).unwrap();
        let Text(mut hasher) = text;
        (&self.lives, self.instances, self.cancelled, self.current).hash(&mut hasher);
        (&self.text, self.floor, self.ended, self.left).hash(&mut hasher);
        hasher.finish()
    }

    fn is_told_to_stop(&self, attempt: usize, worker: usize) -> bool {
        self.cancelled[worker].is_some_and(|upto| attempt as u32 <= upto)
    }

    fn generates(&self, attempt: usize, worker: usize) -> bool {
        let life = &self.lives[attempt];
        life.worker == Some(worker) && !life.silent && !life.stopped
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
            Step::Held(worker) => self.stream.on_event(self.held(worker), now, &mut actions),
            Step::LinkRestored => self.stream.on_event(Event::LinkRestored, now, &mut actions),
            Step::Go => self.stream.on_event(Event::Go, now, &mut actions),
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
            silent: false,
            stopped: false,
            heard: false,
        });
        Ok(())
    }

    /// `worker`'s answer to a roll call for the stream.
    fn held(&self, worker: usize) -> Event {
        let mut lives = (0..self.lives.len()).filter(|attempt| self.generates(*attempt, worker));
        let place = lives.next().map(|attempt| (attempt as u32, self.lives[attempt].seq));
        let (worker, instance) = (name(WORKERS[worker]), self.instances[worker]);
        Event::Held {
            worker,
            instance,
            place,
        }
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
        life.silent = say.is_last();
    }

    /// Delivers the attempt's newest frame to the stream.
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
        self.compare_lane(&worker, &frame);
        self.stream.on_event(Event::Frame { worker, frame }, self.now, actions);
    }

    /// The stream reports that `worker` took `attempt`.
    fn taken(&mut self, from: Option<usize>, attempt: u32, worker: &Name) -> Result<(), String> {
        let index = attempt as usize;
        ensure!(from == Some(index), "{attempt} is taken by a frame of {from:?}");
        ensure!(attempt >= self.floor, "{attempt} is below the floor");
        ensure!(self.current.is_none(), "taken twice");
        ensure!(self.lives[index].worker == Some(worker_index(worker)), "by {worker}");
        ensure!(self.lives[index].start == self.text.len(), "it would leave a gap");
        self.current = Some(index);
        Ok(())
    }

    /// Checks the stream's actions after a frame of attempt `from`, or after another event.
    fn take_in(&mut self, from: Option<usize>, actions: Vec<Action>) -> Result<(), String> {
        let mut stopped = Vec::new();
        for action in actions {
            ensure!(!self.ended, "{action:?} after the end");
            match action {
                Action::Place => self.current = None,
                Action::Taken { attempt, worker } => self.taken(from, attempt, &worker)?,
                Action::Output(Output::Accepted { .. }) => {}
                Action::Output(Output::Anew) => {
                    ensure!(self.in_one_piece, "a stream begins anew");
                    self.text.clear();
                }
                Action::Output(Output::Written(written)) => {
                    return Err(format!("the state machine writes nothing: {written:?}"));
                }
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
            // What a former life of the worker said comes before what the present one says.
            let life = |attempt: usize| self.lives[attempt].instance;
            let late = from.is_some_and(|from| life(from) < life(current));
            let hit = |(worker, upto): &(usize, usize)| !late && current <= *upto && self.generates(current, *worker);
            ensure!(!stopped.iter().any(hit), "it cancels its own run");
        }
        Ok(())
    }

    /// No worker generates for a stream that has ended, as far as its gateway can know. Two kinds of attempts are exempt.
    /// One that is not taken yet: the demultiplexer cancels what is accepted for an unknown stream. One whose `Accepted`
    /// was lost, on the queue subject or at a worker that was thought dead: the request's time limit ends it.
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

#[path = "state_model_steps_tests.rs"]
mod steps;

#[path = "state_model_lane_tests.rs"]
mod lane;

#[path = "state_model_explore_tests.rs"]
mod explore;
