//! Labels and tiers: which workers a request may go to at all.

use tokenbus_protocol::{Capabilities, Feature, Features, Labels, ModelPace, Name, WorkerCapacity, WorkerNews};
use tokio::time::{Duration, Instant};

use super::super::fixture::{capacity, name, worker};
use super::*;
use crate::placement::{Ask, Choice, Policies, Policy, Prefixes, Selector, Tier, Tried};

const CHAT: Features = Features::NONE.with(Feature::Chat);

fn labels(label: &str) -> Labels {
    Labels::new([label.parse().unwrap()]).unwrap()
}

fn labelled(id: &str, label: &str) -> WorkerCapacity {
    let mut worker = worker(id, 4, 0, 0);
    worker.report.labels = labels(label);
    worker
}

fn choose(view: &View, needs: Features, tried: Tried<'_>, now: Instant) -> Choice {
    let prompt = tokenbus_placement::Prompt::default();
    let ask = Ask {
        model: "m",
        needs,
        prompt: &prompt,
        session: None,
    };
    let (prefixes, random) = (&mut Prefixes::default(), &mut fastrand::Rng::with_seed(7));
    view.choose(&ask, tried, prefixes, now, random)
}

fn worker_of(choice: Choice) -> Name {
    match choice {
        Choice::Worker(target) => target.worker,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_bound_request_goes_only_where_its_label_is_whatever_was_tried() {
    let now = Instant::now();
    let mut view = View::default();
    // Those of `other` have more free slots, and one tells nothing of itself.
    let workers = vec![
        labelled("eu", "region=eu"),
        labelled("us", "region=us"),
        worker("bare", 99, 0, 0),
    ];
    view.snapshot(capacity(workers.clone()), now, 0);
    let bound = CHAT.or(view.require(&labels("region=eu")));
    assert_eq!(
        view.require(&labels("region=eu")),
        bound.marks(),
        "one mark for a label"
    );
    for untaken in 0..4 {
        let tried = Tried {
            untaken,
            ..Tried::default()
        };
        assert_eq!(worker_of(choose(&view, bound, tried, now)), name("eu"));
        let excluded = [name("eu")];
        let tried = Tried {
            excluded: &excluded,
            ..tried
        };
        assert_eq!(
            choose(&view, bound, tried, now),
            Choice::Wait,
            "never the queue subject"
        );
    }
    assert_ne!(
        view.distinguishing("m", bound),
        view.distinguishing("m", CHAT),
        "a line of its own"
    );
    assert_eq!((view.free("m", bound), view.slots_for("m", bound, 100)), (4, 4));
    // Without a coordinator NATS would choose.
    let stale = now + SNAPSHOT_FRESH;
    assert_eq!(worker_of(choose(&view, bound, Tried::default(), stale)), name("eu"));
    view.gone(&name("eu"), now);
    assert_eq!(choose(&view, bound, Tried::default(), now), Choice::Gone);
    assert_eq!(choose(&view, bound, Tried::default(), stale), Choice::Gone);
    assert_eq!(choose(&View::default(), bound, Tried::default(), now), Choice::Gone);
    // A label that no worker ever had, and a worker that comes back without it.
    let nowhere = CHAT.or(view.require(&labels("region=moon")));
    assert_eq!(choose(&view, nowhere, Tried::default(), now), Choice::Gone);
    view.snapshot(capacity(vec![worker("eu", 4, 0, 0), workers[1].clone()]), stale, 0);
    assert_eq!(choose(&view, bound, Tried::default(), stale), Choice::Gone);
}

#[test]
fn more_labels_than_there_are_marks_find_no_worker() {
    let now = Instant::now();
    let mut view = View::default();
    view.snapshot(capacity(vec![labelled("last", "n=99")]), now, 0);
    for n in 0..99 {
        view.require(&labels(&format!("n={n}")));
    }
    let needs = CHAT.or(view.require(&labels("n=99")));
    assert_eq!(choose(&view, needs, Tried::default(), now), Choice::Gone);
}

#[test]
fn labels_are_told_without_a_coordinator_too() {
    let now = Instant::now();
    let mut view = View::default();
    view.learnt(&name("eu"), "m", now, 0);
    let bound = CHAT.or(view.require(&labels("region=eu")));
    assert_eq!(choose(&view, bound, Tried::default(), now), Choice::Gone);
    view.introduced(&name("eu"), &labels("region=eu"), 0, 4);
    view.capable(&name("eu"), "m", Capabilities::from(CHAT));
    assert_eq!(worker_of(choose(&view, bound, Tried::default(), now)), name("eu"));
}

/// Two workers of tier 0 with four slots, which take 1 s for a request, and a large one of tier 1.
fn tiers(active: u32, now: Instant) -> View {
    let mut hosted = worker("hosted", 100, 0, 0);
    hosted.report.tier = 1;
    let mut view = View::default();
    view.set_tier_wait(Duration::from_secs(5));
    let workers = vec![worker("a", 4, active, 0), worker("b", 4, active, 0), hosted];
    view.snapshot(capacity(workers), now, 0);
    for own in ["a", "b", "hosted"] {
        let pace = ModelPace {
            model: "m".to_owned(),
            prefill: None,
            base_ms: None,
            service_ms: Some(1000.0),
            busy: 0,
        };
        let news = WorkerNews {
            paces: vec![pace],
            ..WorkerNews::default()
        };
        view.told_news(&name(own), news, &mut Prefixes::default(), now);
    }
    view
}

#[test]
fn a_higher_tier_is_used_only_when_the_lower_ones_would_make_requests_wait() {
    let now = Instant::now();
    let wait = |waiting| Tried {
        waiting,
        ..Tried::default()
    };
    let free = tiers(3, now);
    for _ in 0..20 {
        assert_ne!(worker_of(choose(&free, CHAT, wait(1), now)), name("hosted"));
    }
    assert_eq!(free.slots_for("m", CHAT, 10), 2, "one at each of tier 0");
    let full = tiers(4, now);
    // Eight end a second: forty wait 5 s.
    assert_eq!(choose(&full, CHAT, wait(40), now), Choice::Wait);
    assert_eq!(worker_of(choose(&full, CHAT, wait(41), now)), name("hosted"));
    assert_eq!((full.slots_for("m", CHAT, 40), full.slots_for("m", CHAT, 43)), (0, 3));
    let overdue = Tried {
        overdue: true,
        ..wait(1)
    };
    assert_eq!(worker_of(choose(&full, CHAT, overdue, now)), name("hosted"));
    let overdue = |seconds| full.is_overdue("m", now, now + Duration::from_secs(seconds));
    assert!(overdue(6) && !overdue(5));
    let told = |waiting| {
        let told = full.clone().uninformed("m", CHAT, waiting, now);
        told.contains(&name("hosted"))
    };
    assert!(!told(40) && told(41), "no offer is asked for that would be declined");
    // Nobody of tier 0 is there.
    let mut alone = tiers(0, now);
    alone.gone(&name("a"), now);
    alone.gone(&name("b"), now);
    assert_eq!(worker_of(choose(&alone, CHAT, wait(1), now)), name("hosted"));
}

fn selectors(texts: &[&str]) -> Vec<Selector> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn ordered(view: &mut View, policy: Policy) {
    view.set_policies([("m".to_owned(), policy)].into_iter().collect::<Policies>().into());
}

/// Whether 20 requests go to `own` only; each draws anew.
fn all_go_to(view: &View, own: &str, tried: Tried<'_>, now: Instant) -> bool {
    (0..20).all(|_| worker_of(choose(view, CHAT, tried, now)) == name(own))
}

#[test]
fn a_policy_orders_workers_by_label_whatever_their_tier_and_is_replaced() {
    let now = Instant::now();
    let mut view = View::default();
    view.set_tier_wait(Duration::from_secs(5));
    let small = |id: &str, label: &str| {
        let mut worker = labelled(id, label);
        worker.report.slots = 1;
        worker
    };
    let workers = vec![
        small("own", "site=own"),
        labelled("hosted", "provider=x"),
        worker("bare", 64, 0, 0),
    ];
    view.snapshot(capacity(workers.clone()), now, 0);
    let policy = |tiers: &[&str]| Policy {
        tiers: selectors(tiers).into_iter().map(Tier::Labelled).collect(),
        ..Policy::default()
    };
    ordered(&mut view, policy(&["site=own", "provider=*"]));
    let one = Tried {
        waiting: 1,
        ..Tried::default()
    };
    assert!(all_go_to(&view, "own", one, now));
    assert_eq!(view.kind_of(&name("bare"), "m").tier, 2, "after the last");
    // It holds after the next snapshot, for other models nothing does, and a new order replaces it at once.
    view.snapshot(capacity(workers.clone()), now, 0);
    assert!(all_go_to(&view, "own", one, now));
    assert_eq!(view.kind_of(&name("bare"), "other").tier, 0);
    ordered(&mut view, policy(&["provider=*"]));
    assert!(all_go_to(&view, "hosted", one, now));
    // The wait of the model is its own: one that waits for two seconds is overdue only with the shorter one.
    assert!(!view.is_overdue("m", now, now + Duration::from_secs(2)));
    ordered(
        &mut view,
        Policy {
            tier_wait: Some(Duration::from_secs(1)),
            ..policy(&["provider=*"])
        },
    );
    assert!(view.is_overdue("m", now, now + Duration::from_secs(2)));
    assert!(!view.is_overdue("other", now, now + Duration::from_secs(2)));
    // The next tiers are open to those that would wait, in their order.
    let overdue = Tried { overdue: true, ..one };
    let excluded = [name("hosted"), name("bare")];
    let tried = Tried {
        excluded: &excluded,
        ..overdue
    };
    assert!(all_go_to(&view, "own", tried, now));
    view.gone(&name("hosted"), now);
    ordered(&mut view, policy(&["provider=*", "site=own"]));
    assert!(all_go_to(&view, "own", one, now));
    view.set_policies(Arc::default());
    let chosen: Vec<Name> = (0..40).map(|_| worker_of(choose(&view, CHAT, one, now))).collect();
    assert!(chosen.contains(&name("bare")), "no order is left");
}

#[test]
fn what_is_avoided_is_for_those_that_would_wait_and_what_is_preferred_is_not_waited_for() {
    let now = Instant::now();
    let mut view = View::default();
    view.set_tier_wait(Duration::from_secs(5));
    let fill = |active: [u32; 3]| {
        let mut workers = vec![
            labelled("h100", "gpu=h100"),
            labelled("spot", "spot=yes"),
            worker("bare", 4, 0, 0),
        ];
        for (worker, active) in workers.iter_mut().zip(active) {
            worker.report.active = active;
        }
        capacity(workers)
    };
    view.snapshot(fill([0; 3]), now, 0);
    ordered(
        &mut view,
        Policy {
            prefer: selectors(&["gpu=h100"]),
            avoid: selectors(&["spot=*"]),
            ..Policy::default()
        },
    );
    let one = Tried {
        waiting: 1,
        ..Tried::default()
    };
    assert!(all_go_to(&view, "h100", one, now));
    view.snapshot(fill([4, 0, 0]), now, 0);
    assert!(
        all_go_to(&view, "bare", one, now),
        "the preferred one is full, and not waited for"
    );
    view.snapshot(fill([4, 0, 4]), now, 0);
    assert_eq!(choose(&view, CHAT, one, now), Choice::Wait);
    let many = Tried { waiting: 99, ..one };
    assert!(all_go_to(&view, "spot", many, now));
    view.gone(&name("h100"), now);
    view.gone(&name("bare"), now);
    assert!(all_go_to(&view, "spot", one, now), "nobody else is there");
}

#[test]
fn tiers_count_without_a_coordinator_and_nats_never_chooses() {
    let now = Instant::now();
    let mut view = View::default();
    view.set_tier_wait(Duration::from_secs(5));
    for (id, tier) in [("own", 0), ("hosted", 1)] {
        view.learnt(&name(id), "m", now, 0);
        view.introduced(&name(id), &Labels::default(), tier, 2);
        view.capable(&name(id), "m", Capabilities::from(CHAT));
    }
    let one = Tried {
        waiting: 1,
        ..Tried::default()
    };
    assert!(all_go_to(&view, "own", one, now));
    let excluded = [name("own")];
    for untaken in 0..4 {
        let tried = Tried {
            excluded: &excluded,
            untaken,
            ..one
        };
        assert_eq!(choose(&view, CHAT, tried, now), Choice::Wait, "it has refused");
        assert_eq!(
            worker_of(choose(&view, CHAT, Tried { overdue: true, ..tried }, now)),
            name("hosted")
        );
    }
    view.gone(&name("own"), now);
    assert!(all_go_to(&view, "hosted", one, now));
}
