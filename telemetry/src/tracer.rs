//! What a process makes traces with: the decision at a request's beginning, and the queue of finished spans.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokenbus_bus::task::AbortOnDrop;
use tokenbus_protocol::TraceContext;
use tokio::sync::{mpsc, oneshot};

use crate::limits::FLUSH;
use crate::settings::{Settings, TelemetryError};
use crate::shared::{Queued, Role, Sampler, SpanCounts};
use crate::span::Span;
use crate::trace::{Ids, Trace};

/// Makes traces; clones share everything. One that is off hands on what it gets.
#[derive(Debug, Clone, Default)]
pub struct Tracer(Option<Arc<Inner>>);

struct Inner {
    sampler: Sampler,
    queue: mpsc::Sender<Queued>,
    counts: SpanCounts,
    slow: Duration,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner")
            .field("slow", &self.slow)
            .finish_non_exhaustive()
    }
}

/// The task that exports. It ends at once when this is dropped.
#[derive(Debug)]
pub struct Exporting {
    task: AbortOnDrop<()>,
    stop: oneshot::Sender<()>,
}

impl Exporting {
    /// Exports what waits, and ends. Takes a few seconds at most, also where the collector is away.
    pub async fn close(self) {
        // The task is gone only after a panic, which was logged.
        let _ = self.stop.send(());
        if tokio::time::timeout(FLUSH, self.task.ended()).await.is_err() {
            tracing::warn!("the last traces were not exported: the collector does not take them in time");
        }
    }
}

impl Tracer {
    /// A tracer as the environment wants it, for the process `instance`. It is off unless an endpoint is named. Requests
    /// whose first output took longer than `slow` are to be told in any case.
    ///
    /// # Errors
    /// [`TelemetryError`] when a variable has a value that is not understood.
    pub fn start(
        role: Role,
        instance: &str,
        slow: Duration,
        counts: SpanCounts,
    ) -> Result<(Self, Option<Exporting>), TelemetryError> {
        let Some(settings) = Settings::read(|name| std::env::var(name).ok())? else {
            return Ok((Self::default(), None));
        };
        let (queue, waiting) = mpsc::channel(settings.queue);
        let (stop, stopped) = oneshot::channel();
        let (sampler, task) = start(&settings, (role, instance), waiting, stopped, counts.clone())?;
        let inner = Inner {
            sampler,
            queue,
            counts,
            slow,
        };
        Ok((Self(Some(Arc::new(inner))), Some(Exporting { task, stop })))
    }

    /// A tracer for tests: its spans come out of the receiver.
    #[doc(hidden)]
    pub fn to_channel(spans: usize, sampled: bool, slow: Duration) -> (Self, mpsc::Receiver<(Ids, Span)>) {
        let (queue, waiting) = mpsc::channel(spans);
        let inner = Inner {
            sampler: Box::new(move |_, _| sampled),
            queue,
            counts: SpanCounts::default(),
            slow,
        };
        (Self(Some(Arc::new(inner))), waiting)
    }

    /// The trace of a request that came with `incoming`.
    pub fn begin(&self, incoming: Option<TraceContext>) -> Trace {
        match &self.0 {
            None => Trace::handed_on(incoming),
            Some(inner) => Trace::own(Ids::begin(incoming, &inner.sampler)),
        }
    }

    /// The ids of a request's spans if it is to be told: it was sampled, it `failed`, or its first output took longer
    /// than it should.
    pub fn wants<'t>(&self, trace: &'t Trace, failed: bool, first_output: Duration) -> Option<&'t Ids> {
        let inner = self.0.as_ref()?;
        let ids = trace.ids()?;
        (ids.is_sampled() || failed || first_output > inner.slow).then_some(ids)
    }

    /// Queues the spans of a finished request for export. Never waits: what the queue does not hold is dropped and
    /// counted.
    pub fn tell(&self, ids: &Ids, spans: Vec<Span>) {
        let Some(inner) = &self.0 else { return };
        for span in spans {
            if inner.queue.try_send((ids.clone(), span)).is_err() {
                inner.counts.add("dropped", 1);
            }
        }
    }

    /// Whether it makes spans.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }
}

#[cfg(feature = "otlp")]
fn start(
    settings: &Settings,
    process: (Role, &str),
    waiting: mpsc::Receiver<Queued>,
    stopped: oneshot::Receiver<()>,
    counts: SpanCounts,
) -> Result<(Sampler, AbortOnDrop<()>), TelemetryError> {
    let exporter = crate::otlp::Exporter::new(settings, process)?;
    let task = exporter.run(waiting, stopped, counts);
    let task = AbortOnDrop::new(tokenbus_bus::task::spawn("traces", task));
    Ok((crate::otlp::sampler(), task))
}

#[cfg(not(feature = "otlp"))]
fn start(
    _: &Settings,
    (role, _): (Role, &str),
    _: mpsc::Receiver<Queued>,
    _: oneshot::Receiver<()>,
    _: SpanCounts,
) -> Result<(Sampler, AbortOnDrop<()>), TelemetryError> {
    let _ = role.service();
    Err(TelemetryError::NotBuilt)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::span::Kind;

    const SLOW: Duration = Duration::from_secs(1);

    fn span(id: u64) -> Span {
        let now = SystemTime::now();
        Span::new((id, None), Kind::Server, "s", (now, now))
    }

    #[test]
    fn failed_and_slow_requests_are_told_whatever_was_decided() {
        let (tracer, _waiting) = Tracer::to_channel(8, false, SLOW);
        let trace = tracer.begin(None);
        assert!(tracer.wants(&trace, false, SLOW).is_none());
        assert!(tracer.wants(&trace, true, Duration::ZERO).is_some());
        assert!(tracer.wants(&trace, false, SLOW * 2).is_some());
        let (tracer, _waiting) = Tracer::to_channel(8, true, SLOW);
        assert!(tracer.wants(&tracer.begin(None), false, Duration::ZERO).is_some());
        let off = Tracer::default();
        assert!(off.wants(&off.begin(None), true, SLOW * 2).is_none());
    }

    #[test]
    fn a_full_queue_drops_and_counts_and_never_waits() {
        let (tracer, mut waiting) = Tracer::to_channel(2, true, SLOW);
        let trace = tracer.begin(None);
        tracer.tell(trace.ids().unwrap(), (1..=5).map(span).collect());
        assert_eq!(tracer.0.as_ref().unwrap().counts.dropped(), 3);
        assert_eq!(waiting.try_recv().unwrap().1.id, 1);
        assert_eq!(waiting.try_recv().unwrap().1.id, 2);
    }
}
