//! Tests of the simulated engine's schedule.

use super::super::sequence::tests::{Shared, sequence};
use super::*;

const MS: Duration = Duration::from_millis(1);

fn add(batch: &mut Batch, key: u64, body: &str, now: Instant) -> Shared {
    let (sequence, seen) = sequence(body, None);
    batch.add(key, sequence, now);
    seen
}

fn tokens(seen: &Shared) -> usize {
    seen.lock().unwrap().deltas.len()
}

/// Steps at exactly the times that the batch asks for, up to `end`, and returns them.
fn run(batch: &mut Batch, end: Instant) -> Vec<Instant> {
    let mut times = Vec::new();
    while let Some(at) = batch.next().filter(|at| *at <= end) {
        batch.step(at);
        times.push(at);
        assert!(times.len() < 100_000);
    }
    times
}

#[test]
fn first_after_ttft_then_every_itl() {
    let start = Instant::now();
    let mut batch = Batch::new(20 * MS, 10 * MS);
    let seen = add(&mut batch, 1, r#"{"max_tokens":4}"#, start);
    let times = run(&mut batch, start + Duration::from_secs(1));
    assert_eq!(
        times,
        [start + 20 * MS, start + 30 * MS, start + 40 * MS, start + 50 * MS]
    );
    assert_eq!(tokens(&seen), 4);
    assert!(seen.lock().unwrap().finish.is_some());
    assert_eq!(batch.next(), None, "nothing runs, nothing wakes");
}

#[test]
fn all_sequences_step_together() {
    let start = Instant::now();
    let mut batch = Batch::new(20 * MS, 10 * MS);
    let all: Vec<Shared> = (0..100)
        .map(|key| {
            add(
                &mut batch,
                key,
                r#"{"max_tokens":50}"#,
                start + MS * u32::try_from(key % 10).unwrap(),
            )
        })
        .collect();
    let times = run(&mut batch, start + Duration::from_secs(10));
    assert!(all.iter().all(|seen| tokens(seen) == 50));
    assert!(
        times.len() <= 10 + 51,
        "one wake-up for each prefill time and each step, not {}",
        times.len()
    );
}

#[test]
fn a_late_task_makes_up_and_the_schedule_does_not_drift() {
    let start = Instant::now();
    let mut batch = Batch::new(Duration::ZERO, 10 * MS);
    let seen = add(&mut batch, 1, r#"{"max_tokens":1000}"#, start);
    for n in 0..100 {
        batch.step(start + 10 * MS * n + 3 * MS);
    }
    assert_eq!(tokens(&seen), 100);
    assert_eq!(batch.next(), Some(start + 1000 * MS), "not 3 ms later each time");
    batch.step(start + 1055 * MS);
    assert_eq!(tokens(&seen), 106, "six steps were due");
}

#[test]
fn after_a_long_stop_there_is_no_flood() {
    let start = Instant::now();
    let mut batch = Batch::new(Duration::ZERO, 10 * MS);
    let seen = add(&mut batch, 1, r#"{"max_tokens":100000}"#, start);
    batch.step(start);
    let later = start + Duration::from_secs(60);
    batch.step(later);
    assert_eq!(tokens(&seen), 1 + CATCH_UP as usize);
    assert_eq!(batch.next(), Some(later + 10 * MS));
}

#[test]
fn without_latencies_every_step_is_due_at_once() {
    let start = Instant::now();
    let mut batch = Batch::new(Duration::ZERO, Duration::ZERO);
    let seen = add(&mut batch, 1, r#"{"max_tokens":5}"#, start);
    for n in 1..=5 {
        assert_eq!(batch.next(), Some(start));
        batch.step(start);
        assert_eq!(tokens(&seen), n, "one token a step: others get their turn");
    }
    assert_eq!(batch.next(), None);
}

#[test]
fn a_request_may_have_its_own_ttft() {
    let start = Instant::now();
    let mut batch = Batch::new(20 * MS, 10 * MS);
    add(&mut batch, 1, r#"{"sim":{"ttft_ms":500}}"#, start);
    assert_eq!(batch.next(), Some(start + 500 * MS));
}

#[test]
fn removed_in_every_phase() {
    let start = Instant::now();
    let mut batch = Batch::new(20 * MS, 10 * MS);
    let prefill = add(&mut batch, 1, "{}", start + 100 * MS);
    let decoding = add(&mut batch, 2, "{}", start);
    let hanging = add(&mut batch, 3, r#"{"sim":{"hang_after":1}}"#, start);
    run(&mut batch, start + 40 * MS);
    assert_eq!(tokens(&hanging), 1);
    for key in 1..=3 {
        batch.remove(key);
    }
    for seen in [prefill, decoding, hanging] {
        let seen = seen.lock().unwrap();
        assert!(seen.dropped && seen.finish.is_none());
    }
    assert_eq!(batch.next(), None);
    batch.remove(7);
}
