//! What the tracer and the exporter share: spans that wait, the decision of the sampler, who the process is, and counts.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use crate::span::Span;
use crate::trace::{Ids, Parent};

/// Decides at a request's beginning whether its trace is recorded: by the trace's id, and by what the caller decided.
pub(crate) type Sampler = Box<dyn Fn(u128, Option<Parent>) -> bool + Send + Sync>;

/// A span that waits for its export, with the trace that it belongs to.
pub(crate) type Queued = (Ids, Span);

/// Which kind of process it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A gateway.
    Gateway,
    /// A worker.
    Worker,
}

impl Role {
    /// The service's name, unless `OTEL_SERVICE_NAME` gives another.
    pub(crate) fn service(self) -> &'static str {
        match self {
            Self::Gateway => "tokenbus-gateway",
            Self::Worker => "tokenbus-worker",
        }
    }
}

/// How many spans were exported, and how many were not.
#[derive(Debug, Clone, Default)]
pub struct SpanCounts {
    spans: Family<Fate, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Fate {
    result: &'static str,
}

impl SpanCounts {
    /// Registers them as `trace_spans` under the prefix of the registry.
    pub fn register(&self, registry: &mut Registry) {
        for result in ["exported", "failed", "dropped"] {
            self.add(result, 0);
        }
        registry.register(
            "trace_spans",
            "Spans for the OpenTelemetry collector, by what became of them: exported, failed (the collector did not take \
             them), or dropped (the queue was full)",
            self.spans.clone(),
        );
    }

    pub(crate) fn add(&self, result: &'static str, spans: usize) {
        self.spans.get_or_create(&Fate { result }).inc_by(spans as u64);
    }

    #[cfg(feature = "otlp")]
    pub(crate) fn exported(&self, spans: usize) {
        self.add("exported", spans);
    }

    #[cfg(feature = "otlp")]
    pub(crate) fn failed(&self, spans: usize) {
        self.add("failed", spans);
    }

    /// Spans dropped because the queue was full.
    pub fn dropped(&self) -> u64 {
        self.spans
            .get(&Fate { result: "dropped" })
            .map_or(0, |counter| counter.get())
    }
}
