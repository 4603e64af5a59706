//! Tests of the spans that are made of a story.

use tokenbus_protocol::Name;
use tokenbus_telemetry::Value;
use uuid::Uuid;

use super::*;

const SECRET: &str = "my prompt";

fn step(after_ms: u64, kind: StepKind, attempt: u32, worker: &str) -> Step {
    Step {
        after_ms,
        kind,
        attempt: Some(attempt),
        worker: Some(Name::new(worker).unwrap()),
        cause: (kind == StepKind::Left).then_some(LeftCause::Gone),
        why: (kind != StepKind::Sent).then(|| SECRET.to_owned()),
    }
}

fn story(steps: Vec<Step>) -> Story {
    Story {
        request: "r".to_owned(),
        call: Some(Uuid::now_v7()),
        api: "/v1/chat/completions".to_owned(),
        key: Some("app".to_owned()),
        tenant: None,
        model: Some("alias".to_owned()),
        served: Some("m".to_owned()),
        worker: Some(Name::new("b").unwrap()),
        at_ms: 7,
        attempts: 2,
        steps,
        more_steps: 0,
        wait_ms: 20,
        outcome: UsageOutcome::Succeeded,
        status: 200,
        code: None,
        error: None,
        prompt_tokens: 12,
        cached_tokens: 4,
        completion_tokens: 9,
        ttft_ms: Some(50),
        itl_p99_ms: None,
        duration_ms: 1000,
    }
}

fn told(story: &Story, sampled: bool) -> Vec<Span> {
    let (tracer, mut waiting) = Tracer::to_channel(64, sampled, Duration::from_secs(5));
    let trace = tracer.begin(None);
    tell(&tracer, &trace, Some(RequestKind::Chat), story, SystemTime::now());
    std::iter::from_fn(|| waiting.try_recv().ok())
        .map(|(_, span)| span)
        .collect()
}

fn failover() -> Story {
    story(vec![
        step(10, StepKind::Sent, 0, "a"),
        step(20, StepKind::Accepted, 0, "a"),
        step(400, StepKind::Left, 0, "a"),
        step(410, StepKind::Sent, 1, "b"),
        step(420, StepKind::Accepted, 1, "b"),
    ])
}

#[test]
fn a_moved_request_is_one_span_with_two_attempts_in_it() {
    let spans = told(&failover(), true);
    let [request, first, second] = &spans[..] else {
        unreachable!("{spans:?}");
    };
    assert_eq!(
        (request.kind, request.failed, request.parent),
        (Kind::Server, false, None)
    );
    assert_eq!(
        request.end.duration_since(request.start).unwrap(),
        Duration::from_secs(1)
    );
    for (name, value) in [
        (names::OPERATION, Value::from("chat")),
        (names::REQUEST_MODEL, Value::from("alias")),
        (names::RESPONSE_MODEL, Value::from("m")),
        (names::INPUT_TOKENS, Value::Count(12)),
        (names::CACHED_TOKENS, Value::Count(4)),
        (names::OUTPUT_TOKENS, Value::Count(9)),
        (names::FIRST_CHUNK, Value::Seconds(0.05)),
        (names::HTTP_STATUS, Value::Count(200)),
    ] {
        assert_eq!(request.attribute(name), Some(&value), "{name}");
    }
    for attempt in [first, second] {
        assert_eq!((attempt.parent, attempt.kind), (Some(request.id), Kind::Client));
        assert_eq!(attempt.name, "chat m");
        assert_eq!(attempt.notes[0].name, "accepted");
    }
    assert_ne!(first.id, second.id);
    let after = |time: SystemTime| time.duration_since(request.start).unwrap().as_millis();
    assert_eq!((after(first.start), after(first.end)), (10, 400));
    assert_eq!((after(second.start), after(second.end)), (410, 1000));
    assert_eq!((first.failed, second.failed), (true, false));
    assert_eq!(first.attribute(names::ERROR_TYPE), Some(&Value::from("gone")));
    assert_eq!(second.attribute(names::ERROR_TYPE), None);
    assert!(!format!("{spans:?}").contains(SECRET), "words of engines stay out");
}

#[test]
fn what_went_wrong_or_was_slow_is_told_and_the_rest_is_as_decided() {
    let good = story(vec![
        step(10, StepKind::Sent, 0, "b"),
        step(11, StepKind::Accepted, 0, "b"),
    ]);
    assert_eq!(told(&good, true).len(), 2);
    assert!(told(&good, false).is_empty());
    assert_eq!(told(&failover(), false).len(), 3);
    let mut broken = good.clone();
    broken.code = Some("engine_error".to_owned());
    broken.error = Some(SECRET.to_owned());
    (broken.outcome, broken.status) = (UsageOutcome::Failed, 502);
    let spans = told(&broken, false);
    assert!(spans.len() == 2 && spans.iter().all(|span| span.failed));
    assert_eq!(
        spans[1].attribute(names::ERROR_TYPE),
        Some(&Value::from("engine_error"))
    );
    assert!(!format!("{spans:?}").contains(SECRET));
    let mut slow = good.clone();
    slow.ttft_ms = Some(5001);
    assert_eq!(told(&slow, false).len(), 2);
    let mut refused = good.clone();
    refused.steps.push(step(20, StepKind::Left, 0, "b"));
    (refused.outcome, refused.status) = (UsageOutcome::Rejected, 400);
    assert!(
        told(&refused, false).is_empty(),
        "an engine's refusal is the client's fault"
    );
    let mut full = good;
    (full.outcome, full.status) = (UsageOutcome::Rejected, 429);
    assert!(told(&full, false).is_empty(), "a client over its limits is no fault");
}

#[test]
fn attempts_that_nobody_took_end_where_that_was_known() {
    let steps = vec![
        step(0, StepKind::Sent, 0, "a"),
        step(5, StepKind::Refused, 0, "a"),
        step(6, StepKind::Sent, 1, "c"),
        step(300, StepKind::Sent, 2, "b"),
        // Another model's attempts begin at 0 again.
        step(310, StepKind::Unanswered, 2, "b"),
        step(320, StepKind::Sent, 0, "b"),
        step(330, StepKind::Accepted, 0, "b"),
    ];
    let spans = told(&story(steps), true);
    let start = spans[0].start;
    let seen: Vec<(u128, Option<&Value>)> = spans[1..]
        .iter()
        .map(|span| {
            (
                span.end.duration_since(start).unwrap().as_millis(),
                span.attribute(names::OUTCOME),
            )
        })
        .collect();
    let outcomes = ["refused", "unanswered", "unanswered", "succeeded"].map(Value::from);
    let expected = [5, 300, 310, 1000].into_iter().zip(outcomes.iter().map(Some));
    assert_eq!(seen, expected.collect::<Vec<_>>());
}
