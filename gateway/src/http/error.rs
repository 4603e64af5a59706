//! The one place where an error becomes a status, an OpenAI error object and a metrics outcome.

use std::borrow::Cow;
use std::time::Duration;

use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, StatusCode};
use tokenbus_api::AnswerError;
use tokenbus_api::answer::{Failure, envelope};
use tokenbus_api::request::RequestError;
use tokenbus_protocol::{EngineError, ErrorCode, Feature};

use crate::auth::Stranger;
use crate::auth::limiter::Refusal;
use crate::call::CallError;
use crate::http::limits::{MAX_LISTED, MAX_RETRY_AFTER, SHORT_RETRY};
use crate::http::request::access::go_duration;
use crate::metrics::Outcome;
use crate::responses_store::StoreError;

// The official SDKs obey it, whatever they think of the status.
pub(crate) const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// Everything that a client may be told instead of an answer.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum HttpError {
    /// The body is no request.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// A header has no value that it may have.
    #[error("The header '{name}' is wrong: {reason}")]
    Header {
        /// Its name.
        name: &'static str,
        /// What it should be.
        reason: String,
    },
    /// The body is larger than the limit in bytes.
    #[error("The body of your request is larger than the limit of {0} bytes")]
    BodyTooLarge(usize),
    /// The client stopped sending in the middle of its body.
    #[error("The body of your request did not arrive in time")]
    BodyTimeout,
    /// The body did not arrive whole.
    #[error("The body of your request could not be read: {0}")]
    BodyBroken(String),
    /// The body is compressed.
    #[error("A request body with Content-Encoding {0:?} is not supported; send it uncompressed")]
    ContentEncoding(String),
    /// No such path.
    #[error("Unknown request URL: {method} {path}. Chat is at POST /v1/chat/completions")]
    NotFound {
        /// The request's method.
        method: String,
        /// The request's path.
        path: String,
    },
    /// The path has no such method.
    #[error("Not allowed to {method} on {path}")]
    MethodNotAllowed {
        /// The request's method.
        method: String,
        /// The request's path.
        path: String,
    },
    /// Whose request it is cannot be known.
    #[error("{}", stranger(*.0))]
    Stranger(Stranger),
    /// The request's key may not ask for this model.
    #[error("Your API key may not use the model {0:?}")]
    ModelNotAllowed(String),
    /// The request's key may not read metrics.
    #[error("Your API key may not read metrics")]
    MetricsNotAllowed,
    /// A limit of the request's key is reached.
    #[error("{}", limited(.0))]
    Limited(Refusal),
    /// A query string has no value that it may have.
    #[error("The query of your request is wrong: {0}")]
    Query(String),
    /// No response is kept under this id.
    #[error("Response with id '{0}' not found")]
    ResponseNotFound(String),
    /// A response that was to be kept, or to be built on, cannot be.
    #[error("'{param}' cannot be served: {error}")]
    NotKept {
        /// The member that asks for it.
        param: &'static str,
        /// Why.
        error: StoreError,
    },
    /// Requests cannot be served now, and why.
    #[error("The gateway is not ready: {0}")]
    NotReady(String),
    /// The call failed.
    #[error(transparent)]
    Call(#[from] CallError),
    /// What the worker sent is no answer.
    #[error(transparent)]
    Answer(#[from] AnswerError),
}

/// How an error is told.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// HTTP status.
    pub status: StatusCode,
    /// `error.type`.
    pub kind: &'static str,
    /// `error.code`.
    pub code: Option<Cow<'static, str>>,
    /// `error.param`.
    pub param: Option<Cow<'static, str>>,
    /// `error.message`.
    pub message: String,
    /// For the `Retry-After` header.
    pub retry_after: Option<Duration>,
    /// For the metrics.
    pub outcome: Outcome,
    /// Whether another try is worth it, where the status alone would mislead an SDK.
    pub should_retry: Option<bool>,
    /// Whether the client is told how to say who it is.
    pub challenge: bool,
    /// Whether the connection ends with the answer, because its request was not read to the end.
    pub close: bool,
}

const INVALID: &str = "invalid_request_error";
const SERVER: &str = "server_error";
const PERMISSION: &str = "permission_error";
const RATE: &str = "rate_limit_error";

impl Verdict {
    fn new(status: StatusCode, kind: &'static str, outcome: Outcome, message: String) -> Self {
        Self {
            status,
            kind,
            code: None,
            param: None,
            message,
            retry_after: None,
            outcome,
            should_retry: None,
            challenge: false,
            close: false,
        }
    }

    fn code(mut self, code: impl Into<Cow<'static, str>>) -> Self {
        self.code = Some(code.into());
        self
    }

    fn param(mut self, param: Option<impl Into<Cow<'static, str>>>) -> Self {
        self.param = param.map(Into::into);
        self
    }

    fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    fn close(mut self) -> Self {
        self.close = true;
        self
    }

    /// What a client is told of it, in whichever form its API has.
    pub fn failure(&self) -> Failure<'_> {
        Failure {
            status: self.status.as_u16(),
            kind: self.kind,
            message: &self.message,
            param: self.param.as_deref(),
            code: self.code.as_deref(),
            request_id: None,
        }
    }

    /// The OpenAI error object as one line of JSON: `{"error":{…}}`.
    pub fn envelope(&self) -> Bytes {
        envelope(&self.failure())
    }

    /// The response with this status, its headers and `body`, JSON.
    pub fn into_response_with(self, body: Bytes) -> Response {
        let mut response = (self.status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(after) = self.retry_after {
            headers.insert(RETRY_AFTER, seconds(after).into());
        }
        if let Some(retry) = self.should_retry {
            headers.insert(
                SHOULD_RETRY,
                HeaderValue::from_static(if retry { "true" } else { "false" }),
            );
        }
        if self.challenge {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if self.close {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

impl HttpError {
    /// The status, the error object and the outcome of this error.
    pub fn verdict(&self) -> Verdict {
        use Outcome::{Cancelled, Failed, Rejected};
        use StatusCode as S;
        let new = |status, kind, outcome| Verdict::new(status, kind, outcome, self.to_string());
        match self {
            Self::Request(RequestError::Field { param, code, .. }) => {
                new(S::BAD_REQUEST, INVALID, Rejected).code(*code).param(param.clone())
            }
            Self::Request(RequestError::NotUtf8(_) | RequestError::Syntax { .. } | RequestError::NotAnObject) => {
                new(S::BAD_REQUEST, INVALID, Rejected).code("invalid_json")
            }
            Self::Header { name, .. } => new(S::BAD_REQUEST, INVALID, Rejected)
                .code("invalid_value")
                .param(Some(*name)),
            Self::BodyTooLarge(_) => new(S::PAYLOAD_TOO_LARGE, INVALID, Rejected)
                .code("request_too_large")
                .close(),
            Self::BodyTimeout => new(S::REQUEST_TIMEOUT, INVALID, Cancelled)
                .code("request_timeout")
                .close(),
            Self::BodyBroken(_) => new(S::BAD_REQUEST, INVALID, Cancelled).code("invalid_body").close(),
            Self::ContentEncoding(_) => new(S::UNSUPPORTED_MEDIA_TYPE, INVALID, Rejected)
                .code("unsupported_content_encoding")
                .param(Some("content-encoding"))
                .close(),
            Self::NotFound { .. } => new(S::NOT_FOUND, INVALID, Rejected).code("unknown_url"),
            Self::MethodNotAllowed { .. } => new(S::METHOD_NOT_ALLOWED, INVALID, Rejected).code("method_not_allowed"),
            Self::Stranger(stranger) => self.stranger(*stranger),
            Self::ModelNotAllowed(_) => new(S::FORBIDDEN, PERMISSION, Rejected)
                .code("model_not_allowed")
                .param(Some("model")),
            Self::MetricsNotAllowed => new(S::FORBIDDEN, PERMISSION, Rejected).code("metrics_not_allowed"),
            Self::Limited(refusal) => self.limited(refusal),
            Self::Query(_) => new(S::BAD_REQUEST, INVALID, Rejected).code("invalid_value"),
            Self::ResponseNotFound(_) => new(S::NOT_FOUND, INVALID, Rejected).code("response_not_found"),
            Self::NotKept { param, error } => match error {
                StoreError::Absent(_) | StoreError::TooLarge(_) => new(S::BAD_REQUEST, INVALID, Rejected)
                    .code("responses_not_kept")
                    .param(Some(*param)),
                StoreError::Failed(_) => new(S::SERVICE_UNAVAILABLE, SERVER, Failed)
                    .code("responses_unavailable")
                    .param(Some(*param))
                    .retry_after(SHORT_RETRY),
            },
            Self::NotReady(_) => new(S::SERVICE_UNAVAILABLE, SERVER, Failed)
                .code("not_ready")
                .retry_after(SHORT_RETRY),
            Self::Answer(AnswerError::TooLarge) => {
                new(S::INTERNAL_SERVER_ERROR, SERVER, Failed).code("answer_too_large")
            }
            Self::Answer(AnswerError::NoAnswer | AnswerError::TooManyChoices(_)) => {
                new(S::INTERNAL_SERVER_ERROR, SERVER, Failed).code("engine_error")
            }
            Self::Call(error) => call(error),
        }
    }
}

impl HttpError {
    fn stranger(&self, stranger: Stranger) -> Verdict {
        match stranger {
            Stranger::NoKey | Stranger::UnknownKey => Verdict {
                challenge: true,
                ..Verdict::new(StatusCode::UNAUTHORIZED, INVALID, Outcome::Rejected, self.to_string())
                    .code("invalid_api_key")
            },
            Stranger::NotReady => Verdict::new(
                StatusCode::SERVICE_UNAVAILABLE,
                SERVER,
                Outcome::Failed,
                self.to_string(),
            )
            .code("not_ready")
            .retry_after(SHORT_RETRY),
        }
    }

    /// As OpenAI tells it: the type says which limit it is.
    fn limited(&self, refusal: &Refusal) -> Verdict {
        let (kind, after) = match refusal {
            Refusal::Requests { after, .. } => ("requests", *after),
            Refusal::Tokens { after, .. } => ("tokens", *after),
            Refusal::Streams { .. } => ("requests", SHORT_RETRY),
        };
        Verdict::new(StatusCode::TOO_MANY_REQUESTS, kind, Outcome::Rejected, self.to_string())
            .code("rate_limit_exceeded")
            .retry_after(after)
    }
}

fn stranger(stranger: Stranger) -> &'static str {
    match stranger {
        Stranger::NoKey => {
            "You did not provide an API key. Send it in the header Authorization, as in 'Authorization: Bearer YOUR_KEY', or in x-api-key"
        }
        Stranger::UnknownKey => "Incorrect API key provided",
        Stranger::NotReady => "The gateway does not know the API keys yet",
    }
}

fn limited(refusal: &Refusal) -> String {
    let again = |after: &Duration| format!("Try again in {}", go_duration(*after));
    match refusal {
        Refusal::Requests { limit, after } => format!(
            "Rate limit reached for your API key on requests per minute: limit {limit}. {}",
            again(after)
        ),
        Refusal::Tokens { limit, asked, after } => format!(
            "Rate limit reached for your API key on tokens per minute: limit {limit}, requested about {asked}. {}",
            again(after)
        ),
        Refusal::Streams { limit } => format!(
            "Rate limit reached for your API key on concurrent requests: limit {limit}. Try again when one has ended"
        ),
    }
}

fn call(error: &CallError) -> Verdict {
    use Outcome::{Cancelled, Failed, Rejected, TimedOut};
    use StatusCode as S;
    let new = |status, kind, outcome| Verdict::new(status, kind, outcome, error.to_string());
    match error {
        CallError::UnknownModel { model, known } => {
            Verdict::new(S::NOT_FOUND, INVALID, Rejected, unknown_model(model, known))
                .code("model_not_found")
                .param(Some("model"))
        }
        CallError::NoWorker { retry_after, .. } => new(S::SERVICE_UNAVAILABLE, SERVER, Rejected)
            .code("no_worker")
            .retry_after(*retry_after),
        CallError::Unsupported { missing, .. } => new(S::BAD_REQUEST, INVALID, Rejected)
            .code("unsupported_feature")
            .param(missing.iter().next().map(blamed)),
        CallError::Full { retry_after, .. } => new(S::TOO_MANY_REQUESTS, RATE, Rejected)
            .code("server_busy")
            .retry_after(*retry_after),
        // Its time is over: a second try would put the same load on a cluster that was too slow.
        CallError::Deadline { .. } => Verdict {
            should_retry: Some(false),
            ..new(S::GATEWAY_TIMEOUT, SERVER, TimedOut).code("deadline_exceeded")
        },
        CallError::Engine(error) => engine(error),
        CallError::WorkerLost { .. } => new(S::BAD_GATEWAY, SERVER, Failed).code("worker_lost"),
        CallError::BusDown { .. } => new(S::SERVICE_UNAVAILABLE, SERVER, Failed)
            .code("bus_unavailable")
            .retry_after(SHORT_RETRY),
        CallError::SlowClient => new(S::REQUEST_TIMEOUT, INVALID, Cancelled).code("slow_client"),
        CallError::ShuttingDown => new(S::SERVICE_UNAVAILABLE, SERVER, Failed)
            .code("shutting_down")
            .retry_after(SHORT_RETRY),
        CallError::Internal(_) => new(S::INTERNAL_SERVER_ERROR, SERVER, Failed).code("internal_error"),
    }
}

fn engine(error: &EngineError) -> Verdict {
    use Outcome::{Failed, Rejected, TimedOut};
    use StatusCode as S;
    let new =
        |status, kind, outcome| Verdict::new(status, kind, outcome, error.message.clone()).param(error.param.clone());
    // The engine's own code where it says more than ours, which is the second.
    let told = |code: &'static str| error.engine_code.clone().map_or(Cow::Borrowed(code), Cow::Owned);
    let after = error.retry_after_ms.map_or(SHORT_RETRY, Duration::from_millis);
    match error.code {
        ErrorCode::BadRequest => new(S::BAD_REQUEST, INVALID, Rejected).code(told("bad_request")),
        ErrorCode::ContextLengthExceeded => {
            let verdict = new(S::BAD_REQUEST, INVALID, Rejected).code("context_length_exceeded");
            let param = verdict.param.clone().or(Some("messages".into()));
            verdict.param(param)
        }
        ErrorCode::ContentFilter => new(S::BAD_REQUEST, INVALID, Rejected).code("content_filter"),
        // The statuses that the engine gave, but the client must not look for the fault in its key.
        ErrorCode::UpstreamUnauthorized => {
            not_your_key(new(S::UNAUTHORIZED, "authentication_error", Failed).code("upstream_unauthorized"))
        }
        ErrorCode::UpstreamForbidden => not_your_key(new(S::FORBIDDEN, PERMISSION, Failed).code("upstream_forbidden")),
        ErrorCode::ModelNotFound => new(S::NOT_FOUND, INVALID, Rejected)
            .code("model_not_found")
            .param(Some("model")),
        ErrorCode::TooLarge => new(S::PAYLOAD_TOO_LARGE, INVALID, Rejected).code("request_too_large"),
        ErrorCode::RateLimited => new(S::TOO_MANY_REQUESTS, RATE, Rejected)
            .code(told("rate_limit_exceeded"))
            .retry_after(after),
        ErrorCode::EngineUnavailable => new(S::SERVICE_UNAVAILABLE, SERVER, Failed)
            .code("engine_unavailable")
            .retry_after(after),
        ErrorCode::Timeout => new(S::GATEWAY_TIMEOUT, SERVER, TimedOut).code("engine_timeout"),
        ErrorCode::WorkerOverloaded => new(S::SERVICE_UNAVAILABLE, SERVER, Failed)
            .code("worker_overloaded")
            .retry_after(after),
        ErrorCode::Draining => new(S::SERVICE_UNAVAILABLE, SERVER, Failed)
            .code("worker_draining")
            .retry_after(after),
        ErrorCode::Cancelled => new(S::SERVICE_UNAVAILABLE, SERVER, Failed)
            .code("cancelled")
            .retry_after(after),
        ErrorCode::Internal => new(S::INTERNAL_SERVER_ERROR, SERVER, Failed).code(told("engine_error")),
    }
}

/// The member of a request that asks for a feature.
fn blamed(feature: Feature) -> &'static str {
    match feature {
        Feature::Tools => "tools",
        Feature::JsonSchema => "response_format",
        Feature::Vision | Feature::Audio => "messages",
        Feature::Logprobs => "logprobs",
        Feature::Chat
        | Feature::Completion
        | Feature::Embeddings
        | Feature::Rerank
        | Feature::Score
        | Feature::Tokenize
        | Feature::Continuation
        | Feature::Other => "model",
    }
}

fn not_your_key(mut verdict: Verdict) -> Verdict {
    verdict.message = format!(
        "The engine behind this model did not accept the cluster's own credentials; your API key is not to blame: {}",
        verdict.message
    );
    verdict
}

fn unknown_model(model: &str, known: &[String]) -> String {
    let mut listed = known
        .iter()
        .take(MAX_LISTED)
        .map(String::as_str)
        .collect::<Vec<_>>()
        .join(", ");
    if known.is_empty() {
        "none".clone_into(&mut listed);
    } else if known.len() > MAX_LISTED {
        listed = format!("{listed} and {} more", known.len() - MAX_LISTED);
    }
    format!("The model {model:?} does not exist. Available models: {listed}")
}

/// Whole seconds, rounded up, at least 1.
fn seconds(after: Duration) -> u64 {
    let up = u64::from(after.subsec_nanos() > 0);
    after.as_secs().saturating_add(up).clamp(1, MAX_RETRY_AFTER)
}

impl IntoResponse for HttpError {
    fn into_response(self) -> Response {
        self.verdict().into_response()
    }
}

impl IntoResponse for Verdict {
    fn into_response(self) -> Response {
        let body = self.envelope();
        self.into_response_with(body)
    }
}

#[cfg(test)]
#[path = "error_tests.rs"]
mod tests;
