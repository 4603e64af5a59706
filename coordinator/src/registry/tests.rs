//! The registry under every order of statuses that a network can produce.

use super::fixture::{at, info, reporting, status};
use super::*;
use crate::limits::{LOST_AFTER, MODEL_LISTED_FOR};

pub(super) fn registry() -> Registry {
    Registry::new(LOST_AFTER)
}

/// The kinds of the happenings, each with its worker or model.
pub(super) fn told(change: &Change) -> Vec<(EventKind, String)> {
    let who = |h: &Happening| match (&h.worker, &h.model) {
        (Some((name, instance)), _) => format!("{name}/{instance}"),
        (None, Some(model)) => model.clone(),
        (None, None) => String::new(),
    };
    change.happenings.iter().map(|h| (h.kind, who(h))).collect()
}

pub(super) fn happened(kind: EventKind, who: &str) -> (EventKind, String) {
    (kind, who.to_owned())
}

fn in_state(state: WorkerState, seq: u64) -> Status {
    reporting(status("w", 1, seq), |report| report.state = state)
}

use EventKind::{ModelAppeared, ModelVanished, WorkerDraining, WorkerJoined, WorkerLeft, WorkerLost};

#[test]
fn the_first_status_joins_and_its_model_appears() {
    let change = registry().observe(status("w", 1, 1), at(0.0)).unwrap();
    assert_eq!(
        told(&change),
        [happened(WorkerJoined, "w/1"), happened(ModelAppeared, "m")]
    );
    assert_eq!(change.urgency, Urgency::Structure);
}

#[test]
fn registering_again_neither_duplicates_nor_tells() {
    let mut registry = registry();
    registry.observe(status("w", 1, 1), at(0.0)).unwrap();
    let change = registry.observe(status("w", 1, 2), at(1.0)).unwrap();
    assert_eq!(change, Change::default());
    assert_eq!(registry.len(), 1);
}

#[test]
fn late_and_repeated_statuses_are_dropped() {
    let mut registry = registry();
    let busy = reporting(status("w", 1, 5), |report| report.active = 3);
    registry.observe(busy, at(0.0)).unwrap();
    for seq in [5, 4, 0] {
        assert_eq!(
            registry.observe(status("w", 1, seq), at(0.1)),
            Err(RefusedStatus::Stale),
            "seq {seq}"
        );
    }
    assert_eq!(registry.workers().next().unwrap().status.report.active, 3);
    assert_eq!(
        registry.workers().next().unwrap().seen,
        at(0.0),
        "a late status is no sign of life"
    );
}

#[test]
fn a_new_life_under_the_same_id_replaces_the_old_one_and_the_model_stays() {
    let mut registry = registry();
    registry.observe(status("w", 1, 90), at(0.0)).unwrap();
    let change = registry.observe(status("w", 2, 1), at(0.5)).unwrap();
    assert_eq!(
        told(&change),
        [happened(WorkerLost, "w/1"), happened(WorkerJoined, "w/2")]
    );
    assert_eq!(change.urgency, Urgency::Structure);
    assert_eq!(registry.len(), 1);
    assert_eq!(
        registry.observe(status("w", 1, 91), at(0.6)),
        Err(RefusedStatus::Replaced)
    );
    let stopped = reporting(status("w", 1, 92), |report| report.state = WorkerState::Stopped);
    assert_eq!(
        registry.observe(stopped, at(0.7)),
        Err(RefusedStatus::Replaced),
        "the old life's end is not the new one's"
    );
    assert_eq!(registry.workers().next().unwrap().status.report.instance, 2);
}

#[test]
fn two_workers_under_one_id_do_not_make_it_flap_and_the_survivor_gets_it() {
    let mut registry = registry();
    registry.observe(status("w", 1, 1), at(0.0)).unwrap();
    registry.observe(status("w", 2, 1), at(0.1)).unwrap();
    for second in 1..60_u32 {
        let now = f64::from(second);
        assert_eq!(
            registry.observe(status("w", 1, u64::from(second) + 1), at(now)),
            Err(RefusedStatus::Replaced)
        );
        assert!(
            registry
                .observe(status("w", 2, u64::from(second) + 1), at(now + 0.1))
                .unwrap()
                .happenings
                .is_empty()
        );
        assert!(registry.tick(at(now + 0.2)).happenings.is_empty());
    }
    let stopped = reporting(status("w", 2, 100), |report| report.state = WorkerState::Stopped);
    registry.observe(stopped, at(60.0)).unwrap();
    let change = registry.observe(status("w", 1, 61), at(60.1)).unwrap();
    assert_eq!(
        told(&change),
        [happened(WorkerJoined, "w/1"), happened(ModelAppeared, "m")]
    );
}

#[test]
fn former_lives_are_remembered_up_to_a_bound() {
    let mut registry = registry();
    for instance in 1..=1000 {
        registry.observe(status("w", instance, 1), at(0.0)).unwrap();
    }
    assert_eq!(registry.workers().next().unwrap().former.len(), MAX_FORMER);
    assert_eq!(
        registry.observe(status("w", 999, 2), at(0.0)),
        Err(RefusedStatus::Replaced)
    );
}

/// Ticks every quarter of a second from `from` to `to`, as the loop does.
pub(super) fn ticks(registry: &mut Registry, from: f64, to: f64) -> Vec<(EventKind, String)> {
    let mut all = Vec::new();
    let mut now = from;
    while now <= to {
        all.extend(told(&registry.tick(at(now))));
        now += 0.25;
    }
    all
}

#[test]
fn three_missed_seconds_lose_a_worker_and_not_less() {
    let mut registry = registry();
    registry.observe(status("w", 1, 1), at(0.0)).unwrap();
    assert_eq!(ticks(&mut registry, 0.0, 2.99), []);
    assert_eq!(
        ticks(&mut registry, 3.0, 3.0),
        [happened(WorkerLost, "w/1"), happened(ModelVanished, "m")]
    );
    assert_eq!(registry.len(), 0);
    assert_eq!(ticks(&mut registry, 3.25, 10.0), [], "it is lost once");
}

#[test]
fn a_lost_worker_that_speaks_again_rejoins() {
    let mut registry = registry();
    registry.observe(status("w", 1, 7), at(0.0)).unwrap();
    ticks(&mut registry, 0.0, 3.0);
    assert_eq!(
        registry.observe(status("w", 1, 7), at(3.1)),
        Err(RefusedStatus::Stale),
        "a late one is no return"
    );
    let change = registry.observe(status("w", 1, 8), at(3.2)).unwrap();
    assert_eq!(
        told(&change),
        [happened(WorkerJoined, "w/1"), happened(ModelAppeared, "m")]
    );
}

#[test]
fn a_worker_that_stops_leaves_at_once_and_its_late_statuses_do_not_bring_it_back() {
    let mut registry = registry();
    registry.observe(status("w", 1, 1), at(0.0)).unwrap();
    let change = registry.observe(in_state(WorkerState::Stopped, 9), at(0.1)).unwrap();
    assert_eq!(
        told(&change),
        [happened(WorkerLeft, "w/1"), happened(ModelVanished, "m")]
    );
    assert_eq!(registry.len(), 0);
    assert_eq!(registry.observe(status("w", 1, 8), at(0.2)), Err(RefusedStatus::Stale));
    assert_eq!(
        registry.observe(in_state(WorkerState::Stopped, 9), at(0.3)),
        Err(RefusedStatus::Stale)
    );
    let change = registry.observe(status("w", 2, 1), at(0.4)).unwrap();
    assert_eq!(told(&change).first(), Some(&happened(WorkerJoined, "w/2")));
}

#[test]
fn the_last_word_of_a_stranger_is_no_event() {
    let change = registry().observe(in_state(WorkerState::Stopped, 1), at(0.0)).unwrap();
    assert_eq!(change, Change::default());
}

#[test]
fn draining_is_told_once_and_takes_the_model_away() {
    let mut registry = registry();
    registry.observe(in_state(WorkerState::Ready, 1), at(0.0)).unwrap();
    let change = registry.observe(in_state(WorkerState::Draining, 2), at(1.0)).unwrap();
    assert_eq!(
        told(&change),
        [happened(WorkerDraining, "w/1"), happened(ModelVanished, "m")]
    );
    let change = registry.observe(in_state(WorkerState::Draining, 3), at(2.0)).unwrap();
    assert_eq!(told(&change), []);
    let change = registry.observe(in_state(WorkerState::Ready, 4), at(3.0)).unwrap();
    assert_eq!(told(&change), [happened(ModelAppeared, "m")]);
}

#[test]
fn a_model_appears_when_its_worker_is_ready_and_not_before() {
    let mut registry = registry();
    let change = registry.observe(in_state(WorkerState::Starting, 1), at(0.0)).unwrap();
    assert_eq!(told(&change), [happened(WorkerJoined, "w/1")]);
    let change = registry.observe(in_state(WorkerState::Ready, 2), at(1.0)).unwrap();
    assert_eq!(told(&change), [happened(ModelAppeared, "m")]);
    let change = registry
        .observe(in_state(WorkerState::Unavailable, 3), at(2.0))
        .unwrap();
    assert_eq!(told(&change), [happened(ModelVanished, "m")]);
}

#[test]
fn a_model_vanishes_with_its_last_worker() {
    let mut registry = registry();
    registry.observe(status("a", 1, 1), at(0.0)).unwrap();
    registry.observe(status("b", 1, 1), at(0.0)).unwrap();
    let stop = |worker: &str| reporting(status(worker, 1, 2), |report| report.state = WorkerState::Stopped);
    assert_eq!(
        told(&registry.observe(stop("a"), at(0.1)).unwrap()),
        [happened(WorkerLeft, "a/1")]
    );
    assert!(told(&registry.observe(stop("b"), at(0.2)).unwrap()).contains(&happened(ModelVanished, "m")));
}

#[test]
fn a_model_that_a_worker_loads_or_unloads_is_told() {
    let mut registry = registry();
    registry.observe(status("w", 1, 1), at(0.0)).unwrap();
    let both = reporting(status("w", 1, 2), |report| report.models = vec![info("m"), info("n")]);
    assert_eq!(
        told(&registry.observe(both, at(1.0)).unwrap()),
        [happened(ModelAppeared, "n")]
    );
    let other = reporting(status("w", 1, 3), |report| report.models = vec![info("n")]);
    let change = registry.observe(other, at(2.0)).unwrap();
    assert_eq!(told(&change), [happened(ModelVanished, "m")]);
    assert_eq!(change.urgency, Urgency::Structure);
}

#[test]
fn a_model_stays_listed_for_ten_minutes() {
    let mut registry = registry();
    registry.observe(status("w", 1, 1), at(0.0)).unwrap();
    registry.observe(in_state(WorkerState::Stopped, 2), at(1.0)).unwrap();
    let gone = at(1.0);
    registry.tick(gone + MODEL_LISTED_FOR - TICK);
    assert!(registry.models().is_listed("m"));
    assert_eq!(registry.tick(gone + MODEL_LISTED_FOR).urgency, Urgency::Structure);
    assert!(!registry.models().is_listed("m"));
}

#[test]
fn a_model_that_comes_back_is_not_forgotten() {
    let mut registry = registry();
    registry.observe(status("w", 1, 1), at(0.0)).unwrap();
    registry.observe(in_state(WorkerState::Stopped, 2), at(1.0)).unwrap();
    registry.observe(status("v", 1, 1), at(500.0)).unwrap();
    registry.excuse(at(100_000.0));
    registry.tick(at(5000.0));
    assert!(registry.models().is_listed("m"));
}

#[test]
fn load_waits_and_room_hurries() {
    let mut registry = registry();
    let active = |active, seq| reporting(status("w", 1, seq), |report| report.active = active);
    registry.observe(active(0, 1), at(0.0)).unwrap();
    assert_eq!(
        registry.observe(active(3, 2), at(0.1)).unwrap().urgency,
        Urgency::Periodic
    );
    assert_eq!(
        registry.observe(active(4, 3), at(0.2)).unwrap().urgency,
        Urgency::Room,
        "full"
    );
    assert_eq!(
        registry.observe(active(3, 4), at(0.3)).unwrap().urgency,
        Urgency::Room,
        "room again"
    );
    let slots = reporting(status("w", 1, 5), |report| report.slots = 8);
    assert_eq!(registry.observe(slots, at(0.4)).unwrap().urgency, Urgency::Structure);
}
