//! Traces of requests: a trace's ids on their way through the cluster, and the spans of finished requests, which are
//! told to an OpenTelemetry collector.
//!
//! Spans are made when a request has ended, from what its process knows of it anyway: nothing is written on the path of
//! tokens. Then it is also known whether it failed or was slow, so such requests are told whatever the sampler decided at
//! their beginning. OpenTelemetry's own types stay in `otlp`, behind the feature of that name.

mod limits;
#[cfg(feature = "otlp")]
mod otlp;
mod settings;
mod shared;
mod span;
mod trace;
mod tracer;

pub use limits::SLOW;
pub use settings::TelemetryError;
pub use shared::{Role, SpanCounts};
pub use span::{Kind, Note, Span, Value, names};
pub use trace::{Ids, Trace, is_traceparent};
pub use tracer::{Exporting, Tracer};
