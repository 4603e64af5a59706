//! A request's story as spans of its trace: the request, and each of its attempts.

use std::time::{Duration, SystemTime};

use tokenbus_protocol::{LeftCause, RequestKind, Step, StepKind, Story, UsageOutcome};
use tokenbus_telemetry::{Ids, Kind, Note, Span, Trace, Tracer, names};

/// Tells the trace of the request of `story`, which ended at `now`, if it is to be told.
pub(crate) fn tell(tracer: &Tracer, trace: &Trace, kind: Option<RequestKind>, story: &Story, now: SystemTime) {
    let first_output = Duration::from_millis(story.ttft_ms.unwrap_or(story.duration_ms));
    if let Some(ids) = tracer.wants(trace, went_wrong(story), first_output) {
        tracer.tell(ids, spans(ids, kind, story, now));
    }
}

/// Whether the cluster did not do as it should, even if another worker could help.
fn went_wrong(story: &Story) -> bool {
    let mut after = story.steps.iter().skip_while(|step| step.kind != StepKind::Left);
    is_failure(story) || after.any(|step| step.kind == StepKind::Sent)
}

fn is_failure(story: &Story) -> bool {
    story.outcome == UsageOutcome::Failed || story.status >= 500
}

fn spans(ids: &Ids, kind: Option<RequestKind>, story: &Story, end: SystemTime) -> Vec<Span> {
    let start = end.checked_sub(Duration::from_millis(story.duration_ms)).unwrap_or(end);
    let operation = operation(kind);
    let mut spans = vec![request(ids, operation, story, (start, end))];
    let sent = story
        .steps
        .iter()
        .enumerate()
        .filter(|(_, step)| step.kind == StepKind::Sent);
    for (number, (index, step)) in (0..).zip(sent) {
        let later = story.steps.get(index + 1..).unwrap_or_default();
        let place = (ids.call(number), Some(ids.span()));
        spans.push(attempt(place, operation, story, (step, later), (start, end)));
    }
    spans
}

fn request(ids: &Ids, operation: Option<&'static str>, story: &Story, times: (SystemTime, SystemTime)) -> Span {
    let served = story
        .worker
        .as_ref()
        .and(story.served.as_deref().or(story.model.as_deref()));
    let counted = |tokens: u64| story.worker.as_ref().map(|_| tokens);
    let name = format!("POST {}", story.api);
    let mut span = Span::new((ids.span(), ids.parent()), Kind::Server, &name, times)
        .with(names::HTTP_METHOD, "POST")
        .with(names::HTTP_ROUTE, story.api.as_str())
        .with(names::HTTP_STATUS, u64::from(story.status))
        .with_some(names::OPERATION, operation)
        .with(names::PROVIDER, "tokenbus")
        .with_some(names::REQUEST_MODEL, story.model.as_deref())
        .with_some(names::RESPONSE_MODEL, served)
        .with_some(names::FIRST_CHUNK, story.ttft_ms.map(seconds))
        .with_some(names::INPUT_TOKENS, counted(story.prompt_tokens))
        .with_some(names::CACHED_TOKENS, counted(story.cached_tokens))
        .with_some(names::OUTPUT_TOKENS, counted(story.completion_tokens))
        .with(names::REQUEST_ID, story.request.as_str())
        .with_some(names::CALL_ID, story.call.map(|id| id.to_string()).as_deref())
        .with_some(names::KEY, story.key.as_deref())
        .with_some(names::TENANT, story.tenant.as_deref())
        .with_some(names::WORKER, story.worker.as_ref().map(|worker| worker.as_str()))
        .with(names::ATTEMPTS, u64::from(story.attempts))
        .with(names::WAIT, seconds(story.wait_ms))
        .with(names::OUTCOME, story.outcome.as_str())
        .with_some(names::ERROR_TYPE, error_type(story));
    let waits = story.steps.iter().filter(|step| step.kind == StepKind::Waits);
    span.notes = waits.map(|step| note("waits for a free slot", times, step)).collect();
    span.failed = is_failure(story);
    span
}

/// The attempt that began with `sent`; `later` are the steps after it, of this and of other attempts.
fn attempt(
    place: (u64, Option<u64>),
    operation: Option<&'static str>,
    story: &Story,
    (sent, later): (&Step, &[Step]),
    (start, end): (SystemTime, SystemTime),
) -> Span {
    let of_it = later
        .iter()
        .take_while(|step| step.kind != StepKind::Sent || step.attempt != sent.attempt);
    let of_it = of_it.filter(|step| step.attempt == sent.attempt);
    let accepted = of_it.clone().find(|step| step.kind == StepKind::Accepted);
    let over = of_it.clone().find(|step| {
        let kinds = [StepKind::Left, StepKind::Refused, StepKind::Unanswered];
        kinds.contains(&step.kind)
    });
    // Of an attempt that nobody answered, the next one is the end.
    let next = later
        .iter()
        .find(|step| step.kind == StepKind::Sent && accepted.is_none());
    let until = over.or(next);
    let (outcome, failed) = match over.map(|step| step.kind) {
        Some(StepKind::Left) => (
            over.and_then(|step| step.cause).unwrap_or(LeftCause::Other).as_str(),
            true,
        ),
        Some(StepKind::Refused) => ("refused", false),
        Some(_) => ("unanswered", true),
        None if next.is_some() => ("unanswered", false),
        None => (story.outcome.as_str(), is_failure(story)),
    };
    let model = story.served.as_deref().or(story.model.as_deref()).unwrap_or_default();
    let name = format!("{} {model}", operation.unwrap_or("call"));
    let worker = accepted.unwrap_or(sent).worker.as_ref().or(sent.worker.as_ref());
    let times = (at(start, end, sent), until.map_or(end, |step| at(start, end, step)));
    let error = if over.is_some() {
        Some(outcome)
    } else {
        error_type(story)
    };
    let mut span = Span::new(place, Kind::Client, &name, times)
        .with_some(names::OPERATION, operation)
        .with(names::PROVIDER, "tokenbus")
        .with_some(names::REQUEST_MODEL, Some(model).filter(|model| !model.is_empty()))
        .with(names::ATTEMPT, u64::from(sent.attempt.unwrap_or_default()))
        .with_some(names::WORKER, worker.map(|worker| worker.as_str()))
        // The gateway's own words, unlike those of the other steps, which may come from an engine.
        .with_some(names::PLACEMENT, sent.why.as_deref())
        .with(names::OUTCOME, outcome)
        .with_some(names::ERROR_TYPE, error.filter(|_| failed));
    span.notes = accepted
        .iter()
        .map(|step| note("accepted", (start, end), step))
        .collect();
    span.failed = failed;
    span
}

/// The error's code. Its text may quote the client or an engine, and stays out.
fn error_type(story: &Story) -> Option<&str> {
    match &story.code {
        Some(code) => Some(code),
        None if story.outcome != UsageOutcome::Succeeded => Some(story.outcome.as_str()),
        None => None,
    }
}

fn note(name: &'static str, (start, end): (SystemTime, SystemTime), step: &Step) -> Note {
    Note {
        name,
        at: at(start, end, step),
    }
}

fn at(start: SystemTime, end: SystemTime, step: &Step) -> SystemTime {
    (start + Duration::from_millis(step.after_ms)).min(end)
}

fn seconds(ms: u64) -> f64 {
    Duration::from_millis(ms).as_secs_f64()
}

/// What the conventions call a kind of request.
fn operation(kind: Option<RequestKind>) -> Option<&'static str> {
    Some(match kind? {
        RequestKind::Completion => "text_completion",
        kind => kind.as_str(),
    })
}

#[cfg(test)]
#[path = "spans_tests.rs"]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;
