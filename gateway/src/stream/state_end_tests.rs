//! How unfinished streams end (deadlines, clients that leave or do not read), and which answers begin anew.

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

/// A stream with an answer in one piece, part of which worker `a` has delivered.
fn in_one_piece(not_resumable: Option<&'static str>) -> Bench {
    let mut bench = Bench::with(not_resumable);
    bench.state = bench.state.in_one_piece(true);
    bench.publish(Some("a"));
    bench.frame("a", 0, 0, accepted("a"));
    bench.frame("a", 0, 1, delta("half "));
    bench
}

fn begins_anew(actions: &[Action]) -> bool {
    actions.ends_with(&[Action::Output(Output::Anew), Action::Place])
}

#[test]
fn an_answer_in_one_piece_that_cannot_go_on_begins_anew() {
    let lost = |worker: &str| Event::WorkerGone { worker: name(worker) };
    let mut bench = in_one_piece(Some("its output follows a grammar"));
    assert!(begins_anew(&bench.event(lost("a"))));
    let attempt = bench.publish(Some("b"));
    assert_eq!((attempt.resume, attempt.floor), (None, 1));
    bench.frame("b", 1, 0, accepted("b"));
    assert_eq!(texts(&bench.frame("b", 1, 1, delta("whole "))), "whole ");
    let actions = bench.frame("b", 1, 2, finish(1));
    assert!(
        matches!(actions.as_slice(), [Action::Output(Output::Finish(f))] if f.completion_tokens == Some(1)),
        "{actions:?}"
    );

    let mut bench = in_one_piece(None);
    bench.event(lost("a"));
    assert!(bench.publish(Some("b")).resume.is_some(), "what can go on does");
}

#[test]
fn an_answer_in_one_piece_begins_anew_where_going_on_from_its_half_fails() {
    let mut bench = in_one_piece(None);
    bench.event(Event::WorkerGone { worker: name("a") });
    bench.publish(Some("b"));
    let actions = bench.frame("b", 1, 0, reject("b", RejectReason::Unsupported));
    assert!(begins_anew(&actions), "{actions:?}");
    bench.publish(Some("c"));
    bench.frame("c", 2, 0, accepted("c"));
    bench.frame("c", 2, 1, delta("half "));
    bench.event(Event::WorkerGone { worker: name("c") });
    assert!(bench.publish(Some("d")).resume.is_some());
    bench.frame("d", 3, 0, accepted("d"));
    let actions = bench.frame("d", 3, 1, error(ErrorCode::EngineUnavailable, false));
    assert!(failed(&actions).is_some(), "the third run was the last");

    let mut bench = in_one_piece(None);
    bench.event(Event::WorkerGone { worker: name("a") });
    bench.publish(Some("b"));
    bench.frame("b", 1, 0, accepted("b"));
    let actions = bench.frame("b", 1, 1, error(ErrorCode::EngineUnavailable, false));
    assert!(begins_anew(&actions), "{actions:?}");
    bench.publish(Some("b"));
    bench.frame("b", 2, 0, accepted("b"));
    let actions = bench.frame("b", 2, 1, error(ErrorCode::BadRequest, false));
    assert!(failed(&actions).is_some(), "it was not to go on from anything");
}

#[test]
fn a_stream_has_begun_when_a_worker_took_it_whatever_became_of_it_then() {
    let mut bench = Bench::new();
    bench.publish(Some("a"));
    assert!(!bench.state.has_begun() && bench.state.is_under_way());
    bench.event(Event::NoResponders { attempt: 0 });
    assert!(!bench.state.has_begun(), "nobody took it");
    bench.publish(Some("b"));
    bench.frame("b", 1, 0, accepted("b"));
    assert!(bench.state.has_begun());
    bench.event(Event::WorkerGone { worker: name("b") });
    bench.state.wait(bench.now, Duration::from_secs(1));
    assert!(bench.state.has_begun() && !bench.state.is_under_way());
}

#[test]
fn a_stream_that_flows_is_not_cut_and_one_that_stops_is() {
    let silence = Duration::from_secs(30);
    let mut bench = Bench::running("a");
    bench.state = bench.state.flowing(silence);
    let begin = bench.now;
    for seq in 1..100 {
        let text = if seq % 2 == 0 {
            Body::Alive(Alive::default())
        } else {
            delta("x")
        };
        assert_eq!(failed(&bench.frame("a", 0, seq, text)), None, "{seq}");
        assert_eq!(failed(&bench.pass(Duration::from_secs(4))), None, "{seq}");
    }
    assert!(bench.now > begin + Duration::from_secs(60) * 2);
    // Signs of life are not output.
    let cut = (100..200).find_map(|seq| {
        bench.frame("a", 0, seq, Body::Alive(Alive::default()));
        failed(&bench.pass(Duration::from_secs(4))).cloned()
    });
    let stage = Stage::Generation;
    assert_eq!(cut, Some(CallError::Deadline { stage }));
}
