//! The registry with many workers, with sleep, and with statuses that no worker should send.

use super::fixture::{at, info, reporting, status};
use super::tests::{happened, registry, ticks, told};
use super::*;
use crate::limits::MAX_MODELS_PER_WORKER;
use tokenbus_protocol::ModelLoad;

use EventKind::{ModelAppeared, ModelVanished, WorkerLost};

#[test]
fn two_hundred_workers_with_jitter_never_flap() {
    let mut registry = registry();
    let mut random = fastrand::Rng::with_seed(7);
    // Each status is up to 0.9 s late, as on overloaded machines, and every tenth is lost: silences of up to 2.9 s.
    let mut events: Vec<(u64, u64, u64)> = Vec::new();
    for worker in 0..200_u64 {
        let mut last = 0;
        for second in 0..120_u64 {
            let arrival = (second * 1000 + random.u64(0..900)).max(last);
            let dropped = second > 0 && second % 10 == worker % 10;
            if !dropped {
                events.push((arrival, worker, second + 1));
            }
            last = arrival;
        }
    }
    events.extend((0..480).map(|tick| (tick * 250, u64::MAX, 0)));
    events.sort_unstable();
    let mut told_of = 0;
    for (ms, worker, seq) in events {
        let now = at(0.0) + Duration::from_millis(ms);
        let change = if worker == u64::MAX {
            registry.tick(now)
        } else {
            registry
                .observe(status(&format!("w{worker}"), worker, seq), now)
                .unwrap()
        };
        told_of += change.happenings.len();
    }
    assert_eq!(told_of, 201, "200 joined, one model appeared, and nothing else");
    assert_eq!(registry.len(), 200);
}

#[test]
fn all_of_two_hundred_can_be_lost_and_come_back() {
    let mut registry = registry();
    for worker in 0..200 {
        registry.observe(status(&format!("w{worker}"), 1, 1), at(0.0)).unwrap();
    }
    let lost = ticks(&mut registry, 0.0, 3.0);
    assert_eq!(lost.iter().filter(|(kind, _)| *kind == WorkerLost).count(), 200);
    assert_eq!(lost.iter().filter(|(kind, _)| *kind == ModelVanished).count(), 1);
    for worker in 0..200 {
        registry.observe(status(&format!("w{worker}"), 1, 2), at(4.0)).unwrap();
    }
    assert_eq!(registry.len(), 200);
}

#[test]
fn a_coordinator_that_slept_blames_nobody() {
    let mut registry = registry();
    registry.observe(status("w", 1, 1), at(0.0)).unwrap();
    ticks(&mut registry, 0.0, 1.0);
    // Stopped for ten seconds. The tick runs first then, before the statuses.
    assert_eq!(ticks(&mut registry, 11.0, 13.75), []);
    registry.observe(status("w", 1, 2), at(13.8)).unwrap();
    assert_eq!(ticks(&mut registry, 14.0, 16.5), []);
    assert_eq!(ticks(&mut registry, 16.75, 17.0).len(), 2, "and then it counts again");
}

#[test]
fn while_the_bus_is_away_nobody_is_lost() {
    let mut registry = registry();
    registry.observe(status("w", 1, 1), at(0.0)).unwrap();
    registry.excuse(at(20.0));
    registry.excuse(at(10.0));
    assert_eq!(ticks(&mut registry, 0.0, 19.75), []);
    assert_eq!(ticks(&mut registry, 20.0, 20.0).len(), 2);
}

#[test]
fn a_clock_that_stands_still_or_goes_back_does_no_harm() {
    let mut registry = registry();
    registry.observe(status("w", 1, 1), at(100.0)).unwrap();
    assert_eq!(ticks(&mut registry, 50.0, 60.0), []);
    registry.observe(status("w", 1, 2), at(40.0)).unwrap();
    assert_eq!(registry.tick(at(40.0)), Change::default());
}

#[test]
fn workers_are_bounded_and_known_ones_keep_their_place() {
    let mut registry = registry();
    for worker in 0..MAX_WORKERS {
        registry.observe(status(&format!("w{worker}"), 1, 1), at(0.0)).unwrap();
    }
    assert_eq!(
        registry.observe(status("one-more", 1, 1), at(0.0)),
        Err(RefusedStatus::Full)
    );
    assert!(registry.observe(status("w5", 1, 2), at(0.0)).is_ok());
    assert!(registry.observe(status("w5", 2, 1), at(0.0)).is_ok());
    assert_eq!(registry.len(), MAX_WORKERS);
}

#[test]
fn statuses_are_bounded_in_bytes_and_places_are_given_again() {
    let mut registry = registry();
    let heavy = |worker: usize, seq| {
        let mut heavy = reporting(status(&format!("w{worker}"), 1, seq), |report| {
            report.models = (0..MAX_MODELS_PER_WORKER)
                .map(|n| info(&format!("{n:0>256}")))
                .collect();
        });
        // Loads of models that it does not serve, and one twice.
        let load = |model: String| ModelLoad {
            model,
            active: 1,
            queued: 0,
            tokens_per_second: 0.0,
        };
        heavy.loads = [format!("{:0>256}", 1), format!("{:0>256}", 1), "x".repeat(200_000)]
            .map(load)
            .into();
        heavy
    };
    let taken = |registry: &mut Registry, seq| {
        let all = (0..1000).map(|n| registry.observe(heavy(n, seq), at(0.0)));
        all.filter(Result::is_ok).count()
    };
    let first = taken(&mut registry, 1);
    assert!((100..1000).contains(&first), "{first}");
    assert!(registry.bytes <= MAX_STATUSES);
    assert!(registry.workers().all(|worker| worker.status.loads.len() == 1));
    // Those that are known keep their place, and a light one finds room when one of them leaves.
    assert_eq!(taken(&mut registry, 2), first);
    let stopped = reporting(heavy(0, 3), |report| report.state = WorkerState::Stopped);
    registry.observe(stopped, at(0.0)).unwrap();
    registry.observe(status("light", 1, 1), at(0.0)).unwrap();
    registry.tick(at(0.0));
    ticks(&mut registry, 0.0, 10.0);
    assert_eq!((registry.len(), registry.bytes), (0, 0));
}

#[test]
fn models_are_bounded_and_places_are_given_again() {
    let mut registry = registry();
    let many = |worker: usize, seq| {
        reporting(status(&format!("w{worker}"), 1, seq), |report| {
            report.models = (0..300).map(|n| info(&format!("m{worker}-{n}"))).collect()
        })
    };
    for worker in 0..50 {
        registry.observe(many(worker, 1), at(0.0)).unwrap();
    }
    assert_eq!(registry.models().iter().count(), crate::limits::MAX_MODELS);
    let first = registry.workers().next().unwrap();
    assert_eq!(first.status.report.models.len(), crate::limits::MAX_MODELS_PER_WORKER);
    assert!(!registry.models().is_listed("m49-0"));
    let stopped = reporting(many(0, 2), |report| report.state = WorkerState::Stopped);
    registry.observe(stopped, at(1.0)).unwrap();
    registry.excuse(at(10_000.0));
    registry.tick(at(1000.0));
    let change = registry.observe(many(49, 3), at(1001.0)).unwrap();
    assert!(told(&change).contains(&happened(ModelAppeared, "m49-0")));
}

#[test]
fn a_status_is_cleaned_of_what_no_worker_would_say() {
    let mut registry = registry();
    let mut odd = status("w", 1, 1);
    odd.report.models = vec![info("m"), info(""), info("m"), info(&"x".repeat(257))];
    odd.report.kv_used = Some(7.0);
    odd.report.tokens_per_second = f64::NEG_INFINITY;
    registry.observe(odd, at(0.0)).unwrap();
    let kept = &registry.workers().next().unwrap().status;
    assert_eq!(kept.report.models, [info("m")]);
    assert_eq!(kept.report.kv_used, Some(1.0));
    assert!(kept.report.tokens_per_second.abs() < f64::EPSILON);
}

#[test]
fn any_storm_of_statuses_keeps_the_counts_true() {
    let mut random = fastrand::Rng::with_seed(11);
    let mut registry = registry();
    let states = [
        WorkerState::Ready,
        WorkerState::Starting,
        WorkerState::Draining,
        WorkerState::Stopped,
    ];
    for step in 0..20_000_u64 {
        let now = at(0.0) + Duration::from_millis(step * 20);
        let models = (0..random.usize(0..3))
            .map(|_| info(&format!("m{}", random.u8(0..4))))
            .collect();
        let state = states[random.usize(0..4)];
        let status = reporting(
            status(
                &format!("w{}", random.u8(0..6)),
                random.u64(0..3),
                random.u64(0..step + 2),
            ),
            |report| {
                report.models = models;
                report.state = state;
            },
        );
        let _ = registry.observe(status, now);
        if step % 12 == 0 {
            registry.tick(now);
        }
        for (name, model) in registry.models().iter() {
            let named = |w: &&Worker| w.status.report.models.iter().any(|info| info.name == name);
            let workers: Vec<_> = registry.workers().filter(named).collect();
            let ready = workers
                .iter()
                .filter(|w| w.status.report.state == WorkerState::Ready)
                .count();
            assert_eq!(
                (model.named as usize, model.ready as usize),
                (workers.len(), ready),
                "{name} at step {step}"
            );
            assert_eq!(model.unnamed_since.is_some(), workers.is_empty());
        }
    }
}
