//! Tests of the view: snapshots, free slots, and the gateway's own placements.

use std::collections::HashMap;

use tokenbus_placement::Prompt;
use tokenbus_protocol::Feature;

use super::super::able::Able;
use super::super::fixture::{capacity, name, worker};
use super::super::prefixes::Prefixes;
use super::choice::{Ask, Choice, Tried};
use super::*;
use crate::limits::WORKER_RETURN;

const CHAT: Features = Features::NONE.with(Feature::Chat);

fn view(workers: Vec<WorkerCapacity>, now: Instant) -> View {
    let mut view = View::default();
    view.snapshot(capacity(workers), now, 7);
    view
}

/// What became of a request, with only the name of a chosen worker.
#[derive(Debug, PartialEq)]
enum To {
    Worker(Name),
    Queue,
    Wait,
    Cannot(Features),
    Gone,
}

fn ask(view: &View, model: &str, needs: Features, tried: Tried<'_>, now: Instant, seed: u64) -> To {
    let (prompt, mut prefixes) = (Prompt::default(), Prefixes::default());
    let ask = Ask {
        model,
        needs,
        prompt: &prompt,
        session: None,
    };
    let random = &mut fastrand::Rng::with_seed(seed);
    match view.choose(&ask, tried, &mut prefixes, now, random) {
        Choice::Worker(target) => To::Worker(target.worker),
        Choice::Queue => To::Queue,
        Choice::Wait | Choice::Hold(_) => To::Wait,
        Choice::Cannot(missing) => To::Cannot(missing),
        Choice::Gone => To::Gone,
    }
}

fn choose(view: &View, excluded: &[&str], untaken: usize, now: Instant) -> To {
    let excluded: Vec<Name> = excluded.iter().map(|id| name(id)).collect();
    ask(
        view,
        "m",
        CHAT,
        Tried {
            excluded: &excluded,
            untaken,
            ..Tried::default()
        },
        now,
        1,
    )
}

#[test]
fn without_a_fresh_snapshot_nats_chooses() {
    let now = Instant::now();
    assert_eq!(choose(&View::default(), &[], 0, now), To::Queue);
    let view = view(vec![worker("a", 4, 0, 0)], now);
    assert_eq!(choose(&view, &[], 0, now), To::Worker(name("a")));
    assert_eq!(
        choose(&view, &[], 0, now + SNAPSHOT_FRESH),
        To::Queue,
        "three missed snapshots"
    );
}

#[test]
fn a_model_that_nobody_announced_is_asked_for_on_the_queue_subject() {
    let now = Instant::now();
    let view = view(vec![worker("a", 4, 0, 0)], now);
    assert_eq!(ask(&view, "other", CHAT, Tried::default(), now, 1), To::Queue);
}

#[test]
fn the_lighter_of_two_is_taken() {
    let now = Instant::now();
    let view = view(vec![worker("a", 10, 9, 0), worker("b", 10, 1, 0)], now);
    for seed in 0..50 {
        let choice = ask(&view, "m", CHAT, Tried::default(), now, seed);
        assert_eq!(choice, To::Worker(name("b")));
    }
}

#[test]
fn of_many_the_most_loaded_is_never_taken_and_load_spreads() {
    let now = Instant::now();
    let workers = (0..10).map(|load| worker(&format!("w{load}"), 10, load, 0)).collect();
    let view = view(workers, now);
    let mut taken = HashMap::new();
    for seed in 0..1000 {
        if let To::Worker(worker) = ask(&view, "m", CHAT, Tried::default(), now, seed) {
            *taken.entry(worker).or_insert(0) += 1;
        }
    }
    assert!(!taken.contains_key(&name("w9")), "{taken:?}");
    assert!(
        taken.len() >= 6,
        "two gateways with one snapshot do not run to one worker: {taken:?}"
    );
}

#[test]
fn own_placements_count_until_they_are_answered() {
    let now = Instant::now();
    let mut view = view(vec![worker("a", 2, 0, 0)], now);
    view.placed(&name("a"), now);
    assert_eq!(view.free("m", CHAT), 1);
    view.placed(&name("a"), now);
    assert_eq!(choose(&view, &[], 0, now), To::Wait);
    view.settled(&name("a"));
    assert_eq!(choose(&view, &[], 0, now), To::Worker(name("a")));
}

#[test]
fn what_a_batch_told_is_newer_than_an_old_status() {
    let start = Instant::now();
    let mut view = view(vec![worker("a", 2, 0, 0)], start);
    let told = start + Duration::from_millis(500);
    view.room(
        &name("a"),
        Room {
            free: 0,
            queued: 0,
            pending: None,
        },
        told,
    );
    let later = start + Duration::from_millis(900);
    view.snapshot(capacity(vec![worker("a", 2, 0, 600)]), later, 7);
    assert_eq!(
        choose(&view, &[], 0, later),
        To::Wait,
        "the status is of before the batch"
    );
    view.snapshot(capacity(vec![worker("a", 2, 0, 100)]), later, 7);
    assert_eq!(choose(&view, &[], 0, later), To::Worker(name("a")));
}

#[test]
fn refusals_lead_to_another_worker_then_to_the_queue_then_to_waiting() {
    let now = Instant::now();
    let view = view(vec![worker("a", 4, 0, 0), worker("b", 4, 0, 0)], now);
    assert_eq!(choose(&view, &["a"], 1, now), To::Worker(name("b")));
    assert_eq!(choose(&view, &["a", "b"], 2, now), To::Queue);
    assert_eq!(choose(&view, &["a", "b"], 4, now), To::Wait);
}

#[test]
fn draining_and_lost_workers_get_nothing() {
    let now = Instant::now();
    let mut draining = worker("a", 4, 0, 0);
    draining.report.state = WorkerState::Draining;
    let mut view = view(vec![draining, worker("b", 4, 0, 0)], now);
    assert_eq!(choose(&view, &[], 0, now), To::Worker(name("b")));
    view.gone(&name("b"), now);
    assert_eq!(choose(&view, &[], 0, now), To::Queue, "somebody else may have come");
    view.snapshot(capacity(vec![]), now, 7);
    assert!(!view.is_live("m"));
    assert!(view.models().contains_key("m"), "known, though nobody serves it");
}

#[test]
fn a_worker_that_lost_its_connection_may_be_on_its_way_back() {
    let start = Instant::now();
    let after = |millis: u64| start + Duration::from_millis(millis);
    let mut view = view(vec![worker("a", 4, 0, 0)], start);
    assert!(!view.may_return("m", CHAT, start), "it is there");
    view.gone(&name("a"), after(100));
    assert!(view.may_return("m", CHAT, after(200)) && !view.could("m", CHAT));
    assert!(!view.may_return("other", CHAT, after(200)));
    // The coordinator has not noticed: its status is older than the loss.
    view.snapshot(capacity(vec![worker("a", 4, 0, 400)]), after(400), 7);
    assert!(!view.could("m", CHAT));
    view.gone(&name("a"), after(500));
    let until = 100 + u64::try_from(WORKER_RETURN.as_millis()).unwrap();
    assert!(view.may_return("m", CHAT, after(until - 1)), "from the first time on");
    assert!(!view.may_return("m", CHAT, after(until)));
    // A status that is newer than the loss: the worker is back.
    view.snapshot(capacity(vec![worker("a", 4, 0, 200)]), after(1000), 7);
    assert!(view.could("m", CHAT) && !view.may_return("m", CHAT, after(1000)));

    view.gone(&name("a"), after(1100));
    view.snapshot(capacity(vec![]), after(1200), 7);
    assert!(
        !view.may_return("m", CHAT, after(1200)),
        "the coordinator says that it is lost"
    );
}

#[test]
fn models_are_forgotten_in_the_end() {
    let now = Instant::now();
    let mut view = view(vec![worker("a", 4, 0, 0)], now);
    assert_eq!(view.models()["m"].created, 7);
    let empty = Capacity {
        models: vec![],
        ..capacity(vec![])
    };
    view.snapshot(empty.clone(), now + Duration::from_secs(1), 8);
    assert!(view.models().contains_key("m"));
    view.snapshot(empty.clone(), now + MODEL_MEMORY + Duration::from_secs(1), 9);
    assert!(view.models().is_empty());
}

#[test]
fn only_silent_workers_with_streams_of_ours_are_pinged_and_not_twice_at_once() {
    let now = Instant::now();
    let silence = Duration::from_millis(300);
    let mut view = view(vec![worker("a", 4, 0, 0), worker("b", 4, 0, 0)], now);
    view.began(&name("a"), now);
    assert!(view.silent(silence, now).is_empty());
    let later = now + silence;
    assert_eq!(view.silent(silence, later), [name("a")]);
    assert!(view.silent(silence, later).is_empty());
    assert_eq!(view.silent(silence, later + silence), [name("a")], "and again");
    view.alive(&name("a"), later + silence);
    assert!(view.silent(silence, later + silence).is_empty());
    view.ended(&name("a"));
    assert!(view.silent(silence, later + 10 * silence).is_empty());
}

#[test]
fn a_restart_under_the_same_id_is_noticed_once() {
    let now = Instant::now();
    let mut view = View::default();
    assert!(view.snapshot(capacity(vec![worker("a", 4, 0, 0)]), now, 7).is_empty());
    assert!(!view.instance(&name("a"), 1));
    assert!(view.instance(&name("a"), 2));
    assert!(!view.instance(&name("a"), 2));
    assert!(!view.instance(&name("unknown"), 2));
    let back = view.snapshot(capacity(vec![worker("a", 4, 0, 0)]), now, 7);
    assert_eq!(back, [(name("a"), 1)]);
}

fn able(id: &str, slots: u32, active: u32, features: &[Feature]) -> WorkerCapacity {
    let mut worker = worker(id, slots, active, 0);
    worker.report.models[0].capabilities = features.iter().copied().collect::<Features>().into();
    worker
}

fn needing(view: &View, features: &[Feature], excluded: &[&str], untaken: usize, now: Instant) -> To {
    let excluded: Vec<Name> = excluded.iter().map(|id| name(id)).collect();
    let needs = features.iter().copied().collect();
    ask(
        view,
        "m",
        needs,
        Tried {
            excluded: &excluded,
            untaken,
            ..Tried::default()
        },
        now,
        1,
    )
}

#[test]
fn of_mixed_workers_only_those_that_can_are_asked_and_never_the_queue() {
    use Feature::{Chat, Embeddings, Tools};
    let now = Instant::now();
    let workers = vec![able("plain", 100, 0, &[Chat]), able("tools", 2, 1, &[Chat, Tools])];
    let mut view = view(workers, now);
    for untaken in 0..4 {
        let choice = needing(&view, &[Chat, Tools], &[], untaken, now);
        assert_eq!(choice, To::Worker(name("tools")), "{untaken}");
    }
    assert_eq!(needing(&view, &[Chat, Tools], &["tools"], 1, now), To::Wait);
    assert_eq!((view.free("m", CHAT), view.free("m", CHAT.with(Tools))), (101, 1));
    assert_eq!(
        needing(&view, &[Embeddings], &[], 0, now),
        To::Cannot(Embeddings.into())
    );
    view.placed(&name("tools"), now);
    assert_eq!(needing(&view, &[Chat, Tools], &[], 0, now), To::Wait, "it is full");
    assert_eq!(view.distinguishing("m", CHAT.with(Tools)), Tools.into());
}

#[test]
fn what_the_lost_worker_could_is_not_taken_for_a_wrong_request_at_once() {
    use Feature::{Chat, Tools};
    let now = Instant::now();
    let plain = || able("plain", 4, 0, &[Chat]);
    let mut view = view(vec![plain(), able("tools", 4, 0, &[Chat, Tools])], now);
    view.gone(&name("tools"), now);
    assert_eq!(needing(&view, &[Chat, Tools], &[], 0, now), To::Gone);
    let later = now + crate::limits::ABLE_MEMORY;
    view.snapshot(capacity(vec![plain()]), later, 7);
    assert_eq!(needing(&view, &[Chat, Tools], &[], 0, later), To::Cannot(Tools.into()));
    assert_eq!(needing(&view, &[Chat], &[], 0, later), To::Worker(name("plain")));
}

#[test]
fn without_snapshots_what_workers_say_of_themselves_decides() {
    use Feature::{Chat, Tools};
    let now = Instant::now();
    let mut view = View::default();
    for id in ["plain", "tools", "unknown"] {
        view.learnt(&name(id), "m", now, 7);
    }
    assert_eq!(
        needing(&view, &[Chat, Tools], &[], 0, now),
        To::Queue,
        "nothing is known"
    );
    view.capable(&name("plain"), "m", Features::from(Chat).into());
    view.capable(&name("tools"), "m", CHAT.with(Tools).into());
    view.gone(&name("unknown"), now);
    assert_eq!(needing(&view, &[Chat, Tools], &[], 0, now), To::Worker(name("tools")));
    assert_eq!(needing(&view, &[Chat, Tools], &["tools"], 1, now), To::Queue);
    assert_eq!(needing(&view, &[Chat], &[], 0, now), To::Queue, "all can");
    assert_eq!(
        view.able("m", Feature::Vision.into()),
        Able::None(Feature::Vision.into())
    );
    assert!(view.models()["m"].capabilities.tools);
}

#[test]
fn patience_is_that_of_the_worker_or_of_the_slowest_that_may_take_it() {
    let (mut view, now) = (View::default(), Instant::now());
    let first = Duration::from_secs(1);
    assert_eq!(view.patience(None, "m", first), first, "nothing is known");
    view.snapshot(capacity(vec![worker("near", 1, 0, 0), worker("far", 1, 0, 0)]), now, 0);
    assert_eq!(view.unmeasured(1, first, now).len(), 1);
    assert_eq!(view.unmeasured(8, first, now).len(), 1, "each is asked once");
    assert_eq!(
        view.unmeasured(8, first, now + first).len(),
        2,
        "and again where it said nothing"
    );
    let mut answer = |worker, millis| {
        for turn in 0..20 {
            let asked = now + first * turn;
            view.answered(&name(worker), asked, asked + Duration::from_millis(millis));
        }
        view.patience(None, "m", first)
    };
    assert_eq!(answer("near", 1), first, "one is not known yet");
    answer("far", 600);
    let patience = |worker: &str| view.patience(Some(&name(worker)), "m", first);
    assert!(patience("near") < Duration::from_millis(300));
    assert!(patience("far") > Duration::from_millis(840));
    assert_eq!(view.patience(None, "m", first), patience("far"));
    assert_eq!(view.lateness(&name("stranger")), Duration::ZERO);
    assert!(view.unmeasured(8, first, now + first * 2).is_empty());
}

#[test]
fn a_worker_that_refuses_has_no_room_until_it_tells_again() {
    let (busy, unable) = (RejectReason::Busy, RejectReason::Unsupported);
    let now = Instant::now();
    let mut view = view(vec![worker("a", 4, 0, 0)], now);
    let room = Room {
        free: 4,
        queued: 0,
        pending: None,
    };
    view.refused(&name("a"), unable, room, now);
    assert_eq!(view.free("m", CHAT), 4, "the request was to blame");
    view.refused(&name("a"), busy, room, now);
    assert_eq!(view.free("m", CHAT), 0);
    view.room(&name("a"), room, now);
    assert_eq!(view.free("m", CHAT), 4);
    view.refused(&name("a"), busy, room, now);
    view.room(&name("a"), room, now);
    assert_eq!(view.free("m", CHAT), 0, "not believed the second time");
    let after = now + crate::limits::REFUSED_FIRST;
    view.room(&name("a"), room, after);
    assert_eq!(view.free("m", CHAT), 1);
    view.took(&name("a"));
    view.room(&name("a"), room, after);
    assert_eq!(view.free("m", CHAT), 4);
    for _ in 0..9 {
        view.refused(&name("a"), busy, Room::default(), after);
    }
    view.room(&name("a"), room, after);
    assert_eq!(
        view.free("m", CHAT),
        4,
        "it had promised nothing since the first of these"
    );
}

#[test]
fn without_a_coordinator_the_view_shrinks_again_and_is_bounded() {
    let mut view = View::default();
    let now = Instant::now();
    let name = |n: usize| Name::new(&format!("w{n}")).unwrap();
    for n in 0..KNOWN_WORKERS + 100 {
        view.learnt(&name(n), "m", now, 0);
        view.room(
            &name(n),
            Room {
                free: 1,
                queued: 0,
                pending: None,
            },
            now,
        );
    }
    assert_eq!(view.workers.len(), KNOWN_WORKERS);
    for n in 0..MODELS_OF_WORKER + 100 {
        view.learnt(&name(0), &format!("model-{n}"), now, 0);
    }
    assert_eq!(view.models_of(&name(0)).len(), MODELS_OF_WORKER);
    view.learnt(&name(0), &"x".repeat(MAX_MODEL_NAME + 1), now, 0);
    assert!(view.models().keys().all(|name| name.len() <= MAX_MODEL_NAME));
    // Two are heard again, one of the others runs a stream of ours.
    let later = now + WORKER_MEMORY;
    view.alive(&name(1), later);
    view.alive(&name(2), later);
    view.began(&name(3), now);
    view.forget_silent(later);
    assert_eq!(view.workers.len(), 3);
    assert!(view.is_live("m") && !view.models()["model-5"].live);
    view.forget_silent(now + MODEL_MEMORY * 2);
    assert_eq!((view.workers.len(), view.models().len()), (1, 1));
}

#[test]
fn a_slot_whose_request_was_answered_is_not_taken_twice() {
    let now = Instant::now();
    let mut view = View::default();
    view.snapshot(capacity(vec![worker("a", 2, 2, 0)]), now, 0);
    let a = name("a");
    view.placed(&a, now);
    // The worker took it, and offers another slot in the same message.
    view.has_answered(&a, 1);
    view.room(
        &a,
        Room {
            free: 1,
            ..Room::default()
        },
        now,
    );
    assert_eq!(view.slots_for("m", CHAT, 5), 1);
    view.settled(&a);
    assert_eq!(view.slots_for("m", CHAT, 5), 1, "the stream has seen it too");
    view.has_answered(&a, 7);
    view.placed(&a, now);
    assert_eq!(view.slots_for("m", CHAT, 5), 0, "answers to nothing count nothing");
}
