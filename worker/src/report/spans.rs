//! The trace of one attempt at its worker: the attempt, and the engine's part of it. Made at the end; until then three
//! times are kept.

use std::time::{Instant, SystemTime};

use tokenbus_protocol::{Body, ErrorCode, Finish, Name, RequestKind};
use tokenbus_telemetry::{Ids, Kind, Span, Trace, Tracer, names};
use uuid::Uuid;

use crate::report::metrics::Outcome;
use crate::report::reading::cached;

/// The engine's number among the calls of a worker's span.
pub(crate) const ENGINE_CALL: u32 = 0;

/// What a stream keeps for its trace.
#[derive(Debug)]
pub(crate) struct Traced {
    /// Where the spans go.
    pub(crate) tracer: Tracer,
    /// The trace.
    pub(crate) trace: Trace,
    /// The worker.
    pub(crate) worker: Name,
    /// The engine's name.
    pub(crate) engine: &'static str,
    /// The request.
    pub(crate) id: Uuid,
    /// The attempt.
    pub(crate) attempt: u32,
    /// Its API family.
    pub(crate) kind: RequestKind,
    /// The model.
    pub(crate) model: String,
    /// When it came.
    pub(crate) arrived: Instant,
    /// When the engine got it.
    pub(crate) started: Option<Instant>,
    /// When its first output came.
    pub(crate) first_output: Option<Instant>,
}

/// How an attempt ended.
#[derive(Debug, Clone)]
pub(crate) struct End {
    outcome: Outcome,
    error: Option<&'static str>,
    prompt: Option<u64>,
    cached: Option<u64>,
    completion: Option<u64>,
}

impl End {
    /// The end with the frame `last`.
    pub(crate) fn of(last: Option<&Body<'_>>, outcome: Outcome) -> Self {
        let finish = |of: fn(&Finish) -> Option<u64>| match last {
            Some(Body::Finish(finish)) => of(finish),
            _ => None,
        };
        Self {
            outcome,
            error: match last {
                Some(Body::Error(error)) => Some(error.code.as_str()),
                _ => None,
            },
            prompt: finish(|finish| finish.prompt_tokens),
            cached: finish(cached),
            completion: finish(|finish| finish.completion_tokens),
        }
    }
}

impl End {
    /// Whether the worker or its engine failed. A request that the engine refuses is its client's failure.
    fn is_failure(&self) -> bool {
        self.outcome == Outcome::Failed && self.error != Some(ErrorCode::BadRequest.as_str())
    }
}

impl Traced {
    /// Tells the spans of the attempt, which ended at `now` after `tokens`, if they are to be told.
    pub(crate) fn tell(&self, end: &End, tokens: u64, now: Instant) {
        let failed = end.is_failure() || end.outcome == Outcome::HandedOver;
        let first = self.first_output.unwrap_or(now).saturating_duration_since(self.arrived);
        if let Some(ids) = self.tracer.wants(&self.trace, failed, first) {
            self.tracer.tell(ids, self.spans(ids, end, tokens, now));
        }
    }

    fn spans(&self, ids: &Ids, end: &End, tokens: u64, now: Instant) -> Vec<Span> {
        let clock = SystemTime::now();
        let time = |at: Instant| clock.checked_sub(now.saturating_duration_since(at)).unwrap_or(clock);
        let since = |at: Instant, from: Instant| at.saturating_duration_since(from).as_secs_f64();
        let operation = match self.kind {
            RequestKind::Completion => "text_completion",
            kind => kind.as_str(),
        };
        let name = format!("{operation} {}", self.model);
        let failed = end.is_failure();
        let error = end.error.or_else(|| failed.then_some("failed"));
        let span = |place, kind, from| {
            let mut span = Span::new(place, kind, &name, (time(from), clock))
                .with(names::OPERATION, operation)
                .with(names::REQUEST_MODEL, self.model.as_str())
                .with_some(names::ERROR_TYPE, error);
            span.failed = failed;
            span
        };
        let waited = self.started.unwrap_or(now);
        let attempt = span((ids.span(), ids.parent()), Kind::Server, self.arrived)
            .with(names::PROVIDER, "tokenbus")
            .with(names::WORKER, self.worker.as_str())
            .with(names::CALL_ID, self.id.to_string().as_str())
            .with(names::ATTEMPT, u64::from(self.attempt))
            .with(names::WAIT, since(waited, self.arrived))
            .with(names::OUTCOME, end.outcome.as_str())
            .with_some(
                names::FIRST_CHUNK,
                self.first_output.map(|first| since(first, self.arrived)),
            )
            .with_some(names::INPUT_TOKENS, end.prompt)
            .with_some(names::CACHED_TOKENS, end.cached)
            .with(names::OUTPUT_TOKENS, end.completion.unwrap_or(tokens));
        let engine = self.started.map(|started| {
            span((ids.call(ENGINE_CALL), Some(ids.span())), Kind::Client, started)
                .with(names::PROVIDER, self.engine)
                .with_some(names::FIRST_CHUNK, self.first_output.map(|first| since(first, started)))
        });
        [Some(attempt), engine].into_iter().flatten().collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use std::time::Duration;

    use tokenbus_protocol::{EngineError, ErrorCode};
    use tokenbus_telemetry::Value;

    use super::*;

    fn traced(sampled: bool) -> (Traced, impl FnMut() -> Vec<Span>) {
        let (tracer, mut waiting) = Tracer::to_channel(8, sampled, Duration::from_secs(5));
        let now = Instant::now();
        let traced = Traced {
            trace: tracer.begin(None),
            tracer,
            worker: Name::new("w").unwrap(),
            engine: "sim",
            id: Uuid::nil(),
            attempt: 1,
            kind: RequestKind::Chat,
            model: "m".to_owned(),
            arrived: now,
            started: Some(now + Duration::from_millis(100)),
            first_output: Some(now + Duration::from_millis(350)),
        };
        let told = move || {
            std::iter::from_fn(|| waiting.try_recv().ok())
                .map(|(_, span)| span)
                .collect()
        };
        (traced, told)
    }

    #[test]
    fn the_engines_span_is_the_one_that_the_engine_is_told_of() {
        let (traced, mut told) = traced(true);
        let finish = Finish {
            prompt_tokens: Some(7),
            completion_tokens: Some(5),
            ..Finish::default()
        };
        let end = End::of(Some(&Body::Finish(finish)), Outcome::Finished);
        traced.tell(&end, 3, traced.arrived + Duration::from_secs(1));
        let spans = told();
        let [attempt, engine] = &spans[..] else {
            unreachable!("{spans:?}");
        };
        assert_eq!((attempt.kind, engine.kind), (Kind::Server, Kind::Client));
        assert_eq!(engine.parent, Some(attempt.id));
        let header = traced.trace.for_call(ENGINE_CALL).unwrap().parent;
        assert!(header.contains(&format!("-{:016x}-", engine.id)), "{header}");
        assert_eq!(attempt.attribute(names::INPUT_TOKENS), Some(&Value::Count(7)));
        assert_eq!(attempt.attribute(names::OUTPUT_TOKENS), Some(&Value::Count(5)));
        assert_eq!(attempt.attribute(names::WAIT), Some(&Value::Seconds(0.1)));
        assert_eq!(engine.attribute(names::FIRST_CHUNK), Some(&Value::Seconds(0.25)));
        assert_eq!(
            engine.end.duration_since(engine.start).unwrap(),
            Duration::from_millis(900)
        );
    }

    #[test]
    fn a_failure_is_told_with_its_code_and_without_its_words() {
        let (traced, mut told) = traced(false);
        let end = |last| End::of(last, Outcome::Failed);
        traced.tell(
            &End::of(None, Outcome::Finished),
            3,
            traced.arrived + Duration::from_secs(1),
        );
        assert!(told().is_empty());
        let error = Body::Error(EngineError {
            code: ErrorCode::Internal,
            message: "my prompt".to_owned(),
            param: None,
            engine_code: None,
            retryable: false,
            retry_after_ms: None,
        });
        traced.tell(&end(Some(&error)), 3, traced.arrived + Duration::from_secs(1));
        let spans = told();
        assert!(spans.len() == 2 && spans.iter().all(|span| span.failed));
        assert_eq!(spans[0].attribute(names::ERROR_TYPE), Some(&Value::from("internal")));
        assert!(!format!("{spans:?}").contains("my prompt"));
    }
}
