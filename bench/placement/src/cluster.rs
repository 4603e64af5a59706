//! A run: gateways, workers and the time between them.

mod telling;
mod waiting;

use crate::engine::{Number, Step};
use crate::fleet::Fleet;
use crate::holders::Set;
use crate::lines::Lines;
use crate::offers::Offers;
use crate::policy::Kind;
use crate::policy::decide::Policy;
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
    Accepted(Number, usize, Room),
    FirstToken(Number, usize, Room),
    Ended(Number, usize, Room),
    Refused(Number, usize, Room),
    /// A worker speaks to all gateways.
    Status(usize),
    Heard(usize, usize, Box<Report>),
    /// A worker sends what its engine has generated.
    Batch(usize),
    /// A gateway hears that slots of a worker are kept for it.
    Offer(usize, usize, u32, Room),
    /// A worker hears that requests wait at a gateway.
    Waits(usize, usize),
    /// A worker hears that a gateway has no request for slots that were kept for it.
    Decline(usize, usize, u32),
    /// Offers of a worker may have lapsed.
    Lapse(usize),
    /// A request that waits for one worker looks again.
    Look(Number),
    Kill(usize),
    /// A request whose worker was lost looks for another one.
    Moved(Number),
    Noticed(usize),
    Sample,
}

struct Gateway {
    policy: Box<dyn Policy>,
    lines: Lines,
    /// When each worker was last told, or showed that it knows, that requests wait here.
    told: Vec<Option<Nanos>>,
}

/// The worker for which a request waits.
#[derive(Debug, Clone, Copy)]
struct Hold {
    worker: usize,
    until: Nanos,
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
    holds: Vec<Option<Hold>>,
    /// Requests that have waited for one worker in vain.
    held_out: Vec<bool>,
    offers: Offers,
    /// Answers that each worker generates for each gateway.
    streams: Vec<Vec<u32>>,
    /// When each worker last told what it has to read, and how much that was.
    spoke: Vec<(Nanos, f32)>,
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
                lines: Lines::new(workers),
                told: vec![None; workers],
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
            holds: vec![None; run.requests.len()],
            held_out: vec![false; run.requests.len()],
            offers: Offers::new(workers, run.cluster.gateways),
            streams: vec![vec![0; run.cluster.gateways]; workers],
            spoke: vec![(0, 0.0); workers],
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
            if self.run.policy.workers_refuse() {
                self.queue.push(phase % telling::BATCH_EVERY, Event::Batch(worker));
            }
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
            Event::Accepted(number, worker, room) => {
                let gateway = &mut self.gateways[self.home[number]];
                gateway.policy.taken(number, worker);
                gateway.policy.room(worker, room, now - link);
            }
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
                // One that refuses knows of whom.
                self.gateways[home].told[worker] = Some(now);
                self.arrive(now, number);
            }
            Event::Status(worker) => self.speak(now, worker),
            Event::Heard(gateway, worker, report) => {
                self.gateways[gateway].policy.status(worker, &report, now);
                self.serve_line(now, gateway, worker);
            }
            Event::Batch(worker) => self.batch(now, worker),
            Event::Offer(gateway, worker, slots, room) => self.offered(now, (gateway, worker), slots, room),
            Event::Waits(gateway, worker) => {
                self.offers.of(worker).waits(&gateway);
                self.offer(now, worker);
            }
            Event::Decline(gateway, worker, slots) => {
                self.offers.of(worker).decline(&gateway, slots);
                self.offer(now, worker);
            }
            Event::Lapse(worker) => self.offer(now, worker),
            Event::Look(number) => self.look_again(now, number),
            Event::Moved(number) => self.arrive(now, number),
            Event::Kill(worker) => self.kill(now, worker),
            Event::Noticed(worker) => self.noticed(now, worker),
            Event::Sample => self.sample(now),
        }
    }

    /// A gateway is offered slots: it gives back those for which it has nobody.
    fn offered(&mut self, now: Nanos, (gateway, worker): (usize, usize), slots: u32, room: Room) {
        let link = self.run.cluster.link;
        self.gateways[gateway].told[worker] = Some(now);
        self.gateways[gateway].policy.room(worker, room, now - link);
        let taken = self.serve_line(now, gateway, worker);
        if slots > taken {
            self.gateways[gateway].told[worker] = None;
            let room = Room { free: 0, ..room };
            self.gateways[gateway].policy.room(worker, room, now - link);
            self.queue
                .push(now + link, Event::Decline(gateway, worker, slots - taken));
        }
    }

    /// All gateways learn that a worker is gone.
    fn noticed(&mut self, now: Nanos, worker: usize) {
        for gateway in 0..self.gateways.len() {
            self.gateways[gateway].policy.lost(worker);
            for number in self.gateways[gateway].lines.dissolve(worker) {
                self.release(number);
                self.arrive(now, number);
            }
        }
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
        let gateway = self.home[number];
        let slots = self.run.cluster.engines[worker].slots;
        if self.run.policy.workers_refuse() {
            let turns = self.offers.of(worker);
            let others = turns.kept().saturating_sub(turns.kept_for(&gateway));
            if self.active(worker) + others >= slots {
                self.offers.of(worker).waits(&gateway);
                let room = self.room(worker, gateway, now);
                self.queue.push(now + link, Event::Refused(number, worker, room));
                return;
            }
            self.offers.of(worker).redeem(&gateway);
        }
        self.at_worker[number] = Some(worker);
        self.fleet.enqueue(worker, now, number, self.run.requests);
        if self.run.policy.workers_refuse() {
            let room = self.room(worker, gateway, now);
            self.queue.push(now + link, Event::Accepted(number, worker, room));
            self.speak_soon(now, worker);
        }
        self.schedule(worker);
    }

    /// Takes the engine's steps up to `now`.
    fn wake(&mut self, now: Nanos, worker: usize) {
        let mut steps = Vec::new();
        self.fleet.advance(worker, now, self.run.requests, &mut steps);
        let link = self.run.cluster.link;
        self.offer(now, worker);
        for step in &steps {
            let (Step::FirstToken { number, .. } | Step::Ended(number)) = *step;
            let gateway = self.home[number];
            let room = self.room(worker, gateway, now);
            let event = match *step {
                Step::FirstToken { number, cached, .. } => {
                    self.outcome.fates[number].cached = cached;
                    self.streams[worker][gateway] += 1;
                    Event::FirstToken(number, worker, room)
                }
                Step::Ended(number) => {
                    self.at_worker[number] = None;
                    self.streams[worker][gateway] -= 1;
                    Event::Ended(number, worker, room)
                }
            };
            self.queue.push(now + link, event);
        }
        self.speak_soon(now, worker);
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

    fn kill(&mut self, now: Nanos, worker: usize) {
        self.wake(now, worker);
        self.wakes[worker] += 1;
        let noticed = now + self.run.cluster.notice;
        self.queue.push(noticed, Event::Noticed(worker));
        self.streams[worker].fill(0);
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
