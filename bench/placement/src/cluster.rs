//! A run: gateways, workers and the time between them.

use std::collections::VecDeque;

use crate::engine::{Number, Step};
use crate::fleet::Fleet;
use crate::holders::Set;
use crate::policy::Kind;
use crate::policy::decide::{Ask, Choice, Policy};
use crate::prompt::Request;
use crate::queue::EventQueue;
use crate::random::mix;
use crate::reporter::{Report, Room};
use crate::setting::Cluster;
use crate::stats::{Fate, Outcome};
use crate::time::{MILLISECOND, Nanos, seconds};

/// How often the requests at each worker are counted.
const SAMPLE_EVERY: Nanos = 100 * MILLISECOND;

/// How requests arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrivals {
    /// At the times of the workload, whatever happens.
    Open,
    /// As many at once as this: the next one comes when one ends.
    Closed(usize),
}

/// One run.
#[derive(Debug, Clone)]
pub struct Run<'a> {
    /// The cluster.
    pub cluster: &'a Cluster,
    /// The requests, by time of arrival.
    pub requests: &'a [Request],
    /// What each gateway decides by.
    pub policy: Kind,
    /// How the requests arrive.
    pub arrivals: Arrivals,
    /// Workers that die, and when.
    pub kills: &'a [(Nanos, usize)],
    /// No event after this time is taken.
    pub until: Nanos,
    /// The seed of everything that is random.
    pub seed: u64,
}

#[derive(Debug)]
enum Event {
    Arrive(Number),
    Deliver(Number, usize),
    Wake(usize, u64),
    FirstToken(Number, usize, Room),
    Ended(Number, usize, Room),
    Refused(Number, usize, Room),
    /// A worker speaks to all gateways.
    Status(usize),
    Heard(usize, usize, Box<Report>),
    /// A worker tells all gateways that a slot is free.
    FreeHint(usize, Room),
    Kill(usize),
    /// A request whose worker was lost looks for another one.
    Moved(Number),
    Noticed(usize),
    Sample,
}

struct Gateway {
    policy: Box<dyn Policy>,
    line: VecDeque<Waiting>,
}

/// A request that waits at a gateway.
#[derive(Debug, Clone, Copy)]
struct Waiting {
    number: Number,
    /// The worker that it would like best.
    best: Option<usize>,
}

struct Simulation<'a> {
    run: &'a Run<'a>,
    queue: EventQueue<Event>,
    fleet: Fleet,
    wakes: Vec<u64>,
    gateways: Vec<Gateway>,
    home: Vec<usize>,
    refused_by: Vec<Set>,
    at_worker: Vec<Option<usize>>,
    outcome: Outcome,
    present: u64,
    present_since: Nanos,
    next_closed: Number,
    rng: fastrand::Rng,
}

impl Run<'_> {
    /// Runs it.
    pub fn outcome(&self) -> Outcome {
        let mut simulation = Simulation::new(self);
        simulation.begin();
        while let Some((now, event)) = simulation.queue.pop() {
            if now > self.until || simulation.is_over() {
                break;
            }
            simulation.outcome.over_at = now;
            simulation.take(now, event);
        }
        let mut reasons: std::collections::BTreeMap<&'static str, u64> = std::collections::BTreeMap::new();
        for gateway in &simulation.gateways {
            for (reason, count) in gateway.policy.reasons() {
                *reasons.entry(reason).or_default() += count;
            }
        }
        simulation.outcome.reasons = reasons.into_iter().collect();
        simulation.outcome
    }
}

impl<'a> Simulation<'a> {
    fn new(run: &'a Run<'a>) -> Self {
        let mut rng = fastrand::Rng::with_seed(mix(run.seed));
        let workers = run.cluster.engines.len();
        let gateways = (0..run.cluster.gateways)
            .map(|_| Gateway {
                policy: run.policy.build(run.cluster, rng.u64(..)),
                line: VecDeque::new(),
            })
            .collect();
        let home = run.requests.iter().map(|_| rng.usize(..run.cluster.gateways)).collect();
        Self {
            run,
            queue: EventQueue::default(),
            fleet: Fleet::new(&run.cluster.engines, run.policy.reporter()),
            wakes: vec![0; workers],
            gateways,
            home,
            refused_by: vec![0; run.requests.len()],
            at_worker: vec![None; run.requests.len()],
            outcome: Outcome {
                fates: vec![Fate::default(); run.requests.len()],
                ..Outcome::default()
            },
            present: 0,
            present_since: 0,
            next_closed: 0,
            rng,
        }
    }

    fn begin(&mut self) {
        match self.run.arrivals {
            Arrivals::Open => {
                for (number, request) in self.run.requests.iter().enumerate() {
                    self.queue.push(request.at, Event::Arrive(number));
                }
            }
            Arrivals::Closed(at_once) => {
                self.next_closed = at_once.min(self.run.requests.len());
                for number in 0..self.next_closed {
                    self.queue.push(number as u64 * MILLISECOND, Event::Arrive(number));
                }
            }
        }
        for worker in 0..self.fleet.len() {
            let phase = self.rng.u64(..self.run.cluster.status_every);
            self.queue.push(phase, Event::Status(worker));
        }
        for (at, worker) in self.run.kills {
            self.queue.push(*at, Event::Kill(*worker));
        }
        self.queue.push(SAMPLE_EVERY, Event::Sample);
    }

    /// Whether every request has ended.
    fn is_over(&self) -> bool {
        self.outcome.fates.len() as u64 == self.outcome.ended_count
    }

    fn take(&mut self, now: Nanos, event: Event) {
        let link = self.run.cluster.link;
        match event {
            Event::Arrive(number) => {
                self.count_presence(now, 1);
                self.arrive(now, number);
            }
            Event::Deliver(number, worker) => self.deliver(now, number, worker),
            Event::Wake(worker, wake) if self.wakes[worker] == wake => self.wake(now, worker),
            Event::Wake(..) => {}
            Event::FirstToken(number, worker, room) => {
                let fate = &mut self.outcome.fates[number];
                fate.first_token.get_or_insert(now);
                let cached = fate.cached;
                let gateway = &mut self.gateways[self.home[number]];
                gateway.policy.first_token(number, worker, cached, now);
                gateway.policy.room(worker, room, now - link);
            }
            Event::Ended(number, worker, room) => self.ended(now, number, worker, room),
            Event::Refused(number, worker, room) => {
                self.outcome.fates[number].refused += 1;
                self.refused_by[number] |= 1 << worker;
                let home = self.home[number];
                self.gateways[home].policy.refused(number, worker, now);
                self.gateways[home].policy.room(worker, room, now - link);
                self.arrive(now, number);
            }
            Event::Status(worker) => self.speak(now, worker),
            Event::Heard(gateway, worker, report) => {
                self.gateways[gateway].policy.status(worker, &report, now);
                self.serve_line(now, gateway, worker);
            }
            Event::FreeHint(worker, room) => {
                for gateway in 0..self.gateways.len() {
                    self.gateways[gateway].policy.room(worker, room, now - link);
                    self.serve_line(now, gateway, worker);
                }
            }
            Event::Moved(number) => self.arrive(now, number),
            Event::Kill(worker) => self.kill(now, worker),
            Event::Noticed(worker) => {
                for gateway in 0..self.gateways.len() {
                    self.gateways[gateway].policy.lost(worker);
                }
            }
            Event::Sample => self.sample(now),
        }
    }

    /// Sends a request that has just arrived, or was refused or lost, or lets it wait.
    fn arrive(&mut self, now: Nanos, number: Number) {
        let gateway = self.home[number];
        if let Err(best) = self.place(now, gateway, number) {
            self.refused_by[number] = 0;
            let waiting = Waiting { number, best };
            // What was sent before goes before what was not.
            if self.outcome.fates[number].sent > 0 {
                self.gateways[gateway].line.push_front(waiting);
            } else {
                self.gateways[gateway].line.push_back(waiting);
            }
        }
    }

    /// Sends as many of the waiting requests as find a place now that a gateway has heard of `worker`: first those that
    /// would like it best, then the first in line.
    fn serve_line(&mut self, now: Nanos, gateway: usize, worker: usize) {
        loop {
            let line = &self.gateways[gateway].line;
            let fond = line.iter().position(|waiting| waiting.best == Some(worker));
            let tries = [fond, (!line.is_empty()).then_some(0)];
            if !tries.into_iter().flatten().any(|place| self.serve(now, gateway, place)) {
                return;
            }
        }
    }

    /// Whether the request at this place of the line was sent.
    fn serve(&mut self, now: Nanos, gateway: usize, place: usize) -> bool {
        let Some(Waiting { number, .. }) = self.gateways[gateway].line.get(place).copied() else {
            return false;
        };
        match self.place(now, gateway, number) {
            Ok(()) => {
                self.gateways[gateway].line.remove(place);
                true
            }
            Err(best) => {
                if let Some(waiting) = self.gateways[gateway].line.get_mut(place) {
                    waiting.best = best;
                }
                false
            }
        }
    }

    /// Sends a request, or says which worker it would like best.
    fn place(&mut self, now: Nanos, gateway: usize, number: Number) -> Result<(), Option<usize>> {
        let ask = Ask {
            number,
            request: &self.run.requests[number],
            refused_by: self.refused_by[number],
            now,
            truth: &self.fleet,
        };
        let policy = &mut self.gateways[gateway].policy;
        let worker = match policy.place(&ask) {
            Choice::Worker(worker) => worker,
            Choice::Wait(best) => return Err(best),
        };
        policy.sent(&ask, worker);
        self.outcome.fates[number].sent += 1;
        self.queue
            .push(now + self.run.cluster.link, Event::Deliver(number, worker));
        Ok(())
    }

    fn deliver(&mut self, now: Nanos, number: Number, worker: usize) {
        let link = self.run.cluster.link;
        if !self.fleet.lives(worker) {
            // NATS answers that nobody is subscribed.
            self.outcome.fates[number].lost += 1;
            self.gateways[self.home[number]]
                .policy
                .ended(number, worker, now + link);
            self.refused_by[number] |= 1 << worker;
            self.queue.push(now + link, Event::Moved(number));
            return;
        }
        self.wake(now, worker);
        let room = self.room(worker, now);
        if self.run.policy.workers_refuse() && room.active >= self.run.cluster.engines[worker].slots {
            self.queue.push(now + link, Event::Refused(number, worker, room));
            return;
        }
        self.at_worker[number] = Some(worker);
        self.fleet.enqueue(worker, now, number, self.run.requests);
        self.schedule(worker);
    }

    fn active(&self, worker: usize) -> u32 {
        u32::try_from(self.fleet.engine(worker).active()).unwrap_or(u32::MAX)
    }

    fn room(&self, worker: usize, now: Nanos) -> Room {
        Room {
            active: self.active(worker),
            pending: self.fleet.pending(worker, now),
        }
    }

    /// Takes the engine's steps up to `now`.
    fn wake(&mut self, now: Nanos, worker: usize) {
        let mut steps = Vec::new();
        let was_full = self.active(worker) >= self.run.cluster.engines[worker].slots;
        self.fleet.advance(worker, now, self.run.requests, &mut steps);
        let link = self.run.cluster.link;
        let room = self.room(worker, now);
        for step in &steps {
            let event = match *step {
                Step::FirstToken { number, cached, .. } => {
                    self.outcome.fates[number].cached = cached;
                    Event::FirstToken(number, worker, room)
                }
                Step::Ended(number) => {
                    self.at_worker[number] = None;
                    Event::Ended(number, worker, room)
                }
            };
            self.queue.push(now + link, event);
        }
        if was_full && room.active < self.run.cluster.engines[worker].slots {
            self.queue.push(now + link, Event::FreeHint(worker, room));
        }
        self.schedule(worker);
    }

    fn schedule(&mut self, worker: usize) {
        self.wakes[worker] += 1;
        if let Some(next) = self.fleet.engine(worker).next() {
            self.queue.push(next, Event::Wake(worker, self.wakes[worker]));
        }
    }

    fn ended(&mut self, now: Nanos, number: Number, worker: usize, room: Room) {
        let fate = &mut self.outcome.fates[number];
        fate.ends += 1;
        fate.ended = Some(now);
        self.outcome.ended_count += 1;
        self.count_presence(now, -1);
        let home = self.home[number];
        self.gateways[home].policy.ended(number, worker, now);
        self.gateways[home]
            .policy
            .room(worker, room, now - self.run.cluster.link);
        self.serve_line(now, home, worker);
        if self.run.arrivals != Arrivals::Open && self.next_closed < self.run.requests.len() {
            self.queue.push(now, Event::Arrive(self.next_closed));
            self.next_closed += 1;
        }
    }

    /// A worker's status: to all gateways, each of which may miss it.
    fn speak(&mut self, now: Nanos, worker: usize) {
        if !self.fleet.lives(worker) {
            return;
        }
        self.wake(now, worker);
        let report = self.fleet.report(worker, now);
        for gateway in 0..self.gateways.len() {
            if self.rng.f64() >= self.run.cluster.status_loss {
                let at = now + self.run.cluster.link;
                self.queue
                    .push(at, Event::Heard(gateway, worker, Box::new(report.clone())));
            }
        }
        self.queue
            .push(now + self.run.cluster.status_every, Event::Status(worker));
    }

    fn kill(&mut self, now: Nanos, worker: usize) {
        self.wake(now, worker);
        self.wakes[worker] += 1;
        let noticed = now + self.run.cluster.notice;
        self.queue.push(noticed, Event::Noticed(worker));
        for number in self.fleet.kill(worker) {
            self.at_worker[number] = None;
            self.outcome.fates[number].lost += 1;
            self.gateways[self.home[number]].policy.ended(number, worker, noticed);
            self.queue.push(noticed + 1, Event::Moved(number));
        }
    }

    fn sample(&mut self, now: Nanos) {
        let loads: Vec<f64> = self
            .fleet
            .living()
            .map(|worker| f64::from(self.active(worker)))
            .collect();
        let most = loads.iter().copied().fold(0.0, f64::max);
        #[expect(clippy::cast_precision_loss, reason = "workers are few")]
        let mean = loads.iter().sum::<f64>() / loads.len().max(1) as f64;
        if mean > 0.0 {
            self.outcome.imbalance.push((now, most / mean));
        }
        self.queue.push(now + SAMPLE_EVERY, Event::Sample);
    }

    fn count_presence(&mut self, now: Nanos, change: i64) {
        #[expect(clippy::cast_precision_loss, reason = "requests are far below 2^52")]
        let present = self.present as f64;
        self.outcome.presence += present * seconds(now - self.present_since);
        self.present_since = now;
        self.present = self.present.saturating_add_signed(change);
    }
}
