//! The export by OTLP, over HTTP or gRPC, with OpenTelemetry's own crates. Spans leave in batches.

use opentelemetry::trace::{
    Event, SpanContext, SpanId, SpanKind, Status, TraceContextExt as _, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{Context, InstrumentationScope, KeyValue};
use opentelemetry_otlp::{SpanExporter, WithTonicConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SpanExporter as _;
use opentelemetry_sdk::trace::{Config, SamplingDecision, SpanData, SpanEvents, SpanLinks};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::settings::{Settings, TelemetryError};
use crate::shared::{Queued, Role, Sampler, SpanCounts};
use crate::span::{Kind, Note, Span, Value, names};
use crate::trace::{Ids, Parent};

/// Exports the spans of a process.
pub(crate) struct Exporter {
    exporter: SpanExporter,
    scope: InstrumentationScope,
    settings: Settings,
    /// Whether the last export failed, which was then logged.
    failing: bool,
}

/// The sampler that the environment names.
pub(crate) fn sampler() -> Sampler {
    let sampler = Config::default().sampler;
    Box::new(move |trace, parent| {
        let context = parent.map_or_else(Context::new, |parent| {
            Context::new().with_remote_span_context(remote(parent))
        });
        let trace = TraceId::from_bytes(trace.to_be_bytes());
        let result = sampler.should_sample(Some(&context), trace, "", &SpanKind::Server, &[], &[]);
        result.decision == SamplingDecision::RecordAndSample
    })
}

fn remote(parent: Parent) -> SpanContext {
    SpanContext::new(
        TraceId::from_bytes(parent.trace.to_be_bytes()),
        SpanId::from_bytes(parent.span.to_be_bytes()),
        TraceFlags::new(parent.flags),
        true,
        TraceState::NONE,
    )
}

impl Exporter {
    pub(crate) fn new(settings: &Settings, (role, instance): (Role, &str)) -> Result<Self, TelemetryError> {
        // One provider of cryptography for the process; if there is one, it is this one.
        drop(rustls::crypto::ring::default_provider().install_default());
        let built = if settings.grpc {
            let tls = opentelemetry_otlp::tonic_types::transport::ClientTlsConfig::new().with_enabled_roots();
            SpanExporter::builder().with_tonic().with_tls_config(tls).build()
        } else {
            SpanExporter::builder().with_http().build()
        };
        let mut exporter = built.map_err(|error| TelemetryError::Exporter(error.to_string()))?;
        exporter.set_resource(&resource(role, instance));
        Ok(Self {
            exporter,
            scope: InstrumentationScope::builder("tokenbus")
                .with_version(env!("CARGO_PKG_VERSION"))
                .with_schema_url(names::SCHEMA)
                .build(),
            settings: settings.clone(),
            failing: false,
        })
    }

    /// Exports what comes from `waiting`, until `stopped`; then what still waits.
    pub(crate) async fn run(
        mut self,
        mut waiting: mpsc::Receiver<Queued>,
        mut stopped: oneshot::Receiver<()>,
        counts: SpanCounts,
    ) {
        let mut batch = Vec::new();
        let mut stopping = false;
        while !stopping {
            tokio::select! {
                _ = &mut stopped => stopping = true,
                () = fill(&mut batch, &mut waiting, &self.settings) => {}
            }
            if stopping {
                waiting.close();
            }
            if batch.is_empty() && waiting.is_closed() {
                stopping = true;
            }
            self.export(&mut batch, &counts).await;
        }
        while waiting.recv_many(&mut batch, self.settings.batch).await > 0 {
            self.export(&mut batch, &counts).await;
        }
    }

    async fn export(&mut self, batch: &mut Vec<Queued>, counts: &SpanCounts) {
        let spans: Vec<SpanData> = batch.drain(..).map(|(ids, span)| self.data(&ids, span)).collect();
        let count = spans.len();
        if count == 0 {
            return;
        }
        match self.exporter.export(spans).await {
            Ok(()) => {
                counts.exported(count);
                if std::mem::take(&mut self.failing) {
                    tracing::info!("traces are exported again");
                }
            }
            Err(error) => {
                counts.failed(count);
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::warn!(%error, "traces are not exported; logged again when they are");
                }
            }
        }
    }

    fn data(&self, ids: &Ids, span: Span) -> SpanData {
        let state = ids.state.as_deref().and_then(|state| state.parse().ok());
        // It is recorded now, whatever was decided at its beginning.
        let flags = TraceFlags::new(ids.flags) | TraceFlags::SAMPLED;
        let error = if span.failed { Status::error("") } else { Status::Unset };
        SpanData {
            span_context: SpanContext::new(
                TraceId::from_bytes(ids.trace.to_be_bytes()),
                SpanId::from_bytes(span.id.to_be_bytes()),
                flags,
                false,
                state.unwrap_or(TraceState::NONE),
            ),
            parent_span_id: SpanId::from_bytes(span.parent.unwrap_or_default().to_be_bytes()),
            parent_span_is_remote: span.parent.is_some() && span.parent == ids.parent,
            span_kind: match span.kind {
                Kind::Server => SpanKind::Server,
                Kind::Client => SpanKind::Client,
            },
            name: span.name.into(),
            start_time: span.start,
            end_time: span.end,
            attributes: span.attributes.into_iter().map(key_value).collect(),
            dropped_attributes_count: 0,
            events: events(span.notes),
            links: SpanLinks::default(),
            status: error,
            instrumentation_scope: self.scope.clone(),
        }
    }
}

/// Waits for spans until the batch is full or the first one has waited long enough.
async fn fill(batch: &mut Vec<Queued>, waiting: &mut mpsc::Receiver<Queued>, settings: &Settings) {
    if batch.is_empty() && waiting.recv_many(batch, settings.batch).await == 0 {
        return;
    }
    let until = Instant::now() + settings.delay;
    while let Some(room) = settings.batch.checked_sub(batch.len()).filter(|room| *room > 0) {
        match tokio::time::timeout_at(until, waiting.recv_many(batch, room)).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
}

/// Who tells the spans: the name that the environment gives, or the role's.
fn resource(role: Role, instance: &str) -> Resource {
    let named = std::env::var("OTEL_SERVICE_NAME").is_ok_and(|name| !name.is_empty());
    let attributes = std::env::var("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default();
    let mut builder = Resource::builder();
    if !named && !attributes.contains("service.name=") {
        builder = builder.with_service_name(role.service());
    }
    let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
    let instance = KeyValue::new("service.instance.id", instance.to_owned());
    builder.with_schema_url([version, instance], names::SCHEMA).build()
}

fn key_value((name, value): (&'static str, Value)) -> KeyValue {
    match value {
        Value::Text(text) => KeyValue::new(name, text),
        Value::Count(count) => KeyValue::new(name, i64::try_from(count).unwrap_or(i64::MAX)),
        Value::Seconds(seconds) => KeyValue::new(name, seconds),
    }
}

fn events(notes: Vec<Note>) -> SpanEvents {
    let event = |Note { name, at }: Note| Event::new(name, at, Vec::new(), 0);
    let mut events = SpanEvents::default();
    events.events = notes.into_iter().map(event).collect();
    events
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry_semantic_conventions::{SCHEMA_URL, attribute, resource};

    #[test]
    #[allow(
        deprecated,
        reason = "the gen_ai names moved to a repository of their own, which has no crate"
    )]
    fn the_names_are_those_of_the_conventions() {
        assert_eq!(names::SCHEMA, SCHEMA_URL);
        for (ours, theirs) in [
            (names::ERROR_TYPE, attribute::ERROR_TYPE),
            (names::OPERATION, attribute::GEN_AI_OPERATION_NAME),
            (names::PROVIDER, attribute::GEN_AI_PROVIDER_NAME),
            (names::REQUEST_MODEL, attribute::GEN_AI_REQUEST_MODEL),
            (names::RESPONSE_MODEL, attribute::GEN_AI_RESPONSE_MODEL),
            (names::FIRST_CHUNK, attribute::GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK),
            (names::INPUT_TOKENS, attribute::GEN_AI_USAGE_INPUT_TOKENS),
            (names::CACHED_TOKENS, attribute::GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS),
            (names::OUTPUT_TOKENS, attribute::GEN_AI_USAGE_OUTPUT_TOKENS),
            (names::HTTP_METHOD, attribute::HTTP_REQUEST_METHOD),
            (names::HTTP_ROUTE, attribute::HTTP_ROUTE),
            (names::HTTP_STATUS, attribute::HTTP_RESPONSE_STATUS_CODE),
            ("service.instance.id", resource::SERVICE_INSTANCE_ID),
        ] {
            assert_eq!(ours, theirs);
        }
    }
}
