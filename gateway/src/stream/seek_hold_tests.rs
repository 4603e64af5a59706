//! A model check of the line for one worker: three requests whose prompt `a` holds, and another worker `b`, one slot each,
//! in every order of steps. Nobody sleeps while a slot is free that it may take, or while the worker that it waits for is
//! gone; and nobody waits for one worker for longer than was right at first.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use tokenbus_placement::{Cut, Held};
use tokenbus_protocol::{Accepted, Body, Frame, ModelPace, Reject, RejectReason, Room, WorkerNews};

use super::*;
use crate::limits;
use crate::placement::fixture::{self, name};
use crate::stream::event::{Action, Event};
use crate::waiting_room::Bounds;

const MODEL: &str = "m";
const WORKERS: [&str; 2] = ["a", "b"];
const FULL: Room = Room {
    free: 0,
    queued: 0,
    pending: None,
};

#[derive(Debug, Clone)]
struct Request {
    state: StreamState,
    ticket: Option<Ticket>,
    in_room: bool,
    hold: Option<Hold>,
    held_out: bool,
    /// Something waits in its inbox: `true` is `Event::Go`.
    inbox: Option<bool>,
    /// The slot that it was called to.
    called: Option<Option<Name>>,
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
    alive: [bool; 2],
    /// The request in each worker's slot.
    runs: [Option<usize>; 2],
    /// Times that requests may look by themselves.
    left: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Look(usize),
    Take(usize),
    Answer(usize),
    Timer(usize),
    Finish(usize),
    Die,
}

fn prompt() -> Prompt {
    [Cut {
        hash: 1 << 40,
        bytes: 32_000,
        tokens: 8_000,
    }]
    .into_iter()
    .collect()
}

impl World {
    fn new(requests: usize, left: u32, prefixes: &mut Prefixes) -> Self {
        let now = Instant::now();
        let request = || Request {
            state: StreamState::new(now + Duration::from_secs(600), None),
            ticket: None,
            in_room: false,
            hold: None,
            held_out: false,
            inbox: None,
            called: None,
            open: None,
            ended: false,
        };
        let mut view = View::default();
        let workers = WORKERS.map(|id| fixture::worker(id, 1, 0, 0)).to_vec();
        view.snapshot(fixture::capacity(workers), now, 0);
        let mut held = Held::new(1_000_000, 1000, 9);
        held.read(&prompt());
        let told = held.news(0).unwrap();
        let news = WorkerNews {
            epoch: told.epoch,
            changes: told.changes.into(),
            paces: vec![ModelPace {
                model: MODEL.into(),
                prefill: Some(2.0),
                service_ms: Some(100.0),
                ..ModelPace::default()
            }],
            ..WorkerNews::default()
        };
        view.told_news(&name("a"), news, prefixes, now);
        Self {
            requests: (0..requests).map(|_| request()).collect(),
            view,
            room: WaitingRoom::new(Bounds {
                requests: 100,
                bytes: 100,
            }),
            now,
            alive: [true; 2],
            runs: [None; 2],
            left,
        }
    }

    fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        for (n, request) in self.requests.iter().enumerate().filter(|(_, request)| !request.ended) {
            if request.state.is_choosing() {
                steps.push(Step::Look(n));
            } else if request.open.is_some() {
                steps.push(Step::Answer(n));
            } else if request.inbox.is_some() {
                steps.push(Step::Take(n));
            } else if request.in_room && self.left > 0 {
                steps.push(Step::Timer(n));
            }
        }
        steps.extend((0..2).filter(|at| self.runs[*at].is_some()).map(Step::Finish));
        if self.alive[0] {
            steps.push(Step::Die);
        }
        steps
    }

    fn apply(&mut self, step: Step, prefixes: &mut Prefixes) {
        match step {
            Step::Look(n) => self.look(n, prefixes),
            Step::Take(n) => self.take(n),
            Step::Answer(n) => self.answer(n),
            Step::Timer(n) => {
                self.left -= 1;
                self.tick(n);
            }
            Step::Finish(at) => self.finish(at),
            Step::Die => {
                self.alive[0] = false;
                self.view.gone(&name("a"), self.now);
                self.wake();
                if let Some(n) = self.runs[0].take() {
                    self.view.ended(&name("a"));
                    self.event(n, Event::WorkerGone { worker: name("a") });
                }
            }
        }
    }

    fn tick(&mut self, n: usize) {
        let mut actions = Vec::new();
        let state = &mut self.requests[n].state;
        state.tick(state.timer().max(self.now), &mut actions);
        self.take_in(n, &actions);
    }

    fn look(&mut self, n: usize, prefixes: &mut Prefixes) {
        let now = self.now;
        let request = &mut self.requests[n];
        request.held_out |= request.hold.as_ref().is_some_and(|hold| hold.until <= now);
        let seeker = Seeker {
            model: MODEL,
            needs: Features::NONE,
            prompt: &prompt(),
            session: None,
            ticket: request.ticket.as_ref(),
            in_room: request.in_room,
            hold: request.hold.as_ref(),
            held_out: request.held_out,
            recovering: false,
            clustered: false,
            now,
        };
        let random = &mut fastrand::Rng::with_seed(1);
        match seek(&mut request.state, &seeker, &self.view, &self.room, prefixes, random) {
            Destination::InLine => self.stand_in_line(n, None),
            Destination::Hold(hold) => self.stand_in_line(n, Some(hold)),
            Destination::Stay => self.stand_in_line(n, self.requests[n].hold.clone()),
            Destination::To(target) => self.send(n, target.map(|target| target.worker)),
            other => panic!("{other:?}"),
        }
        self.come(n);
    }

    fn send(&mut self, n: usize, worker: Option<Name>) {
        self.release(n);
        let request = &mut self.requests[n];
        request.hold = None;
        if let Some(ticket) = request.ticket.as_mut().filter(|_| request.in_room) {
            self.room.take_turn(ticket);
            ticket.had_turn = true;
            request.in_room = false;
        }
        let left = request
            .called
            .clone()
            .flatten()
            .is_some_and(|called| Some(called) != worker);
        let patience = Duration::from_millis(250);
        let attempt = request.state.publish(worker.clone(), self.now, patience).unwrap();
        request.open = Some((attempt.attempt, worker.clone()));
        if let Some(worker) = &worker {
            self.view.placed(worker, self.now);
        }
        self.come(n);
        if left {
            self.wake();
        }
    }

    fn stand_in_line(&mut self, n: usize, hold: Option<Hold>) {
        self.come(n);
        let worker = hold.as_ref().map(|hold| hold.worker.clone());
        let known = self.requests[n].hold.as_ref().map(|hold| hold.worker.clone());
        if !self.requests[n].in_room || worker != known {
            self.release(n);
            let (request, room, now) = (&mut self.requests[n], &mut self.room, self.now);
            let ticket = request
                .ticket
                .get_or_insert_with(|| room.ticket(MODEL, 0, None, 1, now));
            room.leave(ticket);
            ticket.line = LineKey {
                needs: Features::NONE,
                worker: worker.clone(),
            };
            ticket.begun = request.state.has_begun();
            room.enter(ticket, n, now).unwrap();
            ticket.had_turn = false;
            request.in_room = true;
            if let Some(hold) = &hold {
                self.view.hold(&hold.worker, hold.tokens);
            }
        }
        let request = &mut self.requests[n];
        let pause = hold.as_ref().map_or(limits::WAIT_RETRY, |hold| {
            limits::HOLD_LOOK.min(hold.until.saturating_duration_since(self.now))
        });
        request.hold = hold;
        request.state.wait(self.now, pause);
        self.wake();
    }

    fn release(&mut self, n: usize) {
        let request = &self.requests[n];
        if let Some(hold) = request.hold.as_ref().filter(|_| request.in_room) {
            self.view.release(&hold.worker, hold.tokens);
        }
    }

    fn come(&mut self, n: usize) {
        match self.requests[n].called.take() {
            None => {}
            Some(None) => self.view.came(MODEL),
            Some(Some(worker)) => self.view.came_to(&worker),
        }
    }

    fn take(&mut self, n: usize) {
        self.release(n);
        let turn = self.requests[n].inbox.take() == Some(true);
        self.come(n);
        let request = &mut self.requests[n];
        request.in_room = false;
        request.called = turn.then(|| request.hold.as_ref().map(|hold| hold.worker.clone()));
        if !turn {
            request.hold = None;
        }
        request.ticket.iter_mut().for_each(|ticket| ticket.had_turn = turn);
        self.event(n, if turn { Event::Go } else { Event::Look });
    }

    fn wake(&mut self) {
        let called = take_from_lines(&mut self.view, &mut self.room, MODEL, self.now);
        self.view.call(MODEL, called.have_turn.len());
        let own = called.have_own.into_iter().map(|(_, n)| n);
        for n in own.chain(called.have_turn) {
            self.requests[n].inbox = Some(true);
        }
        for n in called.look {
            self.requests[n].inbox = Some(false);
        }
    }

    fn event(&mut self, n: usize, event: Event) {
        let mut actions = Vec::new();
        self.requests[n].state.on_event(event, self.now, &mut actions);
        self.take_in(n, &actions);
    }

    fn take_in(&mut self, n: usize, actions: &[Action]) {
        assert!(
            !actions.iter().any(|action| matches!(action, Action::Fail(_))),
            "{actions:?}"
        );
        self.requests[n].ended |= self.requests[n].state.is_done();
    }

    fn frame(&mut self, n: usize, (attempt, seq): (u32, u32), worker: Name, body: Body<'static>) {
        let frame = Frame {
            stream: 1,
            attempt,
            seq,
            body,
        };
        self.event(n, Event::Frame { worker, frame });
    }

    fn answer(&mut self, n: usize) {
        let (attempt, target) = self.requests[n].open.take().unwrap();
        if let Some(target) = &target {
            self.view.settled(target);
        }
        let free = || (0..2).find(|at| self.alive[*at] && self.runs[*at].is_none());
        let worker = target.unwrap_or_else(|| name(WORKERS[free().unwrap_or(1)]));
        let at = usize::from(worker == name("b"));
        if !self.alive[at] {
            self.view.gone(&worker, self.now);
            self.wake();
            return self.event(n, Event::NoResponders { attempt });
        }
        self.view.room(&worker, FULL, self.now);
        if self.runs[at].is_none() {
            self.view.began(&worker, self.now);
            self.runs[at] = Some(n);
            let accepted = Accepted {
                id: uuid::Uuid::nil(),
                worker: worker.clone(),
                instance: 1,
                queue_position: 0,
                resumable: true,
            };
            self.frame(n, (attempt, 0), worker, Body::Accepted(accepted));
        } else {
            let reject = Reject {
                reason: RejectReason::Busy,
                worker: worker.clone(),
                room: FULL,
                message: "full".into(),
                retry_after_ms: None,
                id: None,
            };
            self.frame(n, (attempt, 0), worker, Body::Reject(reject));
        }
    }

    fn finish(&mut self, at: usize) {
        let n = self.runs[at].take().unwrap();
        let worker = name(WORKERS[at]);
        self.view.ended(&worker);
        self.requests[n].ended = true;
        self.view.room(&worker, Room { free: 1, ..FULL }, self.now);
        self.wake();
    }

    /// All messages arrive.
    fn settle(&mut self, prefixes: &mut Prefixes) {
        for _ in 0..1000 {
            let straight = |step: &Step| matches!(step, Step::Look(_) | Step::Take(_) | Step::Answer(_));
            let Some(step) = self.steps().into_iter().find(straight) else {
                return;
            };
            self.apply(step, prefixes);
        }
        panic!("it goes round in circles: {self:?}");
    }

    /// Once all messages have arrived: who sleeps although it could go.
    fn sleeper(&self) -> Option<String> {
        let waits = |worker: &str| {
            let hold = |request: &&Request| request.hold.as_ref().is_some_and(|hold| hold.worker == name(worker));
            let requests = self.requests.iter().filter(|request| request.in_room);
            u32::try_from(requests.filter(hold).count()).unwrap()
        };
        for id in WORKERS {
            let counted = self.view.held_at(&name(id));
            if self.view.slots_at(&name(id), MODEL, Features::NONE, 1).is_some() && counted != (waits(id), 0) {
                return Some(format!("{id}: {counted:?} for {}", waits(id)));
            }
        }
        if waits("a") > 0 && self.view.slots_at(&name("a"), MODEL, Features::NONE, 1) != Some(0) {
            return Some("one waits for a, which is gone or free".into());
        }
        let any = self
            .requests
            .iter()
            .any(|request| request.in_room && request.hold.is_none());
        let free = self.view.free(MODEL, Features::NONE);
        (any && free > 0).then(|| format!("one waits for any of {free} free slots"))
    }

    /// Time passes, in which `a` ends what it has (or never does) and `b` ends everything.
    fn time_passes(&mut self, stuck: bool, prefixes: &mut Prefixes) -> Result<(), String> {
        let start = self.now;
        self.settle(prefixes);
        while self.now < start + Duration::from_secs(12) {
            self.now += Duration::from_millis(250);
            let snapshot = [0, 1].into_iter().filter(|at| self.alive[*at]);
            let snapshot = snapshot.map(|at| fixture::worker(WORKERS[at], 1, u32::from(self.runs[at].is_some()), 0));
            self.view.snapshot(fixture::capacity(snapshot.collect()), self.now, 0);
            self.wake();
            for at in (usize::from(stuck)..2)
                .filter(|at| self.runs[*at].is_some())
                .collect::<Vec<_>>()
            {
                self.finish(at);
            }
            for n in 0..self.requests.len() {
                let request = &self.requests[n];
                if !request.ended && request.in_room && request.state.timer() <= self.now {
                    self.tick(n);
                }
            }
            self.settle(prefixes);
        }
        let left = |n: &usize| !(self.requests[*n].ended || stuck && self.runs[0] == Some(*n));
        match (0..self.requests.len()).find(left) {
            Some(n) => Err(format!("request {n} still waits")),
            None => Ok(()),
        }
    }

    fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        let Self {
            requests,
            view,
            room,
            now: _,
            alive,
            runs,
            left,
        } = self;
        format!("{requests:?} {view:?} {room:?} {alive:?} {runs:?} {left}").hash(&mut hasher);
        hasher.finish()
    }
}

/// What the walk came through.
#[derive(Debug, Default)]
struct Seen {
    worlds: HashSet<u64>,
    /// Worlds in which a request waits for one worker.
    held: usize,
}

fn explore(world: &World, path: &mut Vec<Step>, seen: &mut Seen, prefixes: &mut Prefixes) {
    if !seen.worlds.insert(world.fingerprint()) {
        return;
    }
    seen.held += usize::from(world.view.held_at(&name("a")).0 > 0);
    let mut quiet = world.clone();
    quiet.settle(prefixes);
    if let Some(what) = quiet.sleeper() {
        panic!("{what}\nafter {path:?}\n{quiet:#?}");
    }
    // Time matters only to those that wait.
    let waits = world.requests.iter().any(|request| request.in_room);
    for stuck in [false, true].into_iter().filter(|_| waits) {
        let mut later = world.clone();
        if let Err(what) = later.time_passes(stuck, prefixes) {
            panic!("{what}, stuck {stuck}\nafter {path:?}\n{later:#?}");
        }
    }
    for step in world.steps() {
        let mut next = world.clone();
        next.apply(step, prefixes);
        path.push(step);
        explore(&next, path, seen, prefixes);
        path.pop();
    }
}

#[test]
fn nobody_sleeps_for_a_worker_that_is_gone_or_free_or_no_longer_best() {
    for (requests, left) in [(2, 1), (3, 0)] {
        let (mut seen, mut prefixes) = (Seen::default(), Prefixes::default());
        let world = World::new(requests, left, &mut prefixes);
        explore(&world, &mut Vec::new(), &mut seen, &mut prefixes);
        eprintln!(
            "{requests} requests: {} worlds, {} with a held one",
            seen.worlds.len(),
            seen.held
        );
        assert!(seen.held > 10, "{seen:?}");
    }
}
