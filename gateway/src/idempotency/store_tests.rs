//! What a key means when it comes again, and what goes first.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use proptest::prelude::*;

use super::*;

const WINDOW: Duration = Duration::from_secs(600);

fn bounds(entries: usize, bytes: usize) -> Bounds {
    Bounds {
        window: WINDOW,
        entries,
        bytes,
    }
}

fn key(text: &str) -> Arc<Key> {
    Arc::new(Key {
        tenant: None,
        key: text.to_owned(),
    })
}

fn body(number: u64) -> Fingerprint {
    Fingerprint([number, 7])
}

fn store(bounds: Bounds) -> (Store<u32>, Instant) {
    (Store::new(bounds), Instant::now())
}

#[test]
fn the_first_is_unknown_and_its_repeat_is_not() {
    let (mut store, now) = store(bounds(10, 100_000));
    assert_eq!(store.look(&key("a"), body(1), now), Look::Unknown);
    store.begin(&key("a"), body(1), 11, now).unwrap();
    assert_eq!(store.look(&key("a"), body(1), now), Look::Same(11));
    assert_eq!(store.look(&key("b"), body(1), now), Look::Unknown);
}

#[test]
fn another_body_is_told_from_the_same() {
    let (mut store, now) = store(bounds(10, 100_000));
    let id = store.begin(&key("a"), body(1), 11, now).unwrap();
    assert_eq!(store.look(&key("a"), body(2), now), Look::Other(11));
    assert_eq!(
        store.look(&key("a"), Fingerprint([1, 8]), now),
        Look::Other(11),
        "both hashes count"
    );
    store.answered(&key("a"), id, now);
    assert_eq!(store.look(&key("a"), body(2), now), Look::Other(11));
}

#[test]
fn tenants_do_not_share_keys() {
    let (mut store, now) = store(bounds(10, 100_000));
    let of = |tenant: &str| {
        Arc::new(Key {
            tenant: Some(tenant.to_owned()),
            key: "a".to_owned(),
        })
    };
    store.begin(&of("x"), body(1), 1, now).unwrap();
    assert_eq!(store.look(&of("y"), body(1), now), Look::Unknown);
    assert_eq!(store.look(&key("a"), body(1), now), Look::Unknown);
    assert_eq!(store.look(&of("x"), body(1), now), Look::Same(1));
}

#[test]
fn the_window_begins_with_the_answer() {
    let (mut store, start) = store(bounds(10, 100_000));
    let id = store.begin(&key("a"), body(1), 1, start).unwrap();
    let later = start + 3 * WINDOW;
    assert_eq!(store.look(&key("a"), body(1), later), Look::Same(1), "it still runs");
    store.answered(&key("a"), id, later);
    let last = later + WINDOW - Duration::from_nanos(1);
    assert_eq!(store.look(&key("a"), body(1), last), Look::Same(1));
    assert_eq!(store.look(&key("a"), body(1), later + WINDOW), Look::Unknown);
    assert_eq!((store.len(), store.bytes()), (0, 0));
}

#[test]
fn without_a_window_only_what_runs_is_known() {
    let (mut store, now) = store(Bounds {
        window: Duration::ZERO,
        ..bounds(10, 100_000)
    });
    let id = store.begin(&key("a"), body(1), 1, now).unwrap();
    assert_eq!(store.look(&key("a"), body(1), now), Look::Same(1));
    store.answered(&key("a"), id, now);
    assert!(store.is_empty());
}

#[test]
fn a_failed_request_is_forgotten_and_runs_anew() {
    let (mut store, now) = store(bounds(10, 100_000));
    let id = store.begin(&key("a"), body(1), 1, now).unwrap();
    assert!(store.grow(&key("a"), id, 1000));
    store.forget(&key("a"), id);
    assert_eq!(store.look(&key("a"), body(1), now), Look::Unknown);
    assert_eq!(store.bytes(), 0);
}

#[test]
fn an_old_run_cannot_touch_a_new_one_under_its_key() {
    let (mut store, now) = store(bounds(10, 100_000));
    let old = store.begin(&key("a"), body(1), 1, now).unwrap();
    let new = store.begin(&key("a"), body(2), 2, now).unwrap();
    assert_ne!(old, new);
    let bytes = store.bytes();
    assert!(!store.grow(&key("a"), old, 100));
    store.answered(&key("a"), old, now);
    store.forget(&key("a"), old);
    assert_eq!(store.look(&key("a"), body(2), now + 2 * WINDOW), Look::Same(2));
    assert_eq!(store.bytes(), bytes);
}

#[test]
fn an_answered_request_is_not_forgotten_by_its_task() {
    let (mut store, now) = store(bounds(10, 100_000));
    let id = store.begin(&key("a"), body(1), 1, now).unwrap();
    store.answered(&key("a"), id, now);
    store.forget(&key("a"), id);
    assert_eq!(store.look(&key("a"), body(1), now), Look::Same(1));
}

#[test]
fn the_oldest_answer_goes_first_when_there_are_too_many() {
    let (mut store, now) = store(bounds(3, 100_000));
    let mut ids = Vec::new();
    for (n, name) in ["a", "b", "c"].iter().enumerate() {
        ids.push(
            store
                .begin(&key(name), body(0), u32::try_from(n).unwrap(), now)
                .unwrap(),
        );
    }
    // Answered in another order than begun; c runs on.
    store.answered(&key("b"), ids[1], now);
    store.answered(&key("a"), ids[0], now);
    store.begin(&key("d"), body(0), 3, now).unwrap();
    assert_eq!(store.look(&key("b"), body(0), now), Look::Unknown);
    assert_eq!(store.look(&key("a"), body(0), now), Look::Same(0));
    store.begin(&key("e"), body(0), 4, now).unwrap();
    assert_eq!(store.look(&key("a"), body(0), now), Look::Unknown);
    assert_eq!(store.begin(&key("f"), body(0), 5, now), None, "c, d and e run");
    assert_eq!(store.look(&key("c"), body(0), now), Look::Same(2));
    assert_eq!(store.len(), 3);
}

#[test]
fn a_growing_answer_pushes_the_oldest_out() {
    let (mut store, now) = store(bounds(10, 4 * ENTRY));
    let a = store.begin(&key("a"), body(0), 1, now).unwrap();
    let b = store.begin(&key("b"), body(0), 2, now).unwrap();
    assert!(store.grow(&key("a"), a, ENTRY / 2));
    store.answered(&key("a"), a, now);
    assert!(store.grow(&key("b"), b, 2 * ENTRY));
    assert_eq!(store.look(&key("a"), body(0), now), Look::Unknown);
    assert_eq!(store.look(&key("b"), body(0), now), Look::Same(2));
    assert_eq!(store.bytes(), 3 * ENTRY + 1);
}

#[test]
fn an_answer_that_fits_nowhere_is_forgotten_alone() {
    let (mut store, now) = store(bounds(10, 4 * ENTRY));
    let a = store.begin(&key("a"), body(0), 1, now).unwrap();
    let b = store.begin(&key("b"), body(0), 2, now).unwrap();
    assert!(!store.grow(&key("b"), b, 100 * ENTRY));
    assert_eq!(store.look(&key("b"), body(0), now), Look::Unknown);
    assert!(store.grow(&key("a"), a, ENTRY));
    assert_eq!(store.bytes(), 2 * ENTRY + 1);
}

#[test]
fn with_no_memory_at_all_nothing_is_known() {
    let (mut store, now) = store(bounds(10, 0));
    assert_eq!(store.begin(&key("a"), body(0), 1, now), None);
    assert!(store.is_empty());
}

#[derive(Debug, Clone)]
enum Step {
    Begin(u8, u64),
    Grow(usize, usize),
    Answered(usize),
    Forget(usize),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..12_u8, 0..2_u64).prop_map(|(key, body)| Step::Begin(key, body)),
        3 => (any::<usize>(), 0..3 * ENTRY).prop_map(|(run, bytes)| Step::Grow(run, bytes)),
        2 => any::<usize>().prop_map(Step::Answered),
        1 => any::<usize>().prop_map(Step::Forget),
        1 => (0..900_u64).prop_map(Step::Wait),
    ]
}

proptest! {
    #[test]
    fn whatever_happens_the_bounds_hold_and_no_byte_is_lost(steps in prop::collection::vec(step(), 0..200)) {
        let (mut store, mut now) = store(bounds(5, 8 * ENTRY));
        let mut runs: Vec<(Arc<Key>, u64)> = Vec::new();
        for step in steps {
            let run = |n: usize| (!runs.is_empty()).then(|| runs[n % runs.len()].clone());
            match step {
                Step::Begin(name, number) => {
                    let key = key(&name.to_string());
                    if let Some(id) = store.begin(&key, body(number), 0, now) {
                        prop_assert_eq!(store.look(&key, body(number), now), Look::Same(0));
                        runs.push((key, id));
                    }
                }
                Step::Grow(n, bytes) => if let Some((key, id)) = run(n) {
                    store.grow(&key, id, bytes);
                },
                Step::Answered(n) => if let Some((key, id)) = run(n) {
                    store.answered(&key, id, now);
                },
                Step::Forget(n) => if let Some((key, id)) = run(n) {
                    store.forget(&key, id);
                },
                Step::Wait(seconds) => now += Duration::from_secs(seconds),
            }
            prop_assert!(store.len() <= 5 && store.bytes() <= 8 * ENTRY);
            prop_assert_eq!(store.bytes(), store.entries.values().map(|entry| entry.bytes).sum::<usize>());
            prop_assert!(store.answered.len() <= store.len());
        }
        for (key, id) in runs {
            store.forget(&key, id);
        }
        store.expire(now + 2 * WINDOW);
        prop_assert_eq!((store.len(), store.bytes()), (0, 0));
    }
}
