//! A run: gateways, workers and the time between them.

use crate::engine::{Number, Step};
use crate::fleet::Fleet;
use crate::holders::Set;
use crate::lines::Lines;
use crate::offers::{Offers, PATIENCE};
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

/// How often a worker sends what its engine generates.
const BATCH_EVERY: Nanos = 50 * MILLISECOND;

/// A worker whose engine has so many tokens more or less to read speaks before its next status, but not sooner after the
/// last one than this.
const NEWS_TOKENS: f32 = 1024.0;
const NEWS_SOON: Nanos = 20 * MILLISECOND;

/// How often a request that waits for one worker looks whether that is still best.
const LOOK_EVERY: Nanos = 250 * MILLISECOND;

/// Workers that are told of a request that begins to wait for any.
const TELL: usize = 16;

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
                self.queue.push(phase % BATCH_EVERY, Event::Batch(worker));
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
            Event::Offer(gateway, worker, slots, room) => {
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
            Event::Noticed(worker) => {
                for gateway in 0..self.gateways.len() {
                    self.gateways[gateway].policy.lost(worker);
                    for number in self.gateways[gateway].lines.dissolve(worker) {
                        self.release(number);
                        self.arrive(now, number);
                    }
                }
            }
            Event::Sample => self.sample(now),
        }
    }

    /// Sends a request that has just arrived, or was refused or lost, or lets it wait.
    fn arrive(&mut self, now: Nanos, number: Number) {
        let gateway = self.home[number];
        let was_sent = self.outcome.fates[number].sent > 0;
        let waits = !was_sent && self.run.policy.workers_refuse() && !self.gateways[gateway].lines.is_free();
        if waits || !self.place(now, gateway, number, None) {
            self.refused_by[number] = 0;
            if self.holds[number].is_none() {
                self.gateways[gateway].lines.enter(number, was_sent);
                self.tell(now, gateway, None);
            }
        }
    }

    /// A request waits at a gateway, for this worker or for any: tells workers that do not know of one.
    fn tell(&mut self, now: Nanos, gateway: usize, only: Option<usize>) {
        let link = self.run.cluster.link;
        let told = &mut self.gateways[gateway].told;
        let workers = only.map_or(0..told.len(), |worker| worker..worker + 1);
        let due = workers.filter(|worker| told[*worker].is_none_or(|at| now >= at + 1_000 * MILLISECOND));
        let due: Vec<usize> = due.take(TELL).collect();
        for worker in due {
            told[worker] = Some(now);
            self.queue.push(now + link, Event::Waits(gateway, worker));
        }
    }

    /// Sends as many of the waiting requests as find a place now that a gateway has heard of `worker`: first those that
    /// wait for it, then the first of the others. Returns how many.
    fn serve_line(&mut self, now: Nanos, gateway: usize, worker: usize) -> u32 {
        let mut sent = 0;
        while self.gateways[gateway].policy.is_open(worker) {
            let Some(number) = self.gateways[gateway].lines.next_held(worker) else {
                break;
            };
            self.release(number);
            if self.place(now, gateway, number, Some(worker)) {
                sent += 1;
            } else if self.holds[number].is_none() {
                self.gateways[gateway].lines.enter(number, false);
            }
        }
        while let Some(number) = self.gateways[gateway].lines.next_of_any() {
            if self.place(now, gateway, number, None) {
                sent += 1;
            } else if self.holds[number].is_none() {
                self.gateways[gateway].lines.back(number);
                break;
            }
        }
        sent
    }

    /// A request that waits for one worker looks whether that is still best. After its time, it waits for none.
    fn look_again(&mut self, now: Nanos, number: Number) {
        let gateway = self.home[number];
        let Some(Hold { worker, until }) = self.holds[number] else {
            return;
        };
        let early = now < until;
        if early && !self.gateways[gateway].lines.is_free() {
            self.queue.push(until.min(now + LOOK_EVERY), Event::Look(number));
            return;
        }
        self.gateways[gateway].lines.release(number, worker);
        self.release(number);
        self.held_out[number] |= !early;
        if !self.place(now, gateway, number, None) && self.holds[number].is_none() {
            self.gateways[gateway].lines.enter(number, false);
        }
    }

    /// It does not wait for one worker any more.
    fn release(&mut self, number: Number) {
        if let Some(Hold { worker, .. }) = self.holds[number].take() {
            self.gateways[self.home[number]].policy.held(number, worker, false);
        }
    }

    /// Sends a request, or lets it wait for the worker that is best. False if it was not sent.
    fn place(&mut self, now: Nanos, gateway: usize, number: Number, turn_at: Option<usize>) -> bool {
        let ask = Ask {
            number,
            request: &self.run.requests[number],
            refused_by: self.refused_by[number],
            turn_at,
            may_hold: !self.held_out[number] && self.outcome.fates[number].lost == 0,
            now,
            truth: &self.fleet,
        };
        let policy = &mut self.gateways[gateway].policy;
        let worker = match policy.place(&ask) {
            Choice::Worker(worker) => worker,
            Choice::Wait => return false,
            Choice::Hold(worker, bound) => {
                policy.held(number, worker, true);
                let until = now + bound;
                self.holds[number] = Some(Hold { worker, until });
                self.gateways[gateway].lines.hold(number, worker);
                self.queue.push(until.min(now + LOOK_EVERY), Event::Look(number));
                self.tell(now, gateway, Some(worker));
                return false;
            }
        };
        policy.sent(&ask, worker);
        self.outcome.fates[number].sent += 1;
        self.queue
            .push(now + self.run.cluster.link, Event::Deliver(number, worker));
        true
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

    fn active(&self, worker: usize) -> u32 {
        u32::try_from(self.fleet.engine(worker).active()).unwrap_or(u32::MAX)
    }

    fn free(&self, worker: usize) -> u32 {
        self.run.cluster.engines[worker]
            .slots
            .saturating_sub(self.active(worker))
    }

    fn room(&self, worker: usize, gateway: usize, now: Nanos) -> Room {
        Room {
            active: self.active(worker),
            free: self.offers.free_for(worker, gateway, self.free(worker)),
            pending: self.fleet.pending(worker, now),
        }
    }

    /// What a worker generates comes to the gateways in batches, each with its room.
    fn batch(&mut self, now: Nanos, worker: usize) {
        for gateway in 0..self.gateways.len() {
            if self.streams[worker][gateway] > 0 {
                let room = self.room(worker, gateway, now);
                self.gateways[gateway].policy.room(worker, room, now);
            }
        }
        if self.fleet.lives(worker) {
            self.queue.push(now + BATCH_EVERY, Event::Batch(worker));
        }
    }

    /// Offers the free slots of a worker to the gateways that wait, in turn.
    fn offer(&mut self, now: Nanos, worker: usize) {
        let link = self.run.cluster.link;
        if !self.run.policy.workers_refuse() || !self.fleet.lives(worker) {
            return;
        }
        let free = self.free(worker);
        let offered = self.offers.offer(worker, free, now);
        if !offered.is_empty() {
            self.queue.push(now + PATIENCE, Event::Lapse(worker));
        }
        for (gateway, slots) in offered {
            let room = self.room(worker, gateway, now);
            self.queue.push(now + link, Event::Offer(gateway, worker, slots, room));
        }
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

    /// A worker that has much more or less to read than it told says so.
    fn speak_soon(&mut self, now: Nanos, worker: usize) {
        let (at, told) = self.spoke[worker];
        // What gateways believe by now.
        #[expect(clippy::cast_possible_truncation, reason = "an estimate needs no more digits")]
        let read = (seconds(now - at) * self.run.cluster.engines[worker].prefill_rate) as f32;
        if let Some(pending) = self.fleet.pending(worker, now)
            && (pending - (told - read).max(0.0)).abs() >= NEWS_TOKENS
            && now >= at + NEWS_SOON
        {
            self.say(now, worker, false);
        }
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
        self.say(now, worker, true);
        self.queue
            .push(now + self.run.cluster.status_every, Event::Status(worker));
    }

    fn say(&mut self, now: Nanos, worker: usize, full: bool) {
        self.spoke[worker] = (now, self.fleet.pending(worker, now).unwrap_or(0.0));
        let mut report = self.fleet.report(worker, now, full);
        for gateway in 0..self.gateways.len() {
            if self.rng.f64() >= self.run.cluster.status_loss {
                let at = now + self.run.cluster.link;
                report.free = self.offers.free_for(worker, gateway, self.free(worker));
                self.queue
                    .push(at, Event::Heard(gateway, worker, Box::new(report.clone())));
            }
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
