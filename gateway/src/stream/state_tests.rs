//! The state machine, event by event.

use tokenbus_protocol::{Alive, Delta, Finish, Room};

use crate::call::Output;

use super::*;

const PATIENCE: Duration = Duration::from_millis(250);

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// A stream under test, with a clock that the test moves.
struct Bench {
    state: StreamState,
    now: Instant,
}

impl Bench {
    fn new() -> Self {
        Self::with(None)
    }

    fn with(not_resumable: Option<&'static str>) -> Self {
        let now = Instant::now();
        Self {
            state: StreamState::new(now + Duration::from_secs(60), not_resumable),
            now,
        }
    }

    fn publish(&mut self, target: Option<&str>) -> Attempt {
        self.state.publish(target.map(name), self.now, PATIENCE).unwrap()
    }

    fn event(&mut self, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        self.state.on_event(event, self.now, &mut actions);
        actions
    }

    fn frame(&mut self, worker: &str, attempt: u32, seq: u32, body: Body<'static>) -> Vec<Action> {
        self.event(Event::Frame {
            worker: name(worker),
            frame: Frame {
                stream: 1,
                attempt,
                seq,
                body,
            },
        })
    }

    fn pass(&mut self, time: Duration) -> Vec<Action> {
        self.now += time;
        let mut actions = Vec::new();
        self.state.tick(self.now, &mut actions);
        actions
    }

    /// A stream that was published to `worker` and accepted there.
    fn running(worker: &str) -> Self {
        let mut bench = Self::new();
        let attempt = bench.publish(Some(worker)).attempt;
        bench.frame(worker, attempt, 0, accepted(worker));
        bench
    }
}

fn accepted(worker: &str) -> Body<'static> {
    Body::Accepted(Accepted {
        id: uuid::Uuid::nil(),
        worker: name(worker),
        instance: 1,
        queue_position: 0,
        resumable: true,
    })
}

fn delta(text: &str) -> Body<'static> {
    Body::Delta(Delta {
        text: text.to_owned().into(),
        tokens: 1,
        ..Delta::default()
    })
}

fn finish(tokens: u64) -> Body<'static> {
    Body::Finish(Finish {
        prompt_tokens: Some(3),
        completion_tokens: Some(tokens),
        usage: None,
        chunk: None,
    })
}

fn reject(worker: &str, reason: RejectReason) -> Body<'static> {
    Body::Reject(Reject {
        reason,
        worker: name(worker),
        room: Room::default(),
        message: "no".into(),
        retry_after_ms: None,
        id: None,
    })
}

fn error(code: ErrorCode, retryable: bool) -> Body<'static> {
    Body::Error(EngineError {
        code,
        message: "x".into(),
        param: None,
        engine_code: None,
        retryable,
        retry_after_ms: None,
    })
}

fn texts(actions: &[Action]) -> String {
    let text = |action: &Action| match action {
        Action::Output(Output::Delta(delta)) => Some(delta.text.clone().into_owned()),
        _ => None,
    };
    actions.iter().filter_map(text).collect()
}

fn cancels(actions: &[Action], worker: &str, attempt: u32) -> bool {
    actions.contains(&Action::Cancel {
        worker: name(worker),
        attempt,
    })
}

fn failed(actions: &[Action]) -> Option<&CallError> {
    actions.iter().find_map(|action| match action {
        Action::Fail(error) => Some(error),
        _ => None,
    })
}

#[test]
fn the_straight_way() {
    let mut bench = Bench::new();
    assert_eq!(
        bench.publish(Some("a")),
        Attempt {
            attempt: 0,
            floor: 0,
            resume: None
        }
    );
    let actions = bench.frame("a", 0, 0, accepted("a"));
    assert_eq!(
        actions,
        [
            Action::Output(Output::Accepted {
                worker: name("a"),
                queue_position: 0,
                why: None,
                kind: Default::default()
            }),
            Action::Taken {
                attempt: 0,
                worker: name("a")
            }
        ]
    );
    assert_eq!(texts(&bench.frame("a", 0, 1, delta("x "))), "x ");
    assert_eq!(texts(&bench.frame("a", 0, 2, delta("y "))), "y ");
    let actions = bench.frame("a", 0, 3, finish(2));
    assert!(matches!(&actions[..], [Action::Output(Output::Finish(f))] if f.completion_tokens == Some(2)));
    assert!(bench.state.is_done());
    assert!(bench.frame("a", 0, 4, delta("z")).is_empty(), "nothing follows");
}

#[test]
fn no_answer_in_time_is_published_again_and_the_first_to_accept_wins() {
    let mut bench = Bench::new();
    bench.publish(Some("a"));
    assert_eq!(bench.pass(PATIENCE), [Action::Place]);
    assert_eq!(bench.state.excluded(), [name("a")]);
    let second = bench.publish(Some("b"));
    assert_eq!((second.attempt, second.floor), (1, 0), "the first may still be taken");
    let actions = bench.frame("b", 1, 0, accepted("b"));
    assert!(cancels(&actions, "a", 0), "{actions:?}");
    let late = bench.frame("a", 0, 0, accepted("a"));
    assert_eq!(
        late,
        [Action::Cancel {
            worker: name("a"),
            attempt: 0
        }],
        "and nothing of it reaches the client"
    );
    assert_eq!(texts(&bench.frame("a", 0, 1, delta("stale"))), "");
    assert_eq!(texts(&bench.frame("b", 1, 1, delta("fresh"))), "fresh");
}

#[test]
fn the_late_first_attempt_may_win_too() {
    let mut bench = Bench::new();
    bench.publish(Some("a"));
    bench.pass(PATIENCE);
    bench.publish(None);
    bench.frame("a", 0, 0, accepted("a"));
    assert_eq!(bench.state.worker(), Some(&name("a")));
    assert!(cancels(&bench.frame("b", 1, 0, accepted("b")), "b", 1));
}

#[test]
fn each_further_try_is_given_longer() {
    let mut bench = Bench::new();
    bench.publish(Some("a"));
    bench.pass(PATIENCE);
    bench.publish(None);
    assert!(bench.pass(PATIENCE).is_empty());
    assert_eq!(bench.pass(PATIENCE), [Action::Place]);
}

#[test]
fn a_refusal_excludes_the_worker() {
    for reason in [
        RejectReason::Busy,
        RejectReason::Draining,
        RejectReason::Unavailable,
        RejectReason::Other,
    ] {
        let mut bench = Bench::new();
        bench.publish(Some("a"));
        assert_eq!(bench.frame("a", 0, 0, reject("a", reason)), [Action::Place]);
        assert_eq!(bench.state.excluded(), [name("a")]);
        bench.state.wait(bench.now, Duration::from_secs(1));
        assert!(bench.state.excluded().is_empty(), "after a wait it may be tried again");
        assert_eq!(bench.event(Event::Go), [Action::Place]);
        assert!(bench.event(Event::Go).is_empty(), "one Go is enough");
    }
}

#[test]
fn unanswered_publishes_do_not_count_for_ever() {
    let mut bench = Bench::new();
    for tries in 0..4 {
        assert_eq!(bench.state.untaken(), tries);
        bench.publish(None);
        bench.pass(limits::ACCEPT_MAX);
    }
    bench.state.wait(bench.now, Duration::from_secs(1));
    assert_eq!(bench.state.untaken(), 0, "after a wait it is tried afresh");
    bench.event(Event::Go);
    bench.publish(Some("a"));
    bench.frame("b", 0, 0, accepted("b"));
    assert_eq!(
        bench.state.worker(),
        Some(&name("b")),
        "and whoever answers at last may have it"
    );
}

#[test]
fn a_duplicate_is_the_promise_of_an_earlier_attempt() {
    let mut bench = Bench::new();
    bench.publish(Some("a"));
    bench.pass(PATIENCE);
    bench.publish(None);
    assert!(bench.frame("a", 1, 0, reject("a", RejectReason::Duplicate)).is_empty());
    assert!(
        bench.pass(PATIENCE * 2).is_empty(),
        "it waits for the accept that is on its way"
    );
    bench.frame("a", 0, 0, accepted("a"));
    assert_eq!(bench.state.worker(), Some(&name("a")));
}

#[test]
fn what_no_engine_can_do_ends_with_the_reason() {
    let mut bench = Bench::new();
    bench.publish(Some("a"));
    assert_eq!(
        bench.frame("a", 0, 0, reject("a", RejectReason::Unsupported)),
        [Action::Place]
    );
    bench.publish(None);
    let actions = bench.frame("b", 1, 0, reject("b", RejectReason::Unsupported));
    assert!(
        matches!(failed(&actions), Some(CallError::Engine(e)) if e.code == ErrorCode::BadRequest && e.message == "no")
    );
}

#[test]
fn no_responders_lead_on_and_are_told_apart_by_attempt() {
    let mut bench = Bench::new();
    bench.publish(Some("a"));
    assert_eq!(bench.event(Event::NoResponders { attempt: 0 }), [Action::Place]);
    assert!(!bench.state.queue_empty());
    bench.publish(None);
    assert!(
        bench.event(Event::NoResponders { attempt: 0 }).is_empty(),
        "a late one changes nothing"
    );
    assert_eq!(bench.event(Event::NoResponders { attempt: 1 }), [Action::Place]);
    assert!(bench.state.queue_empty());
    assert!(
        !bench.state.may_wait_for_worker(bench.now, false),
        "it never had a worker"
    );
}

#[test]
fn a_hole_moves_the_stream_with_what_was_delivered() {
    let mut bench = Bench::running("a");
    bench.frame("a", 0, 1, delta("x "));
    assert!(bench.frame("a", 0, 1, delta("x ")).is_empty(), "a duplicate is dropped");
    let actions = bench.frame("a", 0, 3, delta("z "));
    assert_eq!(
        actions,
        [
            Action::Cancel {
                worker: name("a"),
                attempt: 0
            },
            Action::Place
        ]
    );
    let second = bench.publish(Some("b"));
    assert_eq!((second.attempt, second.floor), (1, 1), "the old run is dead");
    let resume = second.resume.unwrap();
    assert_eq!((resume.choices[0].text.as_str(), resume.choices[0].tokens), ("x ", 1));
    bench.frame("b", 1, 0, accepted("b"));
    assert_eq!(texts(&bench.frame("b", 1, 1, delta("y "))), "y ");
    let actions = bench.frame("b", 1, 2, finish(1));
    assert!(
        matches!(&actions[..], [Action::Output(Output::Finish(f))] if f.completion_tokens == Some(2)),
        "counted once"
    );
}

#[test]
fn a_lost_accept_is_a_hole_too() {
    let mut bench = Bench::new();
    bench.publish(Some("a"));
    let actions = bench.frame("a", 0, 1, delta("x"));
    assert_eq!(
        actions,
        [
            Action::Cancel {
                worker: name("a"),
                attempt: 0
            },
            Action::Place
        ]
    );
    assert!(
        bench.frame("a", 0, 2, delta("y")).is_empty(),
        "cancelled once, not for each frame"
    );
    assert_eq!(
        bench.frame("a", 0, 3, Body::Alive(Alive::default())).len(),
        1,
        "but again if it goes on"
    );
}

#[test]
fn silence_is_a_loss_and_a_sign_of_life_is_not() {
    let mut bench = Bench::running("a");
    for seq in 1..300 {
        assert!(bench.pass(Duration::from_millis(100)).is_empty());
        assert!(bench.frame("a", 0, seq, Body::Alive(Alive::default())).is_empty());
    }
    assert!(bench.pass(limits::STALL - Duration::from_millis(1)).is_empty());
    assert_eq!(bench.pass(Duration::from_millis(1)).last(), Some(&Action::Place));
}

#[test]
fn a_worker_that_is_gone_is_left_at_once_and_others_do_not_matter() {
    let mut bench = Bench::running("a");
    assert!(bench.event(Event::WorkerGone { worker: name("b") }).is_empty());
    assert_eq!(
        bench.event(Event::WorkerGone { worker: name("a") }).last(),
        Some(&Action::Place)
    );
    assert_eq!(bench.state.excluded(), [name("a")]);
    assert!(
        bench.state.may_wait_for_worker(bench.now, false),
        "it had one a moment ago"
    );
    bench.now += limits::NO_WORKER_GRACE;
    assert!(!bench.state.may_wait_for_worker(bench.now, false));
}

#[test]
fn after_a_reconnect_a_stream_that_says_nothing_is_lost_sooner() {
    let mut bench = Bench::running("a");
    bench.now += Duration::from_secs(1);
    assert!(bench.event(Event::LinkRestored).is_empty());
    assert!(
        bench
            .pass(limits::AFTER_RECONNECT - Duration::from_millis(1))
            .is_empty()
    );
    assert_eq!(bench.pass(Duration::from_millis(1)).last(), Some(&Action::Place));

    let mut bench = Bench::running("a");
    bench.event(Event::LinkRestored);
    bench.frame("a", 0, 1, Body::Alive(Alive::default()));
    assert!(bench.pass(limits::AFTER_RECONNECT).is_empty(), "it lives");
    assert!(
        Bench::new().state.may_wait_for_worker(Instant::now(), true),
        "workers are on their way back"
    );
}

#[test]
fn a_worker_that_was_restarted_has_lost_its_streams() {
    let mut bench = Bench::running("a");
    let instance = |worker: &str, instance| Event::WorkerInstance {
        worker: name(worker),
        instance,
    };
    assert!(bench.event(instance("a", 1)).is_empty(), "the life that accepted it");
    assert!(bench.event(instance("b", 2)).is_empty());
    assert_eq!(bench.event(instance("a", 2)).last(), Some(&Action::Place));
}

#[test]
fn what_cannot_be_continued_ends_honestly() {
    let mut bench = Bench::with(Some("its output follows a grammar"));
    bench.publish(Some("a"));
    bench.frame("a", 0, 0, accepted("a"));
    bench.frame("a", 0, 1, delta("{"));
    let actions = bench.event(Event::WorkerGone { worker: name("a") });
    assert!(matches!(failed(&actions), Some(CallError::WorkerLost { reason }) if reason.contains("grammar")));

    let mut early = Bench::with(Some("its output follows a grammar"));
    early.publish(Some("a"));
    early.frame("a", 0, 0, accepted("a"));
    let actions = early.event(Event::WorkerGone { worker: name("a") });
    assert_eq!(actions.last(), Some(&Action::Place), "nothing was delivered yet");
}

#[test]
fn errors_are_retried_when_that_may_help_and_not_for_ever() {
    let mut bench = Bench::running("a");
    let actions = bench.frame("a", 0, 1, error(ErrorCode::BadRequest, false));
    assert!(matches!(failed(&actions), Some(CallError::Engine(e)) if e.code == ErrorCode::BadRequest));

    for (code, runs) in [
        (ErrorCode::Timeout, limits::MAX_RUNS),
        (ErrorCode::Internal, limits::MAX_OWN_ERRORS),
    ] {
        let mut bench = Bench::running("w0");
        for run in 0..runs - 1 {
            let worker = format!("w{run}");
            assert_eq!(bench.frame(&worker, run, 1, error(code, true)), [Action::Place]);
            let next = format!("w{}", run + 1);
            bench.publish(Some(&next));
            bench.frame(&next, run + 1, 0, accepted(&next));
        }
        let last = runs - 1;
        assert!(failed(&bench.frame(&format!("w{last}"), last, 1, error(code, true))).is_some());
    }
}

#[test]
fn a_drained_worker_is_no_failure() {
    let mut bench = Bench::running("w0");
    for run in 0..20 {
        let (worker, next) = (format!("w{run}"), format!("w{}", run + 1));
        assert_eq!(
            bench.frame(&worker, run, 1, error(ErrorCode::Draining, true)),
            [Action::Place],
            "run {run}"
        );
        bench.publish(Some(&next));
        bench.frame(&next, run + 1, 0, accepted(&next));
    }
}

#[path = "state_end_tests.rs"]
mod end;

#[path = "state_losses_tests.rs"]
mod losses;

#[path = "state_order_tests.rs"]
mod order;

#[path = "state_model_tests.rs"]
mod model;
