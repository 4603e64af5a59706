//! A model check: a few requests and the only worker of their model, in every order of steps. No request waits for a
//! worker that cannot come.
//!
//! The worker has one slot and dies at any moment. The walk also varies what the gateway learns of that, and whether
//! there is a coordinator. In each world with a dead worker, time then passes: every request that no worker took gets its
//! error within seconds, every other at the end of its grace.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hasher};
use std::time::Duration;

use tokenbus_protocol::{Accepted, Body, Finish, Frame, Name, Reject, RejectReason, Room};

use super::*;
use crate::limits;
use crate::placement::fixture;
use crate::stream::event::{Action, Event};
use crate::waiting_room::Bounds;

const MODEL: &str = "m";
const PATIENCE: Duration = Duration::from_millis(250);

fn worker() -> Name {
    Name::new("w").unwrap()
}

/// One request, as its driver holds it.
#[derive(Debug, Clone)]
struct Request {
    state: StreamState,
    ticket: Option<Ticket>,
    in_room: bool,
    /// `Event::Go` waits in its inbox.
    called: bool,
    /// Published and not answered yet.
    open: Option<(u32, Option<Name>)>,
    ended: bool,
}

#[derive(Debug, Clone)]
struct World {
    requests: Vec<Request>,
    view: View,
    room: WaitingRoom<usize>,
    now: Instant,
    alive: bool,
    died: Option<Instant>,
    /// The request in its slot.
    runs: Option<usize>,
    /// Whether there is a coordinator, and whether it knows that the worker is dead.
    coordinator: Option<bool>,
    /// NATS is a cluster.
    clustered: bool,
    /// Detours that the walk may still take.
    left: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Look(usize),
    Go(usize),
    Timer(usize),
    Answer(usize),
    Finish,
    Die,
    /// The gateway notices that a running stream's worker is gone.
    Noticed,
    CoordinatorNotices,
    Snapshot,
}

impl World {
    fn new(requests: usize, coordinator: bool, left: u32) -> Self {
        let now = Instant::now();
        let request = || Request {
            state: StreamState::new(now + Duration::from_secs(600), None),
            ticket: None,
            in_room: false,
            called: false,
            open: None,
            ended: false,
        };
        let mut world = Self {
            requests: (0..requests).map(|_| request()).collect(),
            view: View::default(),
            room: WaitingRoom::new(Bounds {
                requests: 100,
                bytes: 100,
            }),
            now,
            alive: true,
            died: None,
            runs: None,
            coordinator: coordinator.then_some(false),
            clustered: false,
            left,
        };
        if coordinator {
            world.snapshot();
        } else {
            world.view.note_asked();
        }
        world
    }

    fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        for (n, request) in self.requests.iter().enumerate().filter(|(_, request)| !request.ended) {
            if request.state.is_choosing() {
                steps.push(Step::Look(n));
            } else if request.open.is_some() {
                steps.push(Step::Answer(n));
            } else if request.called {
                steps.push(Step::Go(n));
            }
            if self.runs != Some(n) && request.open.is_none() && !request.state.is_choosing() {
                steps.push(Step::Timer(n));
            }
        }
        if self.alive {
            steps.push(Step::Die);
        }
        match (self.runs.is_some(), self.alive) {
            (true, true) => steps.push(Step::Finish),
            (true, false) => steps.push(Step::Noticed),
            _ => {}
        }
        match self.coordinator {
            Some(false) if !self.alive => steps.extend([Step::CoordinatorNotices, Step::Snapshot]),
            Some(_) => steps.push(Step::Snapshot),
            None => {}
        }
        steps
    }

    /// The part of the walk's length that this step uses.
    fn cost(step: Step) -> u32 {
        u32::from(matches!(step, Step::Timer(_) | Step::Snapshot | Step::Finish))
    }

    fn apply(&mut self, step: Step) {
        match step {
            Step::Look(n) => self.look(n),
            Step::Go(n) => {
                let request = &mut self.requests[n];
                request.called = false;
                request.in_room = false;
                request.ticket.iter_mut().for_each(|ticket| ticket.had_turn = true);
                self.event(n, Event::Go);
            }
            Step::Timer(n) => {
                let mut actions = Vec::new();
                let state = &mut self.requests[n].state;
                state.tick(state.timer().min(self.now + limits::WAIT_RETRY), &mut actions);
                self.take_in(n, &actions);
            }
            Step::Answer(n) => self.answer(n),
            Step::Finish => self.finish(),
            Step::Die => {
                self.alive = false;
                self.died = Some(self.now);
            }
            Step::Noticed => {
                self.view.gone(&worker(), self.now);
                self.wake();
                self.runs = None;
                for n in 0..self.requests.len() {
                    self.event(n, Event::WorkerGone { worker: worker() });
                }
                self.view.ended(&worker());
            }
            Step::CoordinatorNotices => self.coordinator = Some(true),
            Step::Snapshot => self.snapshot(),
        }
    }

    /// Does what the driver does to place its stream.
    fn look(&mut self, n: usize) {
        let (now, random) = (self.now, &mut fastrand::Rng::with_seed(1));
        let request = &mut self.requests[n];
        let seeker = Seeker {
            model: MODEL,
            needs: Features::NONE,
            prompt: &Prompt::default(),
            session: None,
            ticket: request.ticket.as_ref(),
            in_room: request.in_room,
            hold: None,
            held_out: false,
            recovering: false,
            clustered: self.clustered,
            now,
        };
        match seek(
            &mut request.state,
            &seeker,
            &self.view,
            &self.room,
            &mut Prefixes::default(),
            random,
        ) {
            Destination::InLine | Destination::Stay => self.stand_in_line(n),
            Destination::Hold(hold) => panic!("{hold:?}"),
            Destination::To(target) => {
                self.leave(n);
                let target = target.map(|target| target.worker);
                let attempt = self.requests[n].state.publish(target.clone(), now, PATIENCE).unwrap();
                if let Some(target) = &target {
                    self.view.placed(target, now);
                }
                self.requests[n].open = Some((attempt.attempt, target));
            }
            Destination::Pause { first } => {
                self.leave(n);
                self.requests[n].state.wait(now, limits::WORKER_RETRY);
                if first {
                    self.wake_line();
                }
            }
            Destination::Fails(_) => {
                self.leave(n);
                self.requests[n].ended = true;
                self.wake_line();
            }
        }
    }

    fn stand_in_line(&mut self, n: usize) {
        let request = &mut self.requests[n];
        if !request.in_room {
            let (room, now) = (&mut self.room, self.now);
            let ticket = request
                .ticket
                .get_or_insert_with(|| room.ticket(MODEL, 0, None, 1, now));
            ticket.line = self.view.distinguishing(MODEL, Features::NONE).into();
            ticket.begun = request.state.has_begun();
            room.enter(ticket, n, now).unwrap();
            ticket.had_turn = false;
            request.in_room = true;
        }
        request.state.wait(self.now, limits::WAIT_RETRY);
        if self.view.free(MODEL, Features::NONE) > 0 {
            self.wake();
        }
    }

    fn leave(&mut self, n: usize) {
        let request = &mut self.requests[n];
        if let Some(ticket) = request.ticket.as_ref().filter(|_| request.in_room) {
            self.room.leave(ticket);
            request.in_room = false;
        }
    }

    fn wake(&mut self) {
        let called = take_from_lines(&mut self.view, &mut self.room, MODEL, self.now);
        for n in called.have_turn.into_iter().chain(called.look) {
            self.requests[n].called = true;
        }
    }

    fn wake_line(&mut self) {
        for n in take_line(&self.view, &mut self.room, MODEL, Features::NONE).look {
            self.requests[n].called = true;
        }
    }

    fn event(&mut self, n: usize, event: Event) {
        let mut actions = Vec::new();
        self.requests[n].state.on_event(event, self.now, &mut actions);
        self.take_in(n, &actions);
    }

    fn take_in(&mut self, n: usize, actions: &[Action]) {
        self.requests[n].ended |= actions.iter().any(|action| matches!(action, Action::Fail(_)));
        if self.requests[n].ended {
            self.leave(n);
        }
    }

    fn frame(&mut self, n: usize, attempt: u32, seq: u32, body: Body<'static>) {
        let frame = Frame {
            stream: 1,
            attempt,
            seq,
            body,
        };
        let worker = worker();
        self.event(n, Event::Frame { worker, frame });
    }

    fn answer(&mut self, n: usize) {
        let (attempt, target) = self.requests[n].open.take().unwrap();
        if let Some(target) = &target {
            self.view.settled(target);
        }
        if !self.alive {
            if target.is_some() {
                self.view.gone(&worker(), self.now);
                self.wake();
            }
            self.event(n, Event::NoResponders { attempt });
        } else if self.runs.is_none() {
            self.view.learnt(&worker(), MODEL, self.now, 0);
            self.view.began(&worker(), self.now);
            self.runs = Some(n);
            let accepted = Accepted {
                id: uuid::Uuid::nil(),
                worker: worker(),
                instance: 1,
                queue_position: 0,
                resumable: true,
            };
            self.frame(n, attempt, 0, Body::Accepted(accepted));
            self.view.room(&worker(), Room::default(), self.now);
        } else {
            self.view.learnt(&worker(), MODEL, self.now, 0);
            self.view.room(&worker(), Room::default(), self.now);
            let reject = Reject {
                reason: RejectReason::Busy,
                worker: worker(),
                room: Room::default(),
                message: "full".into(),
                retry_after_ms: None,
                id: None,
            };
            self.frame(n, attempt, 0, Body::Reject(reject));
        }
    }

    fn finish(&mut self) {
        let n = self.runs.take().unwrap();
        self.view.ended(&worker());
        self.requests[n].ended = true;
        let attempt = 0;
        self.frame(n, attempt, 1, Body::Finish(Finish::default()));
        self.view.room(
            &worker(),
            Room {
                free: 1,
                queued: 0,
                pending: None,
            },
            self.now,
        );
        self.wake();
    }

    fn snapshot(&mut self) {
        let there = self.alive || self.coordinator == Some(false);
        let age_ms = self.died.map_or(0, |died| (self.now - died).as_millis() as u64);
        let told = there.then(|| fixture::worker("w", 1, u32::from(self.runs.is_some()), age_ms));
        let capacity = fixture::capacity(told.into_iter().collect());
        self.view.snapshot(capacity, self.now, 0);
        self.wake();
    }

    /// All messages arrive.
    fn settle(&mut self) {
        for _ in 0..1000 {
            let straight = |step: &Step| !matches!(step, Step::Timer(_) | Step::Snapshot | Step::CoordinatorNotices);
            let Some(step) = self.steps().into_iter().find(straight) else {
                return;
            };
            self.apply(step);
        }
        panic!("it goes round in circles: {self:?}");
    }

    /// The worker is dead and time passes: returns who gets no answer, and after how long.
    fn time_passes(&mut self) -> Result<(), String> {
        const TICK: Duration = Duration::from_millis(250);
        let start = self.now;
        self.settle();
        while self.now < start + limits::NO_WORKER_GRACE + Duration::from_secs(6) {
            self.now += TICK;
            let passed = self.now - start;
            if self.coordinator.is_some() && passed.subsec_millis() == 0 {
                if passed >= Duration::from_secs(3) {
                    self.coordinator = Some(true);
                }
                self.snapshot();
                self.settle();
            }
            for n in 0..self.requests.len() {
                let mut actions = Vec::new();
                let request = &mut self.requests[n];
                if !request.ended && request.state.timer() <= self.now {
                    request.state.tick(self.now, &mut actions);
                    self.take_in(n, &actions);
                    self.settle();
                }
            }
            for (n, request) in self.requests.iter().enumerate().filter(|(_, request)| !request.ended) {
                let limit = if self.clustered { 8 } else { 5 };
                if passed >= Duration::from_secs(limit) && !request.state.has_begun() {
                    return Err(format!("request {n} waits after {passed:?}"));
                }
            }
        }
        match self.requests.iter().position(|request| !request.ended) {
            Some(n) => Err(format!("request {n} waits although its grace is over")),
            None => Ok(()),
        }
    }

    /// Everything that distinguishes two worlds, as `Debug` text, so that no new field is forgotten here.
    fn fingerprint(&self) -> u64 {
        let mut text = Text(DefaultHasher::new());
        let Self {
            requests,
            view,
            room,
            now: _,
            alive,
            died: _,
            runs,
            coordinator,
            clustered: _,
            left: _,
        } = self;
        write!(text, "{requests:?} {view:?} {room:?} {alive} {runs:?} {coordinator:?}").unwrap();
        text.0.finish()
    }
}

/// Hashes text without storing it.
struct Text(DefaultHasher);

impl std::fmt::Write for Text {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0.write(text.as_bytes());
        Ok(())
    }
}

/// Walks through every world that can follow `world`. `seen` maps each world to the length of the walk that was left.
fn explore(world: &World, path: &mut Vec<Step>, seen: &mut HashMap<u64, u32>, dead: &mut usize) {
    let print = world.fingerprint();
    match seen.insert(print, world.left) {
        Some(left) if left >= world.left => {
            seen.insert(print, left);
            return;
        }
        Some(_) => {}
        None if world.alive => {}
        None => {
            *dead += 1;
            let mut later = world.clone();
            if let Err(what) = later.time_passes() {
                panic!("{what}\nafter {path:?}\n{later:#?}");
            }
        }
    }
    for step in world.steps() {
        let Some(left) = world.left.checked_sub(World::cost(step)) else {
            continue;
        };
        let mut next = world.clone();
        next.left = left;
        next.apply(step);
        path.push(step);
        explore(&next, path, seen, dead);
        path.pop();
    }
}

#[test]
fn every_interleaving_tells_whoever_waits_for_what_cannot_come() {
    for (requests, left) in [(1, 4), (2, 3), (3, 0)] {
        for coordinator in [false, true] {
            let (mut seen, mut dead) = (HashMap::new(), 0);
            explore(
                &World::new(requests, coordinator, left),
                &mut Vec::new(),
                &mut seen,
                &mut dead,
            );
            eprintln!(
                "{requests} requests, coordinator {coordinator}: {} worlds, {dead} dead",
                seen.len()
            );
            assert!(dead > 10, "{dead}");
        }
    }
}
