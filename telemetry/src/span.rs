//! One span: a piece of work with its beginning, its end and what is known of it.

use std::time::SystemTime;

use crate::limits::TEXT;

/// The names of attributes, as the OpenTelemetry semantic conventions 1.42.0 have them (`gen_ai.*` are in development), and
/// tokenbus's own.
pub mod names {
    /// The version of the conventions.
    pub const SCHEMA: &str = "https://opentelemetry.io/schemas/1.42.0";
    /// Code of the error.
    pub const ERROR_TYPE: &str = "error.type";
    /// `chat`, `text_completion`, `embeddings` …
    pub const OPERATION: &str = "gen_ai.operation.name";
    /// Who serves the model.
    pub const PROVIDER: &str = "gen_ai.provider.name";
    /// The model that was asked for.
    pub const REQUEST_MODEL: &str = "gen_ai.request.model";
    /// The model that answered.
    pub const RESPONSE_MODEL: &str = "gen_ai.response.model";
    /// Seconds to the first output.
    pub const FIRST_CHUNK: &str = "gen_ai.response.time_to_first_chunk";
    /// Tokens of the prompt, those from the cache included.
    pub const INPUT_TOKENS: &str = "gen_ai.usage.input_tokens";
    /// Tokens of the prompt that the engine had in its cache.
    pub const CACHED_TOKENS: &str = "gen_ai.usage.cache_read.input_tokens";
    /// Tokens of the answer.
    pub const OUTPUT_TOKENS: &str = "gen_ai.usage.output_tokens";
    /// The request's method.
    pub const HTTP_METHOD: &str = "http.request.method";
    /// The path of the API.
    pub const HTTP_ROUTE: &str = "http.route";
    /// The status that was sent.
    pub const HTTP_STATUS: &str = "http.response.status_code";
    /// The client's `x-request-id`, or the gateway's own.
    pub const REQUEST_ID: &str = "tokenbus.request.id";
    /// The call's UUID, which is in the answer's id.
    pub const CALL_ID: &str = "tokenbus.call.id";
    /// Name of the API key.
    pub const KEY: &str = "tokenbus.key";
    /// The tenant.
    pub const TENANT: &str = "tokenbus.tenant";
    /// How the request, or the attempt, ended.
    pub const OUTCOME: &str = "tokenbus.outcome";
    /// Publishes to workers.
    pub const ATTEMPTS: &str = "tokenbus.attempts";
    /// The attempt's number, from 0.
    pub const ATTEMPT: &str = "tokenbus.attempt";
    /// The worker.
    pub const WORKER: &str = "tokenbus.worker";
    /// Why the gateway chose that worker.
    pub const PLACEMENT: &str = "tokenbus.placement";
    /// Seconds that the request waited for a free slot.
    pub const WAIT: &str = "tokenbus.wait";
}

/// Whose side of a call a span is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Whoever was called.
    Server,
    /// The caller.
    Client,
}

/// The value of an attribute.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Text.
    Text(String),
    /// A count.
    Count(u64),
    /// A time in seconds.
    Seconds(f64),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(short(text).to_owned())
    }
}

impl From<u64> for Value {
    fn from(count: u64) -> Self {
        Self::Count(count)
    }
}

impl From<f64> for Value {
    fn from(seconds: f64) -> Self {
        Self::Seconds(seconds)
    }
}

/// Something that happened during a span.
#[derive(Debug, Clone, PartialEq)]
pub struct Note {
    /// What.
    pub name: &'static str,
    /// When.
    pub at: SystemTime,
}

/// One span of a finished request.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    /// Its id, not 0.
    pub id: u64,
    /// The span that it is a part of.
    pub parent: Option<u64>,
    /// Whose side of a call it is.
    pub kind: Kind,
    /// What it is, with few different values.
    pub name: String,
    /// When it began.
    pub start: SystemTime,
    /// When it ended.
    pub end: SystemTime,
    /// What is known of it. Never a prompt, an answer, an error's text or a secret.
    pub attributes: Vec<(&'static str, Value)>,
    /// What happened in it.
    pub notes: Vec<Note>,
    /// Whether it failed.
    pub failed: bool,
}

impl Span {
    /// A span of which only its place and its times are known.
    pub fn new(
        (id, parent): (u64, Option<u64>),
        kind: Kind,
        name: &str,
        (start, end): (SystemTime, SystemTime),
    ) -> Self {
        Self {
            id,
            parent,
            kind,
            name: short(name).to_owned(),
            start,
            // Clocks can be set back while a request runs.
            end: end.max(start),
            attributes: Vec::new(),
            notes: Vec::new(),
            failed: false,
        }
    }

    /// With an attribute.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.attributes.push((name, value.into()));
        self
    }

    /// With an attribute, if it has a value.
    #[must_use]
    pub fn with_some(self, name: &'static str, value: Option<impl Into<Value>>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    /// The attribute `name`.
    pub fn attribute(&self, name: &str) -> Option<&Value> {
        self.attributes
            .iter()
            .find_map(|(known, value)| (*known == name).then_some(value))
    }
}

fn short(text: &str) -> &str {
    text.get(..text.floor_char_boundary(TEXT)).unwrap_or_default()
}
