//! Simulated clients that obey `Retry-After`: the times prove right.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::time::Duration;

use tokenbus_protocol::Features;
use tokio::time::Instant;

use super::*;

const MODEL: &str = "m";

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Happens {
    Ends { client: usize, since: u64 },
    Comes { client: usize },
}

/// One model's slots, and clients that come back when they are told to.
struct Sim {
    start: Instant,
    door: Door<usize>,
    /// Microseconds since the start.
    now: u64,
    next: BinaryHeap<Reverse<(u64, u64, Happens)>>,
    number: u64,
    free: usize,
    service: fn(&mut fastrand::Rng) -> f64,
    random: fastrand::Rng,
    /// Each client: its tenant, what it was told each time in whole seconds, and when it was served.
    clients: Vec<Client>,
}

#[derive(Debug, Default, Clone)]
struct Client {
    tenant: Option<String>,
    told: Vec<u64>,
    back: Vec<u64>,
    served: Option<u64>,
}

impl Sim {
    fn new(slots: usize, places: usize, service: fn(&mut fastrand::Rng) -> f64) -> Self {
        Self {
            start: Instant::now(),
            door: Door::new(Bounds {
                requests: places,
                bytes: usize::MAX,
            }),
            now: 0,
            next: BinaryHeap::new(),
            number: 0,
            free: slots,
            service,
            random: fastrand::Rng::with_seed(11),
            clients: Vec::new(),
        }
    }

    fn at(&mut self, at: u64, happens: Happens) {
        self.number += 1;
        self.next.push(Reverse((at, self.number, happens)));
    }

    /// Adds a client, this many seconds from now.
    fn client(&mut self, after: f64, tenant: Option<&str>) -> usize {
        let client = self.clients.len();
        self.clients.push(Client {
            tenant: tenant.map(str::to_owned),
            ..Client::default()
        });
        let at = self.now + (after * 1e6) as u64;
        self.at(at, Happens::Comes { client });
        client
    }

    fn time(&self) -> Instant {
        self.start + Duration::from_micros(self.now)
    }

    fn runs(&mut self, client: usize) {
        self.free -= 1;
        self.door.began(MODEL, self.time());
        let since = self.now;
        let end = self.now + ((self.service)(&mut self.random) * 1e6) as u64;
        self.at(end, Happens::Ends { client, since });
    }

    fn refused(&mut self, client: usize, after: Duration) {
        let told = after.as_secs_f64().ceil() as u64;
        let back = self.now + told * 1_000_000;
        self.clients[client].told.push(told);
        self.clients[client].back.push(back / 1_000_000);
        self.at(back, Happens::Comes { client });
    }

    /// Runs until all clients are served.
    fn run(&mut self) {
        while let Some(Reverse((at, _, happens))) = self.next.pop() {
            self.now = at;
            let now = self.time();
            match happens {
                Happens::Comes { client } if self.free > 0 && self.door.room.is_empty() => self.runs(client),
                Happens::Comes { client } => {
                    let tenant = self.clients[client].tenant.clone();
                    let ticket = self.door.room.ticket(MODEL, 0, tenant, 1, now);
                    match self.door.enter(&ticket, client, now) {
                        Ok(displaced) => {
                            for one in displaced {
                                self.refused(one.waker, one.retry_after);
                            }
                        }
                        Err(NotAdmitted::Full { retry_after }) => self.refused(client, retry_after),
                        Err(refused) => unreachable!("{refused:?}"),
                    }
                }
                Happens::Ends { client, since } => {
                    let since = self.start + Duration::from_micros(since);
                    self.door.over(MODEL, since, true, now);
                    self.clients[client].served = Some(self.now);
                    self.free += 1;
                    if let Some(next) = self.door.room.next(MODEL, Features::NONE, now) {
                        self.runs(next);
                    }
                }
            }
        }
    }

    /// Keeps twenty slots busy for a while, then idles for an hour.
    fn warm_and_idle(&mut self) {
        for number in 0..300 {
            self.client(f64::from(number) * 0.1, None);
        }
        self.run();
        self.now += 3_600_000_000;
        self.clients.clear();
    }
}

fn steady(_: &mut fastrand::Rng) -> f64 {
    1.0
}

/// From short answers to long ones, a second on average.
fn mixed(random: &mut fastrand::Rng) -> f64 {
    -(1.0 - random.f64()).ln()
}

/// 20 slots and 150 places serve 20 per second. All clients come at once, after an idle hour.
#[test]
fn whoever_obeys_gets_in_at_once_and_no_second_is_everybodys() {
    for service in [steady as fn(&mut fastrand::Rng) -> f64, mixed] {
        let mut sim = Sim::new(20, 150, service);
        sim.warm_and_idle();
        let began = sim.now;
        for number in 0..2_325 {
            sim.client(f64::from(number) * 0.0001, None);
        }
        sim.run();
        let refused: Vec<&Client> = sim.clients.iter().filter(|client| !client.told.is_empty()).collect();
        assert!(refused.len() >= 2_325 - 190, "{} were refused", refused.len());
        let again = refused.iter().filter(|client| client.told.len() > 1).count();
        assert!(
            again * 50 <= refused.len(),
            "{again} of {} were refused again",
            refused.len()
        );
        // No client is told too little, and none half as much again: the last is served after 116 s.
        for (number, client) in refused.iter().enumerate() {
            let (told, open) = (client.told[0] as f64, number as f64 / 20.0);
            assert!(told >= open * 0.95, "number {number} was told {told} s");
            assert!(told <= open * 1.2 + 6.0, "number {number} was told {told} s");
        }
        let mut seconds = HashMap::new();
        for back in sim.clients.iter().flat_map(|client| &client.back) {
            *seconds.entry(back).or_insert(0) += 1;
        }
        let most = seconds.values().max().copied().unwrap_or(0);
        assert!(most <= 45, "{most} were sent back in the same second");
        // And the slots were never idle.
        let last = sim.clients.iter().filter_map(|client| client.served).max().unwrap();
        let took = (last - began) as f64 / 1e6;
        assert!(took < 1.2 * 2_325.0 / 20.0, "all were served after {took} s");
    }
}

#[test]
fn with_nothing_measured_nobody_is_told_less_than_the_truth_for_runs_of_ten_seconds() {
    let mut sim = Sim::new(20, 150, |_| 10.0);
    for number in 0..400 {
        sim.client(f64::from(number) * 0.001, None);
    }
    sim.run();
    let refused: Vec<&Client> = sim.clients.iter().filter(|client| !client.told.is_empty()).collect();
    assert_eq!(refused.len(), 230);
    let again = refused.iter().filter(|client| client.told.len() > 1).count();
    assert!(again * 20 <= refused.len(), "{again} were refused again");
    for (number, client) in refused.iter().enumerate() {
        let (told, open) = (client.told[0] as f64, number as f64 / 2.0);
        assert!(
            (open..=open * 1.2 + 35.0).contains(&told),
            "number {number} was told {told} s"
        );
    }
}

/// A thousand clients of one tenant and one client of another, within two seconds.
#[test]
fn one_tenants_crowd_keeps_nobody_else_out_and_is_told_the_truth_as_well() {
    let mut sim = Sim::new(20, 150, mixed);
    sim.warm_and_idle();
    for number in 0..1_000 {
        sim.client(f64::from(number) * 0.0001, Some("crowd"));
    }
    let others: Vec<usize> = (0..20)
        .map(|number| sim.client(0.5 + 2.0 * f64::from(number), Some("other")))
        .collect();
    sim.run();
    for other in others {
        assert!(sim.clients[other].told.is_empty(), "client {other} was kept out");
    }
    let crowd = sim
        .clients
        .iter()
        .filter(|client| client.tenant.as_deref() == Some("crowd"));
    let again = crowd.clone().filter(|client| client.told.len() > 1).count();
    assert!(again <= 50, "{again} of the crowd were refused again");
    assert!(crowd.clone().all(|client| client.served.is_some()));
}
