//! A seeded simulation of many gateways with one limit, with late and lost messages: how far they exceed the limit,
//! compared with docs/limits.md.

use std::num::{NonZeroU32, NonZeroU64};

use super::super::limits::{GOSSIP, GOSSIP_GAP, REFRESH};
use super::tests::admit;
use super::*;

/// The settings of a simulation; times are in milliseconds.
#[derive(Clone, Copy)]
struct World {
    seed: u64,
    gateways: usize,
    limits: Limits,
    /// Requests that reach each gateway per second.
    arrivals: f64,
    /// Longest delay of a message.
    delay: u64,
    /// Percentage of lost messages.
    loss: u32,
    seconds: u64,
    /// Longest duration of a request.
    runs: u64,
}

impl World {
    fn new(seed: u64, gateways: usize, per_minute: u32) -> Self {
        Self {
            seed,
            gateways,
            limits: Limits {
                requests: NonZeroU32::new(per_minute),
                ..Limits::default()
            },
            arrivals: 200.0,
            delay: 5,
            loss: 0,
            seconds: 120,
            runs: 0,
        }
    }

    /// What the limit would allow with one gateway.
    fn allowed(&self) -> f64 {
        let limit = match (self.limits.requests, self.limits.tokens) {
            (Some(limit), _) => f64::from(limit.get()),
            (None, Some(limit)) => limit.get() as f64,
            (None, None) => f64::INFINITY,
        };
        limit + limit / 60.0 * self.seconds as f64
    }

    /// The bound of docs/limits.md: for each other gateway, one request and twice the arrivals at one gateway until the
    /// others have heard.
    fn bound(&self) -> f64 {
        let pause = if self.loss == 0 { GOSSIP_GAP } else { GOSSIP };
        let heard = pause.as_millis() as u64 + 2 * self.delay;
        (self.gateways - 1) as f64 * (1.0 + 2.0 * self.arrivals * heard as f64 / 1000.0)
    }
}

#[derive(Debug, Default, PartialEq)]
struct Outcome {
    admitted: u64,
    tokens: u64,
    most_at_once: usize,
    messages: u64,
}

struct Running {
    gateway: usize,
    until: u64,
    charge: Charge,
    uses: u64,
}

struct Simulation {
    world: World,
    random: fastrand::Rng,
    start: Instant,
    key: Name,
    limiters: Vec<Limiter>,
    /// When each gateway last sent urgent news, any news, and its full state.
    last: Vec<[u64; 3]>,
    news: Vec<News>,
    /// Messages under way: arrival time and destination.
    wire: Vec<(u64, usize, Consumption)>,
    running: Vec<Running>,
    outcome: Outcome,
}

impl Simulation {
    fn new(world: World) -> Self {
        let name = |text: &str| Name::new(text).unwrap();
        let mut simulation = Self {
            random: fastrand::Rng::with_seed(world.seed),
            start: Instant::now(),
            key: name("k"),
            limiters: (0..world.gateways)
                .map(|at| Limiter::new(name(&format!("g{at}"))))
                .collect(),
            last: vec![[0; 3]; world.gateways],
            news: vec![News::default(); world.gateways],
            wire: Vec::new(),
            running: Vec::new(),
            outcome: Outcome::default(),
            world,
        };
        for at in 0..world.gateways {
            let hello = simulation.limiters[at].hello();
            for to in 0..world.gateways {
                simulation.wire.push((0, to, hello.clone()));
            }
        }
        simulation
    }

    fn run(mut self) -> Outcome {
        // Time for the gateways to meet, as they do before they are ready.
        for ms in 0..self.world.seconds * 1000 {
            self.deliver(ms);
            self.finish(ms);
            for gateway in 0..self.world.gateways {
                if ms >= 100 {
                    self.arrive(gateway, ms);
                }
                self.tell(gateway, ms);
            }
        }
        self.outcome
    }

    fn now(&self, ms: u64) -> Instant {
        self.start + Duration::from_millis(ms)
    }

    fn deliver(&mut self, ms: u64) {
        let now = self.now(ms);
        let (key, limits) = (self.key.clone(), self.world.limits);
        let due: Vec<_> = self.wire.extract_if(.., |(at, ..)| *at <= ms).collect();
        for (_, to, message) in due {
            let heard = self.limiters[to].hear(&message, |_| Some((key.clone(), limits)), now);
            self.news[to].some |= heard.some;
            self.news[to].urgent |= heard.urgent;
        }
    }

    fn finish(&mut self, ms: u64) {
        let now = self.now(ms);
        for done in self.running.extract_if(.., |running| running.until <= ms) {
            self.news[done.gateway].some |= self.limiters[done.gateway]
                .settle(&self.key, &done.charge, done.uses, now)
                .some;
        }
    }

    fn arrive(&mut self, gateway: usize, ms: u64) {
        let now = self.now(ms);
        let mut expected = self.world.arrivals / 1000.0;
        while self.random.f64() < expected {
            expected -= 1.0;
            let (asked, uses) = (self.random.u64(100..1000), self.random.u64(0..100));
            let Ok((charge, news)) = admit(&mut self.limiters[gateway], (&self.key, self.world.limits), asked, now)
            else {
                continue;
            };
            self.news[gateway].some |= news.some;
            self.news[gateway].urgent |= news.urgent;
            self.outcome.admitted += 1;
            self.outcome.tokens += uses;
            let until = ms + self.random.u64(0..=self.world.runs);
            self.running.push(Running {
                gateway,
                until,
                charge,
                uses,
            });
            self.outcome.most_at_once = self.outcome.most_at_once.max(self.running.len());
        }
    }

    /// Does what the loop in gossip.rs does.
    fn tell(&mut self, gateway: usize, ms: u64) {
        let now = self.now(ms);
        let since = |last: u64, pause: Duration| ms >= last + pause.as_millis() as u64;
        let [urgent, changed, active] = self.last[gateway];
        let scope = if since(active, REFRESH) {
            self.last[gateway] = [ms; 3];
            self.limiters[gateway].age(now);
            Scope::Active
        } else if self.news[gateway].some && since(changed, GOSSIP) {
            self.last[gateway] = [ms, ms, active];
            self.news[gateway].some = false;
            Scope::Changed
        } else if self.news[gateway].urgent && since(urgent, GOSSIP_GAP) {
            self.last[gateway][0] = ms;
            self.news[gateway].urgent = false;
            Scope::Urgent
        } else {
            return;
        };
        for message in self.limiters[gateway].tell(scope, now) {
            self.outcome.messages += 1;
            for to in 0..self.world.gateways {
                if self.random.u32(0..100) >= self.world.loss {
                    let arrives = ms + self.random.u64(0..=self.world.delay);
                    self.wire.push((arrives, to, message.clone()));
                }
            }
        }
    }
}

fn run(world: World) -> Outcome {
    Simulation::new(world).run()
}

#[test]
fn the_same_seed_is_the_same_run() {
    let world = World {
        loss: 10,
        runs: 500,
        ..World::new(3, 3, 600)
    };
    assert_eq!(run(world), run(world));
}

#[test]
fn requests_go_no_further_beyond_the_limit_than_the_bound() {
    for (seed, gateways, limit) in [(1, 1, 60), (2, 2, 60), (3, 3, 600), (4, 5, 6), (5, 8, 6000), (6, 4, 1)] {
        let world = World::new(seed, gateways, limit);
        let admitted = run(world).admitted as f64;
        let (allowed, bound) = (world.allowed(), world.bound());
        assert!(
            admitted <= allowed + bound,
            "{gateways} × {limit}: {admitted} of {allowed} + {bound}"
        );
        // The limit is used: late news may cost a little of it.
        assert!(
            admitted >= allowed * 0.97 - 2.0,
            "{gateways} × {limit}: only {admitted} of {allowed}"
        );
    }
}

#[test]
fn a_burst_over_all_gateways_at_once_is_held_by_the_same_bound() {
    for seed in 0..20 {
        let world = World {
            arrivals: 2000.0,
            seconds: 2,
            delay: 2,
            ..World::new(seed, 4, 300)
        };
        let admitted = run(world).admitted as f64;
        let (allowed, bound) = (world.allowed(), world.bound());
        assert!(admitted <= allowed + bound, "{seed}: {admitted} of {allowed} + {bound}");
    }
}

#[test]
fn lost_messages_widen_the_bound_but_do_not_break_it() {
    for (seed, loss) in [(1, 5), (2, 20), (3, 50)] {
        let world = World {
            loss,
            ..World::new(seed, 4, 600)
        };
        let admitted = run(world).admitted as f64;
        let (allowed, bound) = (world.allowed(), world.bound());
        assert!(
            admitted <= allowed + bound,
            "{loss} %: {admitted} of {allowed} + {bound}"
        );
    }
}

#[test]
fn without_gossip_each_gateway_would_let_the_whole_limit_in() {
    // A limiter that tells nobody fails the test.
    let world = World {
        loss: 100,
        ..World::new(1, 4, 600)
    };
    let admitted = run(world).admitted as f64;
    assert!(admitted > world.allowed() + world.bound());
}

#[test]
fn running_requests_are_bounded_over_all_gateways() {
    for seed in 0..5 {
        let world = World {
            limits: Limits {
                streams: NonZeroU32::new(20),
                ..Limits::default()
            },
            runs: 2000,
            seconds: 20,
            ..World::new(seed, 4, 1)
        };
        let most = run(world).most_at_once as f64;
        assert!(most <= 20.0 + world.bound(), "{most}");
        assert!(most >= 20.0, "{most}");
    }
}

#[test]
fn tokens_that_are_used_stay_within_the_limit_though_estimates_are_ten_times_too_high() {
    for seed in 0..5 {
        let limit: u32 = 60_000;
        let world = World {
            limits: Limits {
                tokens: NonZeroU64::new(limit.into()),
                ..Limits::default()
            },
            runs: 3000,
            seconds: 120,
            ..World::new(seed, 3, limit)
        };
        let outcome = run(world);
        let (used, allowed) = (outcome.tokens as f64, world.allowed());
        // A request uses at most 1000 tokens.
        assert!(used <= allowed + world.bound() * 1000.0, "{used} of {allowed}");
        // Overestimates are given back: otherwise a tenth of the limit would be used.
        assert!(used >= allowed * 0.6, "only {used} of {allowed}");
    }
}

#[test]
fn a_key_far_from_its_limit_costs_four_messages_a_second_and_gateway() {
    let world = World {
        arrivals: 50.0,
        ..World::new(1, 2, 1_000_000)
    };
    let outcome = run(world);
    let each = outcome.messages as f64 / 2.0 / world.seconds as f64;
    assert!(each <= 4.6, "{each} messages a second");
}
