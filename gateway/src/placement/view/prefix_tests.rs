//! Tests of placement by what workers hold.

use std::collections::HashMap;

use tokenbus_placement::{Cut, Held, Prompt, Reason};
use tokenbus_protocol::{Feature, Features, ModelPace, Name, Room, WorkerNews};
use tokio::time::{Duration, Instant};

use super::super::fixture::{capacity, name, worker};
use super::super::prefixes::Prefixes;
use super::View;
use super::choice::{Ask, Choice, Target, Tried};

/// Three idle workers, and one that has been asked for nothing yet.
struct Bench {
    view: View,
    prefixes: Prefixes,
    now: Instant,
    random: fastrand::Rng,
}

impl Bench {
    fn new() -> Self {
        let now = Instant::now();
        let mut view = View::default();
        let workers = ["a", "b", "c"].map(|id| worker(id, 8, 0, 0)).to_vec();
        view.snapshot(capacity(workers), now, 7);
        Self {
            view,
            prefixes: Prefixes::default(),
            now,
            random: fastrand::Rng::with_seed(3),
        }
    }

    fn tells(&mut self, id: &str, news: WorkerNews) -> bool {
        self.view.told_news(&name(id), news, &mut self.prefixes, self.now)
    }

    fn place(&mut self, prompt: &Prompt, session: Option<u64>) -> Target {
        let ask = Ask {
            model: "m",
            needs: Features::NONE.with(Feature::Chat),
            prompt,
            session,
        };
        let choice = self
            .view
            .choose(&ask, Tried::default(), &mut self.prefixes, self.now, &mut self.random);
        let Choice::Worker(target) = choice else {
            panic!("{choice:?}")
        };
        target
    }

    /// Places a thousand prompts and counts them by worker.
    fn shares(&mut self, prompt: impl Fn(u64) -> Prompt) -> HashMap<Name, u32> {
        let mut shares = HashMap::new();
        for n in 0..1000 {
            *shares.entry(self.place(&prompt(n), None).worker).or_insert(0) += 1;
        }
        shares
    }
}

fn prompt(number: u64, tokens: u32) -> Prompt {
    let hash = (number + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    [Cut {
        hash,
        bytes: tokens * 4,
        tokens,
    }]
    .into_iter()
    .collect()
}

fn news(held: &Held, from: u64) -> WorkerNews {
    let news = held.news(from).unwrap();
    WorkerNews {
        epoch: news.epoch,
        from: news.from,
        full: news.full,
        changes: news.changes.into(),
        pending: 0,
        paces: Vec::new(),
    }
}

#[test]
fn a_prompt_goes_to_its_holder_until_waiting_there_costs_more() {
    let mut bench = Bench::new();
    let mut held = Held::new(1_000_000, 1000, 9);
    held.read(&prompt(1, 2000));
    assert!(!bench.tells("b", news(&held, 0)));
    let target = bench.place(&prompt(1, 2000), None);
    assert_eq!(
        (target.worker, target.why.reason, target.why.cached),
        (name("b"), Reason::Prefix, 2000)
    );
    // 2,000 tokens take a second here; a queue of 3,000 tokens takes longer.
    for _ in 0..3 {
        bench
            .view
            .reads(&name("b"), &prompt(7, 1000), 1000, &mut bench.prefixes, bench.now);
    }
    let target = bench.place(&prompt(1, 2000), None);
    assert!(
        target.worker != name("b") && target.why.reason == Reason::Spilled,
        "{target:?}"
    );
    // The worker takes and reads them.
    for _ in 0..3 {
        bench.view.takes(&name("b"), 1000, true);
    }
    assert_eq!(bench.place(&prompt(1, 2000), None).why.reason, Reason::Spilled);
    for _ in 0..3 {
        bench.view.has_read(&name("b"), 1000);
    }
    let target = bench.place(&prompt(1, 2000), None);
    assert_eq!(
        target.worker,
        name("b"),
        "at once, and not with the next news: {target:?}"
    );
    assert!(!bench.tells("b", news(&held, 0)));
    assert_eq!(bench.place(&prompt(1, 2000), None).worker, name("b"));
    held.clear();
    held.read(&prompt(2, 2000));
    assert!(!bench.tells("b", news(&held, 0)));
    assert_eq!(
        bench.place(&prompt(1, 2000), None).why.reason,
        Reason::Agreed,
        "its engine was restarted"
    );
}

#[test]
fn an_own_decision_counts_at_once_for_three_seconds() {
    let mut bench = Bench::new();
    bench
        .view
        .reads(&name("c"), &prompt(1, 2000), 2000, &mut bench.prefixes, bench.now);
    bench.view.takes(&name("c"), 2000, true);
    bench.view.has_read(&name("c"), 2000);
    assert_eq!(bench.place(&prompt(1, 2000), None).worker, name("c"));
    bench.now += Duration::from_millis(2_900);
    assert_eq!(bench.place(&prompt(1, 2000), None).worker, name("c"));
}

#[test]
fn a_gap_is_asked_for_now_and_then() {
    let mut bench = Bench::new();
    let mut held = Held::new(1_000_000, 1000, 9);
    held.read(&prompt(1, 2000));
    held.read(&prompt(2, 2000));
    assert!(bench.tells("a", news(&held, 1)));
    assert!(!bench.tells("a", news(&held, 1)), "it was asked a moment ago");
    bench.now += crate::limits::ASK_PREFIXES_EVERY;
    assert!(bench.tells("a", news(&held, 1)));
    assert!(
        !bench.tells("unknown", news(&held, 1)),
        "who is not in the cluster is not asked"
    );
}

#[test]
fn a_worker_that_invents_what_it_holds_gains_nothing_for_long() {
    let mut bench = Bench::new();
    let mut held = Held::new(u64::MAX, 100_000, 9);
    for number in 0..1000 {
        held.read(&prompt(number, 2000));
    }
    bench.tells("a", news(&held, 0));
    let all = bench.shares(|n| prompt(n, 2000));
    assert_eq!(all.get(&name("a")), Some(&1000), "nobody can know yet");
    for _ in 0..20 {
        bench.view.found(&name("a"), 2000, 0);
    }
    let shares = bench.shares(|n| prompt(n, 2000));
    assert!(shares.get(&name("a")).is_some_and(|share| *share < 500), "{shares:?}");
}

#[test]
fn a_worker_that_invents_how_fast_it_is_is_bounded_by_its_slots_and_a_slow_one_gets_less() {
    let mut bench = Bench::new();
    let pace = |prefill: f32| WorkerNews {
        paces: vec![ModelPace {
            model: "m".into(),
            prefill: Some(prefill),
            ..ModelPace::default()
        }],
        ..WorkerNews::default()
    };
    bench.tells("a", pace(f32::NAN));
    bench.tells("b", pace(10.0));
    bench.tells("c", pace(0.5));
    let shares = bench.shares(|n| prompt(n, 2000));
    assert!(!shares.contains_key(&name("c")), "4 s against 0.2: {shares:?}");
    for _ in 0..8 {
        bench.view.placed(&name("b"), bench.now);
    }
    assert!(bench.place(&prompt(1, 2000), None).worker != name("b"), "it is full");
}

#[test]
fn a_session_stays_where_nothing_else_matters() {
    let mut bench = Bench::new();
    for session in 0..20 {
        let home = bench.place(&prompt(1, 10), Some(session)).worker;
        for n in 0..20 {
            assert_eq!(bench.place(&prompt(n, 10), Some(session)).worker, home);
        }
    }
}

#[test]
fn without_a_coordinator_only_a_holder_is_chosen() {
    let now = Instant::now();
    let mut bench = Bench {
        view: View::default(),
        now,
        ..Bench::new()
    };
    bench.view.learnt(&name("a"), "m", now, 7);
    bench.view.learnt(&name("b"), "m", now, 7);
    let mut held = Held::new(1_000_000, 1000, 9);
    held.read(&prompt(1, 2000));
    bench.tells("b", news(&held, 0));
    assert_eq!(bench.place(&prompt(1, 2000), None).worker, name("b"));
    let ask = Ask {
        model: "m",
        needs: Features::NONE,
        prompt: &prompt(2, 2000),
        session: None,
    };
    let choice = bench
        .view
        .choose(&ask, Tried::default(), &mut bench.prefixes, now, &mut bench.random);
    assert_eq!(choice, Choice::Queue);
}

#[test]
fn names_that_workers_tell_are_kept_once_and_no_longer_than_they_may_be() {
    let mut bench = Bench::new();
    let (now, model) = (bench.now, "x".repeat(256));
    for id in ["d", "e"] {
        bench.view.learnt(&name(id), &model, now, 7);
        bench.view.learnt(&name(id), &"y".repeat(257), now, 7);
    }
    let told = |id| &bench.view.workers.get(&name(id)).unwrap().models;
    assert_eq!((told("d").len(), told("e").len()), (1, 1));
    assert!(std::sync::Arc::ptr_eq(
        &told("d").first().unwrap().0,
        &told("e").first().unwrap().0
    ));
    let pace = |bytes| ModelPace {
        model: "m".repeat(bytes),
        prefill: Some(1.0),
        ..ModelPace::default()
    };
    let news = WorkerNews {
        paces: vec![pace(1 << 20), pace(256)],
        ..WorkerNews::default()
    };
    bench.tells("a", news);
    let paces = &bench.view.workers.get(&name("a")).unwrap().paces;
    assert_eq!(paces.iter().map(|pace| pace.model.len()).collect::<Vec<_>>(), [256]);
}

/// A worker whose news say that its requests take 100 ms each, and that it reads 2 tokens in a millisecond.
fn paced(held: &Held, from: u64) -> WorkerNews {
    WorkerNews {
        paces: vec![ModelPace {
            model: "m".into(),
            prefill: Some(2.0),
            service_ms: Some(800.0),
            ..ModelPace::default()
        }],
        ..news(held, from)
    }
}

#[test]
fn a_full_holder_is_waited_for_and_its_slots_are_for_those_who_wait() {
    let mut bench = Bench::new();
    let mut held = Held::new(1_000_000, 1000, 9);
    held.read(&prompt(1, 8000));
    bench.tells("b", paced(&held, 0));
    let full = Room::default();
    bench.view.room(&name("b"), full, bench.now);
    let prompt = prompt(1, 8000);
    let ask = Ask {
        model: "m",
        needs: Features::NONE,
        prompt: &prompt,
        session: None,
    };
    let choose = |bench: &mut Bench, tried: Tried<'_>| {
        bench
            .view
            .choose(&ask, tried, &mut bench.prefixes, bench.now, &mut bench.random)
    };
    let patient = Tried {
        may_hold: true,
        ..Tried::default()
    };
    let Choice::Hold(hold) = choose(&mut bench, patient) else {
        panic!("4 s of reading against 0.1 s")
    };
    assert_eq!((&hold.worker, hold.tokens), (&name("b"), 0));
    let bound = hold.bound.as_millis();
    assert!((3_800..4_000).contains(&bound), "{bound}");
    let spilled = |choice| matches!(choice, Choice::Worker(target) if target.why.reason == Reason::Spilled);
    assert!(
        spilled(choose(&mut bench, Tried::default())),
        "it has waited long enough"
    );
    bench.view.hold(&name("b"), 0);
    bench.view.room(&name("b"), Room { free: 1, ..full }, bench.now);
    assert!(
        !matches!(choose(&mut bench, patient), Choice::Worker(target) if target.worker == name("b")),
        "the slot is for the one that waits"
    );
    let b = name("b");
    bench.view.release(&b, 0);
    assert_eq!(bench.view.slots_at(&b, "m", Features::NONE, 9), Some(1));
    bench.view.call_to(&b);
    assert_eq!(bench.view.slots_at(&b, "m", Features::NONE, 9), Some(0));
    let called = Tried {
        turn_at: Some(&b),
        ..patient
    };
    assert!(matches!(choose(&mut bench, called), Choice::Worker(target) if target.worker == b));
    bench.view.gone(&b, bench.now);
    assert_eq!(bench.view.slots_at(&b, "m", Features::NONE, 9), None);
}

#[test]
fn nobody_is_waited_for_whose_pace_is_unknown_or_who_refuses() {
    let mut bench = Bench::new();
    let mut held = Held::new(1_000_000, 1000, 9);
    held.read(&prompt(1, 8000));
    bench.tells("b", news(&held, 0));
    bench.view.room(&name("b"), Room::default(), bench.now);
    let prompt = prompt(1, 8000);
    let ask = Ask {
        model: "m",
        needs: Features::NONE,
        prompt: &prompt,
        session: None,
    };
    let patient = Tried {
        may_hold: true,
        ..Tried::default()
    };
    let choice = bench
        .view
        .choose(&ask, patient, &mut bench.prefixes, bench.now, &mut bench.random);
    assert!(matches!(choice, Choice::Worker(_)), "{choice:?}");
}

#[test]
fn what_other_gateways_send_is_known_with_each_answer() {
    let mut bench = Bench::new();
    let mut held = Held::new(1_000_000, 1000, 9);
    held.read(&prompt(1, 2000));
    bench.tells("b", news(&held, 0));
    let busy = Room {
        free: 4,
        queued: 0,
        pending: Some(9000),
    };
    bench.view.room(&name("b"), busy, bench.now);
    assert_eq!(bench.place(&prompt(1, 2000), None).why.reason, Reason::Spilled);
    let read = Room {
        pending: Some(0),
        ..busy
    };
    bench.view.room(&name("b"), read, bench.now);
    assert_eq!(bench.place(&prompt(1, 2000), None).worker, name("b"));
}
