//! How a stream ends that is not finished: deadlines, and clients that leave or do not read.

use super::*;

#[test]
fn the_deadline_says_what_was_waited_for() {
    let stage = |bench: &mut Bench| match failed(&bench.pass(Duration::from_secs(60))) {
        Some(CallError::Deadline { stage }) => *stage,
        other => panic!("{other:?}"),
    };
    assert_eq!(stage(&mut Bench::new()), Stage::Queue);
    let mut placing = Bench::new();
    placing.publish(Some("a"));
    assert_eq!(stage(&mut placing), Stage::Accept);
    assert_eq!(stage(&mut Bench::running("a")), Stage::FirstToken);
    let mut generating = Bench::running("a");
    generating.frame("a", 0, 1, delta("x"));
    assert_eq!(stage(&mut generating), Stage::Generation);
}

#[test]
fn a_client_that_leaves_or_does_not_read_frees_the_worker() {
    let mut bench = Bench::running("a");
    let actions = bench.event(Event::Overflow);
    assert!(cancels(&actions, "a", 0));
    assert_eq!(failed(&actions), Some(&CallError::SlowClient));

    let mut bench = Bench::new();
    bench.publish(Some("a"));
    bench.pass(PATIENCE);
    bench.publish(Some("b"));
    let mut actions = Vec::new();
    bench.state.abandon(&mut actions);
    assert!(cancels(&actions, "a", 0) && cancels(&actions, "b", 1));
}
