//! Tests of one simulated sequence.

use std::sync::{Arc, Mutex};

use tokenbus_engine::Closed;
use tokenbus_protocol::{Resume, ResumeChoice};

use super::super::plan::tests::job;
use super::*;

/// What a sink was given.
#[derive(Debug, Default)]
pub(in crate::engine) struct Seen {
    pub(in crate::engine) deltas: Vec<Delta<'static>>,
    pub(in crate::engine) finish: Option<Finish>,
    pub(in crate::engine) error: Option<EngineError>,
    pub(in crate::engine) dropped: bool,
    pub(in crate::engine) closed: bool,
}

impl Seen {
    pub(in crate::engine) fn text(&self, choice: u32) -> String {
        self.deltas
            .iter()
            .filter(|d| d.choice == choice)
            .map(|d| d.text.as_ref())
            .collect()
    }
}

pub(in crate::engine) type Shared = Arc<Mutex<Seen>>;

struct Recorder(Shared);

impl Sink for Recorder {
    fn delta(&mut self, delta: Delta<'_>) -> Result<(), Closed> {
        let mut seen = self.0.lock().unwrap();
        if seen.closed {
            return Err(Closed);
        }
        seen.deltas.push(delta.into_owned());
        Ok(())
    }
    fn finish(self: Box<Self>, finish: Finish) {
        self.0.lock().unwrap().finish = Some(finish);
    }
    fn fail(self: Box<Self>, error: EngineError) {
        self.0.lock().unwrap().error = Some(error);
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.0.lock().unwrap().dropped = true;
    }
}

pub(in crate::engine) fn sequence(body: &str, resume: Option<Resume>) -> (Sequence, Shared) {
    let plan = Plan::new(&job(body, resume), None).unwrap();
    let seen = Shared::default();
    (Sequence::new(plan, Box::new(Recorder(Arc::clone(&seen)))), seen)
}

fn run(body: &str, resume: Option<Resume>) -> (Seen, usize) {
    let (mut sequence, seen) = sequence(body, resume);
    let mut steps = 1;
    while sequence.step() == StepOutcome::More {
        steps += 1;
        assert!(steps < 1000);
    }
    drop(sequence);
    (Arc::try_unwrap(seen).unwrap().into_inner().unwrap(), steps)
}

fn had(text: &str, tokens: u64) -> Option<Resume> {
    Some(Resume {
        choices: vec![ResumeChoice {
            text: text.to_owned(),
            tokens,
            ..ResumeChoice::default()
        }],
    })
}

#[test]
fn tokens_in_order_then_length() {
    let (seen, steps) = run(r#"{"max_tokens":3,"messages":[{"content":"a b"}]}"#, None);
    assert_eq!((seen.text(0).as_str(), steps), ("t0 t1 t2 ", 3));
    assert!(seen.deltas.iter().all(|d| d.tokens == 1));
    assert_eq!(seen.deltas[2].finish_reason.as_deref(), Some("length"));
    assert_eq!(seen.deltas[1].finish_reason, None);
    let finish = seen.finish.unwrap();
    assert_eq!((finish.prompt_tokens, finish.completion_tokens), (Some(2), Some(3)));
}

#[test]
fn choices_side_by_side() {
    let (seen, steps) = run(r#"{"max_tokens":2,"n":3}"#, None);
    assert_eq!(steps, 2);
    for choice in 0..3 {
        assert_eq!(seen.text(choice), "t0 t1 ");
    }
    assert_eq!(seen.finish.unwrap().completion_tokens, Some(6));
}

#[test]
fn no_tokens_at_all_still_is_an_answer() {
    let (seen, _) = run(r#"{"max_tokens":0}"#, None);
    assert_eq!(seen.deltas.len(), 1);
    assert_eq!(
        (
            seen.deltas[0].finish_reason.as_deref(),
            seen.deltas[0].text.as_ref(),
            seen.deltas[0].tokens
        ),
        (Some("length"), "", 0)
    );
    assert_eq!(seen.finish.unwrap().completion_tokens, Some(0));
}

#[test]
fn whatever_was_delivered_the_rest_follows_exactly() {
    let whole = run(r#"{"max_tokens":12}"#, None).0.text(0);
    for cut in 0..=12_u64 {
        let before: String = (0..cut).map(|n| format!("t{n} ")).collect();
        let (seen, _) = run(r#"{"max_tokens":12}"#, had(&before, cut));
        assert_eq!(format!("{before}{}", seen.text(0)), whole);
        assert_eq!(
            seen.finish.unwrap().completion_tokens,
            Some(12 - cut),
            "of this attempt alone"
        );
        assert_eq!(seen.deltas.last().unwrap().finish_reason.as_deref(), Some("length"));
    }
}

#[test]
fn a_complete_choice_is_not_generated_again() {
    let resume = Resume {
        choices: vec![ResumeChoice {
            index: 0,
            text: "t0 t1 ".into(),
            tokens: 2,
            finish_reason: Some("length".into()),
            ..ResumeChoice::default()
        }],
    };
    let (seen, _) = run(r#"{"max_tokens":2,"n":2}"#, Some(resume.clone()));
    assert_eq!((seen.text(0).as_str(), seen.text(1).as_str()), ("", "t0 t1 "));
    let (seen, _) = run(r#"{"max_tokens":2,"n":1}"#, Some(resume));
    assert!(seen.deltas.is_empty() && seen.finish.is_some());
}

#[test]
fn echo_is_the_body_byte_for_byte() {
    let body = r#"{"temperature":0.70,  "seed":12345678901234567890,"u":"é\u2028","sim":{"echo":true}}"#;
    let (seen, _) = run(body, None);
    assert_eq!(seen.text(0), body);
    assert_eq!(seen.deltas[0].finish_reason.as_deref(), Some("stop"));
    let (seen, _) = run(body, had(&body[..10], 1));
    assert_eq!(seen.text(0), &body[10..]);
}

#[test]
fn scripted_errors_strike_where_they_should() {
    let body = |at: u64| {
        format!(
            r#"{{"max_tokens":4,"sim":{{"error_after":{at},"error_code":"rate_limited","retry_after_ms":7,"retryable":true}}}}"#
        )
    };
    for at in 0..4 {
        let (seen, _) = run(&body(at), None);
        assert_eq!(seen.deltas.len() as u64, at);
        let error = seen.error.unwrap();
        assert_eq!(
            (error.code, error.retryable, error.retry_after_ms),
            (ErrorCode::RateLimited, true, Some(7))
        );
        assert!(seen.finish.is_none());
    }
    assert!(
        run(&body(2), had("t0 t1 ", 2)).0.finish.is_some(),
        "a resumed attempt is spared"
    );
    let always = r#"{"max_tokens":4,"sim":{"error_after":2,"always":true}}"#;
    assert!(run(always, had("t0 t1 ", 2)).0.error.is_some());
}

#[test]
fn scripted_silence_and_scripted_loss() {
    let (mut s, seen) = sequence(r#"{"sim":{"hang_after":2}}"#, None);
    assert_eq!(
        (s.step(), s.step(), s.step(), s.step()),
        (
            StepOutcome::More,
            StepOutcome::More,
            StepOutcome::Hangs,
            StepOutcome::Hangs
        )
    );
    assert_eq!(seen.lock().unwrap().deltas.len(), 2);
    assert!(!seen.lock().unwrap().dropped, "it hangs, it does not end");
    let (seen, _) = run(r#"{"sim":{"drop_after":1}}"#, None);
    assert!(seen.dropped && seen.finish.is_none() && seen.error.is_none());
    assert_eq!(seen.deltas.len(), 1);
}

#[test]
fn odd_output_comes_with_the_first_token() {
    let body = r#"{"max_tokens":2,"sim":{"reasoning":"hm \"so\"","delta":{"x":1.0},"choice":{"y":2},"chunk":{"z":3},
        "logprobs":{"content":[]},"fingerprint":"fp","finish_reason":"stop","usage":{"total_tokens":9}}}"#;
    let (seen, _) = run(body, None);
    let reasoning = seen.deltas[0].extra.as_ref().unwrap();
    assert_eq!(
        reasoning.delta.as_ref().unwrap().get(),
        r#"{"reasoning_content":"hm \"so\""}"#
    );
    let extra = seen.deltas[1].extra.as_ref().unwrap();
    assert_eq!(extra.delta.as_ref().unwrap().get(), r#"{"x":1.0}"#);
    assert_eq!(extra.fingerprint.as_deref(), Some("fp"));
    assert_eq!(seen.deltas[2].extra, None);
    assert_eq!(seen.deltas[2].finish_reason.as_deref(), Some("stop"));
    assert_eq!(seen.finish.unwrap().usage.unwrap().get(), r#"{"total_tokens":9}"#);
}

#[test]
fn when_nobody_listens_it_ends() {
    let (mut s, seen) = sequence("{}", None);
    assert_eq!(s.step(), StepOutcome::More);
    seen.lock().unwrap().closed = true;
    assert_eq!(s.step(), StepOutcome::Ended);
    assert!(seen.lock().unwrap().dropped);
}
