//! Tests of the number of workers that a model should have.

use std::time::{Duration, Instant};

use super::*;

fn load(on_workers: u64, slots_per_worker: f64) -> Load {
    Load {
        workers: 1,
        slots_per_worker,
        on_workers,
        ..Load::default()
    }
}

fn scaling(rule: &str) -> Scaling {
    Scaling::new(ScaleRules::parse(&format!("[models.m.scale]\n{rule}")).unwrap())
}

fn after(start: Instant, seconds: u64) -> Instant {
    start + Duration::from_secs(seconds)
}

fn needed(on_workers: u64, slots: f64) -> u32 {
    workers_for(&load(on_workers, slots), None, &ScaleRule::default())
}

#[test]
fn demand_is_load_over_four_fifths_of_the_slots() {
    assert_eq!(needed(0, 10.0), 1);
    assert_eq!(needed(8, 10.0), 1);
    assert_eq!(needed(9, 10.0), 2);
    assert_eq!(needed(160, 10.0), 20);
    assert_eq!(needed(5, 0.0), 7, "a worker without slots counts as one slot");
    assert_eq!(needed(u64::MAX, 1.0), u32::MAX);
    let unseen = Load {
        waiting: 9,
        ..Load::default()
    };
    assert_eq!(
        workers_for(&unseen, None, &ScaleRule::default()),
        1,
        "the first worker tells its slots"
    );
}

#[test]
fn with_a_target_requests_may_wait_as_long_as_they_have_time() {
    let rule = ScaleRule {
        target_ttft: Some(Duration::from_secs(10)),
        ..ScaleRule::default()
    };
    let busy = Load {
        waiting: 80,
        ttft_ms: Some(2000.0),
        ..load(8, 10.0)
    };
    let of = |service| workers_for(&busy, service, &rule);
    assert_eq!(of(Some(20_000.0)), 11, "each needs a slot of its own");
    assert_eq!(of(Some(2000.0)), 4, "four can have a slot one after the other");
    assert_eq!(of(None), 11, "nobody measured how long they take");
    let late = Load {
        ttft_ms: Some(12_000.0),
        ..busy
    };
    assert_eq!(workers_for(&late, Some(2000.0), &rule), 11, "no time is left to wait");
    assert_eq!(workers_for(&busy, Some(2000.0), &ScaleRule::default()), 11);
}

#[test]
fn more_is_asked_for_at_once_and_fewer_after_a_minute() {
    let start = Instant::now();
    let mut scaling = Scaling::default();
    let mut want = |second, on_workers| scaling.want("m", &load(on_workers, 1.25), after(start, second)).workers;
    assert_eq!(want(0, 2), 2);
    assert_eq!(want(1, 9), 9);
    for second in 2..=61 {
        assert_eq!(want(second, 3), 9, "second {second}");
    }
    assert_eq!(want(62, 3), 3);
}

#[test]
fn a_wave_does_not_make_the_demand_flap() {
    let start = Instant::now();
    let mut window = Window::default();
    let patience = Duration::from_secs(60);
    for second in 0..600 {
        let wanted = if second % 40 < 20 { 8 } else { 2 };
        assert_eq!(window.hold(wanted, patience, after(start, second)), 8);
    }
}

#[test]
fn a_slow_decline_stays_bounded_and_is_followed() {
    let start = Instant::now();
    let mut window = Window::default();
    let mut last = 0;
    for step in 0..100_000_u32 {
        let at = start + Duration::from_millis(50) * step;
        last = window.hold(200_000 - step, Duration::from_secs(60), at);
        assert!(window.0.len() <= 122);
    }
    // 60 s are 1,200 steps.
    assert!((101_200..=101_211).contains(&last), "{last}");
}

#[test]
fn bounds_hold_and_a_model_without_a_rule_has_none_above() {
    let now = Instant::now();
    let mut scaling = scaling("min = 2\nmax = 4");
    assert_eq!(scaling.want("m", &load(0, 1.0), now).workers, 2);
    assert_eq!(scaling.want("m", &load(99, 1.0), now).workers, 4);
    let other = scaling.want("other", &load(80, 1.0), now);
    assert_eq!((other.workers, other.on_demand), (100, false));
}

#[test]
fn the_last_worker_goes_when_nobody_has_asked_for_the_grace() {
    let start = Instant::now();
    let mut scaling = scaling("min = 0\nidle-after = \"30s\"\ndown-after = \"90s\"");
    let mut want = |second, load: Load| scaling.want("m", &load, after(start, second)).workers;
    let idle = load(0, 4.0);
    assert_eq!(want(0, idle), 1, "workers that are there have their grace");
    assert_eq!(want(29, idle), 1);
    assert_eq!(want(30, idle), 0);
    assert_eq!(want(31, load(1, 4.0)), 1);
    // A request that came and went between two looks.
    assert_eq!(want(60, Load { ended: 1, ..idle }), 1);
    assert_eq!(want(89, Load { ended: 1, ..idle }), 1);
    assert_eq!(want(90, Load { ended: 1, ..idle }), 0);
    // The worker leaves, and with it its count.
    let none = Load { workers: 0, ..idle };
    assert_eq!(want(91, none), 0, "a worker that leaves is no request");
    assert_eq!(want(92, Load { waiting: 1, ..none }), 1);
}

#[test]
fn a_coordinator_that_starts_asks_for_no_worker_that_nobody_needs() {
    let mut scaling = scaling("min = 0");
    let none = Load::default();
    assert_eq!(scaling.want("m", &none, Instant::now()).workers, 0);
}

#[test]
fn the_time_to_a_first_worker_is_learnt_and_counts_down() {
    let start = Instant::now();
    let mut scaling = scaling("min = 0\nidle-after = \"1s\"\nstart = \"40s\"");
    let mut want = |second, load: Load| scaling.want("m", &load, after(start, second)).start_ms;
    let none = Load::default();
    let asked = Load { waiting: 1, ..none };
    assert_eq!(want(0, none), Some(40_000), "as written");
    assert_eq!(want(10, asked), Some(40_000));
    assert_eq!(want(20, asked), Some(30_000));
    assert_eq!(want(90, asked), Some(10_000), "a late start is not at any moment");
    assert_eq!(want(110, load(1, 4.0)), None);
    assert_eq!(want(120, none), Some(100_000), "as measured");
}

#[test]
fn those_that_wait_for_a_start_are_ahead_of_a_new_request() {
    let now = Instant::now();
    let mut scaling = scaling("start = \"40s\"");
    let known = Load {
        service_ms: Some(2000.0),
        ..load(0, 4.0)
    };
    scaling.want("m", &known, now);
    let waiting = Load {
        workers: 0,
        waiting: 8,
        slots_per_worker: 4.0,
        ..Load::default()
    };
    // 8 requests, 3 workers of 4 slots: two thirds of 2 s.
    assert_eq!(scaling.want("m", &waiting, now).start_ms, Some(41_333));
}

#[test]
fn models_that_are_gone_are_forgotten_unless_they_have_rules() {
    let mut scaling = scaling("");
    for model in ["a", "b", "m"] {
        scaling.want(model, &Load::default(), Instant::now());
    }
    scaling.retain(|model| model == "b");
    let mut left: Vec<_> = scaling.models.keys().map(String::as_str).collect();
    left.sort_unstable();
    assert_eq!(left, ["b", "m"]);
}
