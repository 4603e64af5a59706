//! Simulated clients that give up after a second and ask again: the slots work for those that still listen.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use tokenbus_protocol::Features;
use tokio::time::Instant;

use super::*;

const MODEL: &str = "m";
const SLOTS: usize = 8;
const RUN: u64 = 385_000;
const SECOND: u64 = 1_000_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Happens {
    /// The answer of the client's so-manieth request is complete.
    Ends {
        client: usize,
        asked: u32,
    },
    /// The client gives that request up.
    Leaves {
        client: usize,
        asked: u32,
    },
    Asks {
        client: usize,
    },
    /// The client's request has paused.
    Looks {
        client: usize,
        asked: u32,
    },
}

#[derive(Debug, Clone)]
enum State {
    Away,
    /// Outside the room.
    Pauses,
    Waits(Box<Ticket>),
    Runs {
        since: u64,
        waited: Option<Box<Ticket>>,
    },
}

#[derive(Debug)]
struct Client {
    tenant: String,
    patience: u64,
    /// How long it stays away when it is refused; `None` for as long as it is told.
    pause: Option<u64>,
    asked: u32,
    state: State,
    served: u32,
}

struct Storm {
    start: Instant,
    door: Door<usize>,
    now: u64,
    next: BinaryHeap<Reverse<(u64, u64, Happens)>>,
    number: u64,
    free: usize,
    clients: Vec<Client>,
    served: Vec<u64>,
    /// What clients were told, in seconds.
    told: Vec<u64>,
}

impl Storm {
    fn new() -> Self {
        let bounds = Bounds {
            requests: 4096,
            bytes: usize::MAX,
        };
        Self {
            start: Instant::now(),
            door: Door::new(bounds),
            now: 0,
            next: BinaryHeap::new(),
            number: 0,
            free: SLOTS,
            clients: Vec::new(),
            served: Vec::new(),
            told: Vec::new(),
        }
    }

    fn at(&mut self, at: u64, happens: Happens) {
        self.number += 1;
        self.next.push(Reverse((at, self.number, happens)));
    }

    fn time(&self) -> Instant {
        self.start + Duration::from_micros(self.now)
    }

    /// Adds clients of so many tenants that come within a tenth of a second.
    fn clients(&mut self, count: usize, tenants: usize, patience: u64, pause: Option<u64>) {
        for number in 0..count {
            let client = self.clients.len();
            self.clients.push(Client {
                tenant: (number % tenants).to_string(),
                patience,
                pause,
                asked: 0,
                state: State::Away,
                served: 0,
            });
            self.at(
                self.now + number as u64 * 100_000 / count as u64,
                Happens::Asks { client },
            );
        }
    }

    fn runs(&mut self, client: usize) {
        self.free -= 1;
        self.door.began(MODEL, self.time());
        let asked = self.clients[client].asked;
        let waited = match std::mem::replace(&mut self.clients[client].state, State::Away) {
            State::Waits(ticket) => Some(ticket),
            State::Away | State::Pauses | State::Runs { .. } => None,
        };
        let since = self.now;
        self.clients[client].state = State::Runs { since, waited };
        self.at(self.now + RUN, Happens::Ends { client, asked });
    }

    fn refused(&mut self, client: usize, after: Duration) {
        let seconds = after.as_secs_f64().ceil() as u64;
        self.told.push(seconds);
        self.clients[client].state = State::Away;
        let pause = self.clients[client].pause.unwrap_or(seconds * SECOND);
        self.at(self.now + pause, Happens::Asks { client });
    }

    fn asks(&mut self, client: usize) {
        let now = self.time();
        let paused = matches!(self.clients[client].state, State::Pauses);
        if !paused {
            self.clients[client].asked += 1;
            let Client { asked, patience, .. } = self.clients[client];
            self.at(self.now + patience, Happens::Leaves { client, asked });
        }
        if self.free > 0 && self.door.room.is_empty() {
            return self.runs(client);
        }
        let Client { asked, ref tenant, .. } = self.clients[client];
        let tenant = Some(tenant.clone());
        let mut ticket = self.door.room.ticket(MODEL, 0, tenant, 1, now);
        ticket.limit = Some(Duration::from_secs(600));
        ticket.paused = paused;
        match self.door.enter(&ticket, client, now) {
            Ok(displaced) => {
                self.clients[client].state = State::Waits(Box::new(ticket));
                for one in displaced {
                    self.refused(one.waker, one.retry_after);
                }
            }
            Err(NotAdmitted::Later) => {
                self.clients[client].state = State::Pauses;
                let pause = crate::limits::REFUSAL_PAUSE.as_micros() as u64;
                self.at(self.now + pause, Happens::Looks { client, asked });
            }
            Err(NotAdmitted::Full { retry_after } | NotAdmitted::TooLate { retry_after, .. }) => {
                self.refused(client, retry_after);
            }
        }
    }

    /// The client's run is over: the slot is the next one's.
    fn over(&mut self, client: usize, since: u64, ended: bool) {
        let now = self.time();
        let since = self.start + Duration::from_micros(since);
        self.door.over(MODEL, since, ended, now);
        self.clients[client].state = State::Away;
        self.free += 1;
        if let Some(next) = self.door.room.next(MODEL, Features::NONE, now) {
            self.runs(next);
        }
    }

    fn run_until(&mut self, end: u64) {
        while let Some(Reverse((at, _, _))) = self.next.peek()
            && *at < end
        {
            let Some(Reverse((at, _, happens))) = self.next.pop() else {
                break;
            };
            self.now = at;
            match happens {
                Happens::Asks { client } => self.asks(client),
                Happens::Ends { client, asked } if self.clients[client].asked == asked => {
                    if let State::Runs { since, .. } = self.clients[client].state {
                        self.over(client, since, true);
                        self.served.push(self.now);
                        self.clients[client].served += 1;
                        self.asks(client);
                    }
                }
                Happens::Leaves { client, asked } if self.clients[client].asked == asked => {
                    match std::mem::replace(&mut self.clients[client].state, State::Away) {
                        State::Away => {}
                        State::Pauses => self.asks(client),
                        State::Waits(ticket) => {
                            self.door.give_up(&ticket, self.time());
                            self.asks(client);
                        }
                        State::Runs { since, waited } => {
                            if let Some(ticket) = waited {
                                self.door.left(&ticket, self.time());
                            }
                            self.over(client, since, false);
                            self.asks(client);
                        }
                    }
                }
                Happens::Looks { client, asked } if self.clients[client].asked == asked => {
                    if let State::Pauses = self.clients[client].state {
                        self.asks(client);
                    }
                }
                Happens::Looks { .. } | Happens::Ends { .. } | Happens::Leaves { .. } => {}
            }
        }
        self.now = end;
    }

    /// These clients leave and do not come back.
    fn go(&mut self, clients: &[usize]) {
        for client in clients {
            match std::mem::replace(&mut self.clients[*client].state, State::Away) {
                State::Away | State::Pauses => {}
                State::Waits(ticket) => self.door.give_up(&ticket, self.time()),
                State::Runs { since, .. } => self.over(*client, since, false),
            }
        }
        self.next.clear();
    }

    fn goodput(&self, from: u64, to: u64) -> f64 {
        let served = self.served.iter().filter(|at| (from..to).contains(*at)).count();
        served as f64 * SECOND as f64 / (to - from) as f64
    }
}

const CAPACITY: f64 = SLOTS as f64 * SECOND as f64 / RUN as f64;

#[test]
fn a_crowd_that_gives_up_leaves_the_slots_to_those_who_listen() {
    for (count, tenants, pause) in [
        (300, 20, None),
        (3000, 20, None),
        (3000, 1, None),
        (3000, 3000, None),
        (300, 1, Some(SECOND)),
        (3000, 20, Some(SECOND)),
        (400, 1, Some(1000)),
    ] {
        let mut storm = Storm::new();
        storm.clients(SLOTS, 1, 10 * SECOND, None);
        storm.run_until(2 * SECOND);
        storm.clients(count, tenants, SECOND, pause);
        storm.run_until(25 * SECOND);
        let case = format!("{count} clients of {tenants} tenants, pause {pause:?}");
        let goodput = storm.goodput(5 * SECOND, 25 * SECOND);
        assert!(goodput >= 0.85 * CAPACITY, "{case}: {goodput} of {CAPACITY}");
        let patient = storm.clients.iter().take(SLOTS);
        assert!(
            patient.clone().all(|client| client.served > 5),
            "{case}: who has time is served too"
        );
        let asked: u32 = storm.clients.iter().map(|client| client.asked).sum();
        let asked = f64::from(asked) / 23.0;
        assert!(asked < 4.0 * count as f64, "{case}: {asked} requests a second");
        if pause.is_none() && tenants <= 20 {
            let all = count as f64 / CAPACITY;
            let most = storm.told.iter().max().copied().unwrap_or(0) as f64;
            assert!(
                (0.9 * all..1.5 * all + 10.0).contains(&most),
                "{case}: {most} s of {all} s"
            );
        }
    }
}

/// The crowd goes for good. Nobody who comes later is refused because of it.
#[test]
fn when_the_crowd_has_gone_all_is_as_before() {
    let mut storm = Storm::new();
    storm.clients(3000, 20, SECOND, Some(SECOND));
    storm.run_until(10 * SECOND);
    let crowd: Vec<usize> = (0..storm.clients.len()).collect();
    storm.go(&crowd);
    storm.run_until(15 * SECOND);
    assert!(storm.door.room.is_empty() && storm.free == SLOTS);
    let told = storm.told.len();
    storm.clients(SLOTS * 4, 1, 10 * SECOND, None);
    storm.run_until(25 * SECOND);
    assert_eq!(storm.told.len(), told, "somebody was refused");
    assert!(storm.goodput(16 * SECOND, 25 * SECOND) > 0.95 * CAPACITY);
}
