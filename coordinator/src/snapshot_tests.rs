//! Tests of the snapshot.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::time::Duration;

use tokenbus_protocol::{Quantiles, Totals};

use super::*;
use crate::limits::LOST_AFTER;
use crate::registry::fixture::{at, info, reporting, status};

fn snapshot(statuses: Vec<Status>) -> Capacity {
    let mut registry = Registry::new(LOST_AFTER);
    let now = at(0.0);
    for status in statuses {
        registry.observe(status, now).unwrap();
    }
    take(&registry, &mut Scaling::default(), now)
}

fn take(registry: &Registry, scaling: &mut Scaling, now: Instant) -> Capacity {
    let stamp = Stamp {
        coordinator: Name::new("c").unwrap(),
        seq: 7,
        at_ms: 42,
    };
    fold(registry, &WaitingAtGateways::default(), scaling, stamp, now)
}

fn loaded(worker: &str, slots: u32, active: u32, queued: u32) -> Status {
    reporting(status(worker, 1, 1), |report| {
        report.slots = slots;
        report.active = active;
        report.queued = queued;
    })
}

#[test]
fn a_model_adds_up_what_its_ready_workers_have() {
    let draining = reporting(loaded("w3", 100, 100, 50), |report| {
        report.state = WorkerState::Draining
    });
    let all = snapshot(vec![loaded("w2", 4, 4, 3), loaded("w1", 8, 2, 0), draining]);
    let model = &all.models[0];
    assert_eq!((model.workers, model.slots, model.free), (2, 12, 6));
    assert_eq!((model.active, model.queued), (6, 3));
    assert_eq!(model.estimated_wait_ms, Some(0));
    let names: Vec<_> = all.workers.iter().map(|w| w.report.worker.as_str()).collect();
    assert_eq!(names, ["w1", "w2", "w3"]);
    assert_eq!((all.seq, all.at_ms, all.coordinator.as_str()), (7, 42, "c"));
}

#[test]
fn the_slots_of_a_worker_are_open_to_its_models_and_its_load_is_counted_once() {
    let load = |model: &str, active, queued, tokens_per_second| ModelLoad {
        model: model.to_owned(),
        active,
        queued,
        tokens_per_second,
    };
    let told = Status {
        loads: vec![load("b", 5, 0, 20.0), load("a", 2, 1, 10.0)],
        ..reporting(loaded("w1", 8, 7, 1), |report| {
            report.models = vec![info("a"), info("b"), info("c")];
            report.tokens_per_second = 30.0;
        })
    };
    let alone = reporting(loaded("w2", 4, 1, 0), |report| {
        report.tokens_per_second = 5.0;
        report.models = vec![info("a")];
    });
    let all = snapshot(vec![told, alone]);
    let of = |m: &ModelCapacity| (m.workers, m.slots, m.free, m.active, m.queued, m.tokens_per_second);
    let models: Vec<_> = all.models.iter().map(of).collect();
    assert_eq!(
        models,
        [(2, 12, 3, 3, 1, 15.0), (1, 8, 0, 5, 0, 20.0), (1, 8, 0, 0, 0, 0.0)]
    );
    let total = Total {
        workers: 2,
        slots: 12,
        free: 3,
        active: 8,
        queued: 1,
        waiting: 0,
        tokens_per_second: 35.0,
    };
    assert_eq!(all.total, total);
}

#[test]
fn a_worker_that_does_not_tell_its_models_apart_has_its_load_in_equal_parts() {
    let older = reporting(loaded("w", 4, 3, 1), |report| {
        report.models = vec![info("a"), info("b")];
        report.tokens_per_second = 30.0;
    });
    let all = snapshot(vec![older]);
    let of = |m: &ModelCapacity| (m.slots, m.active, m.queued, m.tokens_per_second);
    assert_eq!(
        all.models.iter().map(of).collect::<Vec<_>>(),
        [(4, 2, 1, 15.0), (4, 1, 0, 15.0)]
    );
    assert_eq!((all.total.active, all.total.queued), (3, 1));
}

#[test]
fn what_waits_at_gateways_is_told_and_asks_for_workers() {
    let mut registry = Registry::new(LOST_AFTER);
    registry.observe(loaded("w", 10, 10, 0), at(0.0)).unwrap();
    let mut waiting = WaitingAtGateways::default();
    let models = |requests| {
        let model = registry.models().iter().next().map(|(name, _)| name.to_owned());
        let one = |model| tokenbus_protocol::ModelWaiting { model, requests };
        [model, Some("unlisted".to_owned())]
            .into_iter()
            .flatten()
            .map(one)
            .collect()
    };
    let gateway = |name: &str| Name::new(name).unwrap();
    for (name, requests) in [("g1", 12), ("g2", 3)] {
        let (gateway, models) = (gateway(name), models(requests));
        let left = vec![];
        waiting.note(tokenbus_protocol::Waiting { gateway, models, left }, at(0.0));
    }
    let stamp = Stamp {
        coordinator: gateway("c"),
        seq: 1,
        at_ms: 0,
    };
    let all = fold(&registry, &waiting, &mut Scaling::default(), stamp, at(0.0));
    assert_eq!((all.models[0].waiting, all.total.waiting), (15, 15));
    // (10 + 15) / (10 × 0.8), rounded up.
    assert_eq!(all.models[0].desired_workers, 4);
}

#[test]
fn more_running_than_slots_leaves_none_free() {
    let all = snapshot(vec![loaded("w", 4, 9, 2)]);
    assert_eq!(all.models[0].free, 0);
}

#[test]
fn the_wait_follows_from_what_workers_measured_weighted_by_slots() {
    let mut fast = loaded("w1", 3, 3, 2);
    fast.report.ttft = Quantiles {
        p50: 100.0,
        p90: 0.0,
        p99: 0.0,
    };
    fast.report.itl = Quantiles {
        p50: 10.0,
        p90: 0.0,
        p99: 0.0,
    };
    fast.totals = Totals {
        finished: 8,
        cancelled: 2,
        tokens: 310,
        ..Totals::default()
    };
    let mut slow = loaded("w2", 1, 1, 1);
    slow.report.ttft = Quantiles {
        p50: 800.0,
        p90: 0.0,
        p99: 0.0,
    };
    slow.totals = Totals {
        finished: 1,
        tokens: 1,
        ..Totals::default()
    };
    let all = snapshot(vec![fast, slow]);
    // S = (3 × 400 + 1 × 800) / 4 = 500; (3 + 1) × 500 / 4.
    assert_eq!(all.models[0].estimated_wait_ms, Some(500));
}

#[test]
fn a_full_model_that_nobody_measured_has_no_estimate() {
    assert_eq!(snapshot(vec![loaded("w", 1, 1, 5)]).models[0].estimated_wait_ms, None);
}

#[test]
fn desired_workers_follow_the_load() {
    assert_eq!(snapshot(vec![loaded("w", 10, 0, 0)]).models[0].desired_workers, 1);
    assert_eq!(snapshot(vec![loaded("w", 10, 10, 15)]).models[0].desired_workers, 4);
}

#[test]
fn a_model_without_a_worker_stays_listed_and_keeps_what_is_known_of_it() {
    let mut registry = Registry::new(LOST_AFTER);
    let mut scaling = Scaling::default();
    let mut busy = loaded("w", 4, 4, 12);
    busy.report.models[0].context_length = Some(8192);
    busy.report.models[0].capabilities.chat = true;
    registry.observe(busy.clone(), at(0.0)).unwrap();
    assert_eq!(take(&registry, &mut scaling, at(0.0)).models[0].desired_workers, 5);
    let stopped = reporting(busy, |report| {
        report.state = WorkerState::Stopped;
        report.seq = 2;
    });
    registry.observe(stopped, at(1.0)).unwrap();
    let all = take(&registry, &mut scaling, at(1.0));
    assert!(all.workers.is_empty());
    let model = &all.models[0];
    assert_eq!(
        (model.workers, model.slots, model.free, model.estimated_wait_ms),
        (0, 0, 0, None)
    );
    assert_eq!((model.context_length, model.capabilities.chat), (Some(8192), true));
    assert_eq!(model.desired_workers, 5, "the demand outlives the worker for a minute");
    let later = at(1.0) + Duration::from_secs(90);
    assert_eq!(take(&registry, &mut scaling, later).models[0].desired_workers, 1);
}

#[test]
fn a_lost_worker_is_shown_for_a_while_unless_it_is_back() {
    let mut registry = Registry::new(LOST_AFTER);
    registry.observe(loaded("w", 4, 3, 0), at(0.0)).unwrap();
    let mut scaling = Scaling::default();
    // As often as the coordinator does it: after a pause it would excuse the worker.
    for n in 0..40_u32 {
        registry.tick(at(0.25 * f64::from(n)));
    }
    let lost = take(&registry, &mut scaling, at(10.0)).lost;
    assert_eq!(lost.len(), 1);
    assert_eq!(
        (lost[0].worker.as_str(), lost[0].active, lost[0].age_ms),
        ("w", 3, 10_000)
    );
    assert_eq!(lost[0].models, ["m"]);
    registry.observe(status("w", 2, 1), at(11.0)).unwrap();
    assert!(take(&registry, &mut Scaling::default(), at(11.0)).lost.is_empty());
}

#[test]
fn a_model_can_do_what_one_of_its_workers_can_and_has_the_longest_context() {
    let mut a = loaded("w1", 1, 0, 0);
    a.report.models[0].capabilities.tools = true;
    a.report.models[0].context_length = Some(4096);
    let mut b = loaded("w2", 1, 0, 0);
    b.report.models[0].capabilities.vision = true;
    let all = snapshot(vec![a, b]);
    let capabilities = all.models[0].capabilities;
    assert!(capabilities.tools && capabilities.vision && !capabilities.chat);
    assert_eq!(all.models[0].context_length, Some(4096));
}

#[test]
fn age_is_that_of_the_last_status() {
    let mut registry = Registry::new(LOST_AFTER);
    registry.observe(status("w", 1, 1), at(0.0)).unwrap();
    let all = take(&registry, &mut Scaling::default(), at(1.25));
    assert_eq!(all.workers[0].age_ms, 1250);
}

#[test]
fn sums_saturate_and_numbers_that_are_none_do_no_harm() {
    let mut a = loaded("w1", u32::MAX, u32::MAX, u32::MAX);
    a.report.tokens_per_second = f64::NAN;
    a.report.ttft.p50 = f64::INFINITY;
    a.report.itl.p50 = -5.0;
    a.totals = Totals {
        finished: u64::MAX,
        failed: u64::MAX,
        tokens: u64::MAX,
        ..Totals::default()
    };
    let all = snapshot(vec![
        a.clone(),
        reporting(a, |report| report.worker = Name::new("w2").unwrap()),
    ]);
    let model = &all.models[0];
    assert_eq!((model.slots, model.active, model.free), (u32::MAX, u32::MAX, 0));
    assert!(model.tokens_per_second.abs() < f64::EPSILON);
    assert_eq!(model.estimated_wait_ms, None);
}
