//! Classes age, so that nothing starves.

use std::time::Duration;

use tokenbus_protocol::Features;

use super::*;

struct Bench {
    line: Line<u64>,
    now: Instant,
    orders: u64,
}

impl Bench {
    fn new() -> Self {
        let (line, now) = (Line::default(), Instant::now());
        Self { line, now, orders: 0 }
    }

    fn comes(&mut self, priority: i32, tenant: &str) -> Ticket {
        self.orders += 1;
        let ticket = Ticket {
            order: self.orders,
            since: self.now,
            model: "m".to_owned(),
            line: Features::NONE.into(),
            priority,
            tenant: Some(tenant.to_owned()),
            bytes: 0,
            tokens: 100,
            begun: false,
            paused: false,
            had_turn: false,
            limit: None,
        };
        self.line.enter(Arc::new(ticket.clone()), self.orders, self.now);
        ticket
    }

    fn next(&mut self) -> Ticket {
        (*self.line.next(self.now).unwrap().ticket).clone()
    }
}

#[test]
fn the_highest_priority_goes_first_until_the_others_have_waited_long() {
    let mut bench = Bench::new();
    let low = bench.comes(0, "low");
    bench.comes(5, "high");
    assert_eq!(bench.next().priority, 5);
    bench.comes(5, "high");
    bench.now += AGEING;
    bench.comes(5, "high");
    let turns = [bench.next().order, bench.next().order];
    assert!(turns.contains(&low.order), "{turns:?}");
}

/// Twice as many come in higher classes as there are turns.
#[test]
fn no_class_starves_another() {
    for seed in 0..20 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut bench = Bench::new();
        let low = bench.comes(-1000, "low");
        let began = bench.now;
        loop {
            bench.now += Duration::from_millis(500);
            for _ in 0..2 {
                bench.comes(random.i32(0..4), &random.u8(0..3).to_string());
            }
            if bench.next().order == low.order {
                break;
            }
            let waited = bench.now - began;
            assert!(waited < AGEING * 6, "seed {seed}: it waits for {waited:?}");
        }
    }
}

#[test]
fn a_request_that_was_woken_in_vain_keeps_its_age() {
    let mut bench = Bench::new();
    let low = bench.comes(0, "low");
    bench.comes(5, "high");
    bench.now += AGEING;
    bench.line.age(bench.now);
    bench.line.take(&low).unwrap();
    let again = Ticket { had_turn: true, ..low };
    bench.line.enter(Arc::new(again.clone()), 1, bench.now);
    assert_eq!(bench.line.seats[&again.order].class, -5);
    // What has begun goes before all that only waits long.
    let begun = Ticket {
        begun: true,
        ..bench.comes(0, "begun")
    };
    bench.line.leave(&begun).unwrap();
    bench.line.enter(Arc::new(begun.clone()), 3, bench.now);
    bench.now += AGEING * 9;
    assert_eq!(bench.next().order, begun.order);
    assert_eq!(bench.line.len(), 2);
    assert!(bench.line.ages.len() == 2 && bench.line.seats.len() == 2);
}
