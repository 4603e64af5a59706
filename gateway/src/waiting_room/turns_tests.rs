//! Turns are fair by tokens, whatever comes and goes.

use tokenbus_protocol::Features;
use tokio::time::Instant;

use super::*;

fn ticket(order: u64, tenant: &str, tokens: u64) -> Arc<Ticket> {
    Arc::new(Ticket {
        order,
        since: Instant::now(),
        model: "m".to_owned(),
        line: Features::NONE.into(),
        priority: 0,
        tenant: Some(tenant.to_owned()),
        bytes: 0,
        tokens,
        begun: false,
        had_turn: false,
        paused: false,
        limit: None,
    })
}

/// Turns, with a number for each request.
#[derive(Default)]
struct Bench {
    turns: Turns<()>,
    orders: u64,
}

impl Bench {
    fn comes(&mut self, tenant: &str, tokens: u64) -> Arc<Ticket> {
        self.orders += 1;
        let ticket = ticket(self.orders, tenant, tokens);
        self.enters(&ticket);
        ticket
    }

    fn enters(&mut self, ticket: &Arc<Ticket>) {
        let ticket = Arc::clone(ticket);
        self.turns.enter(Place { ticket, waker: () });
    }

    fn next(&mut self) -> Option<Arc<Ticket>> {
        let first = Arc::clone(self.turns.first(Instant::now())?);
        Some(self.turns.take(&first)?.ticket)
    }

    fn next_of(&mut self) -> String {
        self.next().unwrap().tenant.clone().unwrap()
    }
}

#[test]
fn tenants_that_always_wait_get_the_same_tokens() {
    for seed in 0..50 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut bench = Bench::default();
        let sizes = [1, 10, 1000, random.u64(1..5000)];
        for (tenant, most) in sizes.iter().enumerate() {
            for _ in 0..200 {
                bench.comes(&tenant.to_string(), random.u64(1..=*most));
            }
        }
        let mut served = [0_u64; 4];
        let largest = 5000;
        while served.iter().all(|tokens| *tokens < 200) {
            let next = bench.next().unwrap();
            served[next.tenant.as_ref().unwrap().parse::<usize>().unwrap()] += next.tokens;
            let waiting = served.iter().max().unwrap() - served.iter().min().unwrap();
            assert!(waiting <= largest, "seed {seed}: {served:?}");
        }
    }
}

#[test]
fn whoever_comes_anew_waits_for_one_turn_of_each_other_at_most() {
    for seed in 0..200 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut bench = Bench::default();
        for _ in 0..500 {
            bench.comes("fleet", random.u64(1..20_000));
        }
        for _ in 0..random.usize(0..400) {
            bench.next();
        }
        // However large its request is, and however often it came before.
        for _ in 0..3 {
            bench.comes("person", random.u64(1..100_000));
            let turns: Vec<String> = (0..2).map(|_| bench.next_of()).collect();
            assert!(turns.contains(&"person".to_owned()), "seed {seed}: {turns:?}");
            // The fleet catches up before the person is back.
            while bench.turns.tenants.contains_key(&Some("person".to_owned())) && !bench.turns.is_empty() {
                bench.next();
            }
            for _ in 0..100 {
                bench.comes("fleet", random.u64(1..20_000));
            }
        }
    }
}

#[test]
fn large_requests_one_after_the_other_count_as_much_as_many_small_ones() {
    let mut bench = Bench::default();
    for _ in 0..1000 {
        bench.comes("small", 10);
    }
    bench.comes("large", 1000);
    let (mut small, mut large) = (0, 0);
    for _ in 0..1000 {
        let next = bench.next().unwrap();
        if next.tokens == 1000 {
            large += 1000;
            // It is back at once.
            bench.comes("large", 1000);
        } else {
            small += 10;
            bench.comes("small", 10);
        }
    }
    assert!((small..=small + 2000).contains(&large), "{small} and {large} tokens");
}

#[test]
fn a_turn_in_vain_costs_nothing() {
    let mut bench = Bench::default();
    bench.comes("a", 100);
    bench.comes("a", 100);
    bench.comes("b", 100);
    bench.comes("b", 100);
    for _ in 0..10 {
        let woken = bench.next().unwrap();
        assert_eq!(woken.tenant.as_deref(), Some("a"));
        let again = Arc::new(Ticket {
            had_turn: true,
            ..(*woken).clone()
        });
        bench.enters(&again);
    }
    let order: Vec<String> = (0..4).map(|_| bench.next_of()).collect();
    assert_eq!(order, ["a", "b", "a", "b"]);
}

#[test]
fn nobody_waits_for_turns_that_a_whole_line_had_in_vain() {
    let mut bench = Bench::default();
    for _ in 0..500 {
        bench.comes("fleet", 100);
    }
    let woken: Vec<Arc<Ticket>> = std::iter::from_fn(|| bench.next()).collect();
    for ticket in woken {
        let again = Arc::new(Ticket {
            had_turn: true,
            ..(*ticket).clone()
        });
        bench.enters(&again);
    }
    bench.comes("person", 100);
    let turns = [bench.next_of(), bench.next_of()];
    assert!(turns.contains(&"person".to_owned()), "{turns:?}");
}

#[test]
fn whoever_leaves_pays_nothing_and_nobody_is_remembered_for_ever() {
    let mut random = fastrand::Rng::with_seed(3);
    let mut bench = Bench::default();
    let mut waiting = Vec::new();
    for step in 0..20_000 {
        waiting.push(bench.comes(&random.u32(0..20_000).to_string(), random.u64(0..1_000)));
        if step % 3 == 0 {
            let left = waiting.swap_remove(random.usize(..waiting.len()));
            assert!(bench.turns.leave(&left).is_some());
            assert!(bench.turns.leave(&left).is_none());
        }
        if step % 2 == 0
            && let Some(next) = bench.next()
        {
            waiting.retain(|ticket| ticket.order != next.order);
        }
        let (next, away) = (bench.turns.next.len(), bench.turns.away.len());
        assert_eq!(next + away, bench.turns.tenants.len());
        assert!(away <= CHARGED_TENANTS);
    }
    while let Some(next) = bench.next() {
        waiting.retain(|ticket| ticket.order != next.order);
    }
    assert!(waiting.is_empty() && bench.turns.is_empty());
}

/// Clients that leave after a second, and what would take 200 ms, on one slot; three times as many as it can serve.
#[test]
fn when_clients_leave_before_their_turn_what_is_served_is_still_of_use() {
    for tenants in [1, 1000] {
        let (mut bench, mut now) = (Bench::default(), Instant::now());
        let mut random = fastrand::Rng::with_seed(7);
        let (mut waiting, mut served, mut turns) = (Vec::<Arc<Ticket>>::new(), 0, 0);
        for step in 0..10_000 {
            now += Duration::from_millis(10);
            waiting.retain(|ticket| {
                let leaves = now - ticket.since >= Duration::from_secs(1);
                if leaves {
                    bench.turns.given_up(ticket, now).unwrap();
                }
                !leaves
            });
            if random.u32(..20) < 3 {
                bench.orders += 1;
                let tenant = random.u32(..tenants).to_string();
                let ticket = Arc::new(Ticket {
                    since: now,
                    ..(*ticket(bench.orders, &tenant, 100)).clone()
                });
                bench.enters(&ticket);
                waiting.push(ticket);
            }
            if step % 20 == 0
                && let Some(first) = bench.turns.first(now).cloned()
            {
                bench.turns.take(&first).unwrap();
                waiting.retain(|ticket| ticket.order != first.order);
                turns += 1;
                served += u32::from(now - first.since < Duration::from_millis(800));
            }
        }
        assert!(served * 10 >= turns * 8, "{tenants} tenants: {served} of {turns}");
    }
}

#[test]
fn who_waits_longer_than_the_others_gets_a_turn_too() {
    let mut bench = Bench::default();
    let patient = bench.comes("a", 100);
    let mut now = patient.since;
    for turn in 0..20 {
        now += Duration::from_secs(1);
        let gone = bench.comes("a", 100);
        let waited = Ticket {
            since: now - Duration::from_secs(1),
            ..(*gone).clone()
        };
        bench.turns.given_up(&waited, now).unwrap();
        bench.comes("a", 100);
        let first = bench.turns.first(now).cloned().unwrap();
        bench.turns.take(&first).unwrap();
        if first.order == patient.order {
            assert!(turn <= 8);
            return;
        }
    }
    panic!("it never had a turn");
}
