//! How a stream ends that is not finished: deadlines, clients that leave or do not read, attempts that
//! are given up.

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

#[test]
fn an_attempt_that_was_promised_and_never_heard_of_is_given_up() {
    let mut bench = Bench::new();
    bench.publish(Some("a"));
    bench.pass(PATIENCE);
    bench.publish(None);
    bench.frame("a", 1, 0, reject("a", RejectReason::Duplicate));
    assert_eq!(bench.pass(limits::ACCEPT_MAX), [Action::Place]);
    assert_eq!(bench.publish(None).floor, 2, "whoever runs an older one replaces it");
    let late = bench.frame("a", 0, 0, accepted("a"));
    assert!(
        late.len() == 1 && cancels(&late, "a", 0),
        "its frames count no more: {late:?}"
    );
    bench.frame("a", 2, 0, accepted("a"));
    assert_eq!(bench.state.worker(), Some(&name("a")));
}
