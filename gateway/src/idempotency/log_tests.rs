//! What readers find, when an answer is kept, and when a call has nobody left.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use tokenbus_api::limits::MAX_CHOICES;
use tokenbus_protocol::{Delta, Finish};

use super::*;

const LINGER: Duration = Duration::from_secs(10);
const LARGE: Bounds = Bounds {
    answer: 1_000_000,
    window: 1_000_000,
    choices: MAX_CHOICES,
};

fn log() -> Log {
    Log::new(LARGE)
}

fn delta(text: &str) -> Output {
    Output::Delta(Delta {
        text: text.to_owned().into(),
        ..Delta::default()
    })
}

fn finish() -> Output {
    Output::Finish(Finish::default())
}

fn refused(code: ErrorCode, retryable: bool) -> CallError {
    CallError::Engine(EngineError {
        code,
        message: "no".to_owned(),
        param: None,
        engine_code: None,
        retryable,
        retry_after_ms: None,
    })
}

fn is(read: &Read, expected: Output) {
    assert_eq!(*read, Read::Output(Arc::new(expected)));
}

#[test]
fn each_reader_reads_all_of_it_from_the_beginning() {
    let mut log = log();
    assert_eq!(log.read(0), Read::Wait);
    log.push(delta("a"));
    log.push(delta("b"));
    is(&log.read(0), delta("a"));
    is(&log.read(1), delta("b"));
    assert_eq!(log.read(2), Read::Wait);
    log.push(finish());
    is(&log.read(2), finish());
    assert_eq!(log.read(3), Read::Ended);
    is(&log.read(0), delta("a"));
}

#[test]
fn readers_share_what_they_read() {
    let mut log = log();
    log.push(delta("a"));
    let (Read::Output(one), Read::Output(other)) = (log.read(0), log.read(0)) else {
        panic!("no output");
    };
    assert!(Arc::ptr_eq(&one, &other));
}

#[test]
fn an_error_comes_after_what_was_said_before_it() {
    let mut log = log();
    log.push(delta("a"));
    log.end(End::Failed(CallError::SlowClient));
    is(&log.read(0), delta("a"));
    assert_eq!(log.read(1), Read::Failed(CallError::SlowClient));
}

#[test]
fn the_first_end_counts() {
    let mut log = log();
    log.push(delta("a"));
    log.push(finish());
    log.end(End::Failed(CallError::ShuttingDown));
    assert_eq!(log.read(2), Read::Ended);
    assert!(log.is_repeatable());
}

#[test]
fn a_running_call_and_a_whole_answer_can_be_repeated() {
    let mut log = log();
    assert!(log.attach());
    log.push(delta("a"));
    assert!(log.attach());
    log.push(finish());
    assert!(log.attach() && log.is_ended());
}

#[test]
fn a_finish_without_an_answer_is_not_kept() {
    let mut log = log();
    log.push(finish());
    assert!(!log.is_repeatable() && !log.attach());
}

#[test]
fn a_call_that_ends_without_a_word_is_not_kept() {
    let mut log = log();
    log.push(delta("a"));
    log.end(End::Silent);
    assert!(!log.is_repeatable());
    assert_eq!(log.read(1), Read::Ended);
}

#[test]
fn a_choice_that_no_client_can_be_told_of_spoils_the_answer() {
    let mut log = log();
    log.push(Output::Delta(Delta {
        choice: MAX_CHOICES,
        ..Delta::default()
    }));
    log.push(finish());
    assert!(!log.is_repeatable());
}

#[test]
fn refusals_of_the_request_itself_are_kept_and_failures_are_not() {
    use ErrorCode as C;
    let ends = |error: CallError| {
        let mut log = log();
        log.end(End::Failed(error));
        log.is_repeatable()
    };
    let lasting = [C::BadRequest, C::ContextLengthExceeded, C::ContentFilter, C::TooLarge];
    for code in C::ALL {
        assert_eq!(ends(refused(*code, false)), lasting.contains(code), "{code:?}");
        assert!(!ends(refused(*code, true)), "{code:?} may go better elsewhere");
        // Of what is kept, nothing is a 5xx or a 429.
        let status = crate::http::HttpError::from(refused(*code, false)).verdict().status;
        if lasting.contains(code) {
            assert!(status.is_client_error() && status.as_u16() != 429, "{code:?}");
        }
    }
    let second = Duration::from_secs(1);
    let model = || "m".to_owned();
    for error in [
        CallError::NoWorker {
            model: model(),
            retry_after: second,
        },
        CallError::Full {
            model: model(),
            retry_after: second,
        },
        CallError::UnknownModel {
            model: model(),
            known: vec![],
        },
        CallError::WorkerLost { reason: model() },
        CallError::BusDown { reason: model() },
        CallError::SlowClient,
        CallError::ShuttingDown,
        CallError::Internal(model()),
    ] {
        assert!(!ends(error.clone()), "{error}");
    }
}

#[test]
fn an_answer_over_its_bound_is_a_window_and_not_kept() {
    let each = weight(&delta("x"));
    let mut log = Log::new(Bounds {
        answer: 10 * each,
        window: 4 * each,
        ..LARGE
    });
    for _ in 0..10 {
        log.push(delta("x"));
    }
    assert!(log.is_whole());
    is(&log.read(0), delta("x"));
    log.push(delta("y"));
    assert!(!log.is_whole() && !log.is_repeatable() && !log.attach());
    // The newest four are there; who has not come as far is too slow, who has reads on.
    assert_eq!(log.read(6), Read::Failed(CallError::SlowClient));
    is(&log.read(7), delta("x"));
    is(&log.read(10), delta("y"));
    assert_eq!(log.read(11), Read::Wait);
    for _ in 0..1000 {
        log.push(delta("z"));
        assert!(log.bytes <= 4 * each && log.outputs.len() == 4);
    }
    log.push(finish());
    assert!(!log.is_repeatable());
    is(&log.read(1011), finish());
}

#[test]
fn a_released_answer_is_a_window_at_once() {
    let mut log = Log::new(Bounds { window: 0, ..LARGE });
    log.push(delta("a"));
    log.release();
    assert_eq!(log.read(0), Read::Failed(CallError::SlowClient));
    assert_eq!(log.read(1), Read::Wait);
}

#[test]
fn the_weight_counts_what_lies_on_the_heap() {
    let base = weight(&delta(""));
    assert_eq!(weight(&delta("12345")), base + 5);
    let rich = Output::Delta(Delta {
        token_ids: vec![1, 2],
        finish_reason: Some("stop".to_owned()),
        extra: Some(Box::default()),
        ..Delta::default()
    });
    assert!(weight(&rich) > base + 8 + 4);
    assert_eq!(log().push(delta("12345")), base + 5);
}

#[test]
fn a_call_is_cancelled_a_while_after_its_last_reader() {
    let now = Instant::now();
    let mut log = log();
    assert_eq!(log.cancel_at(LINGER, false), None);
    assert!(log.attach());
    log.detach(now);
    assert_eq!(log.cancel_at(LINGER, false), None, "one still reads");
    assert!(!log.abandon());
    log.detach(now + LINGER);
    assert_eq!(log.cancel_at(LINGER, false), Some(now + 2 * LINGER));
    // A repeat in time keeps it, and the time begins anew when that leaves.
    assert!(log.attach());
    assert_eq!(log.cancel_at(LINGER, false), None);
    log.detach(now + 5 * LINGER);
    assert_eq!(log.cancel_at(LINGER, false), Some(now + 6 * LINGER));
    assert!(log.abandon() && log.is_ended());
    assert!(!log.attach(), "too late: it runs anew");
}

#[test]
fn a_call_that_no_repeat_can_find_is_cancelled_with_its_last_reader() {
    let now = Instant::now();
    let mut log = log();
    log.detach(now);
    assert_eq!(log.cancel_at(LINGER, true), Some(now), "the gateway closes");
    log.release();
    assert_eq!(log.cancel_at(LINGER, false), Some(now), "the answer is not kept");
}
