//! The table of errors: the status, type, code and outcome of each.

use std::borrow::Cow;
use std::time::Duration;

use http::StatusCode;
use tokenbus_api::{AnswerError, RequestError};
use tokenbus_http_parts::ForeignRequest;
use tokenbus_protocol::{EngineError, ErrorCode, Feature};

use super::HttpError;
use super::verdict::Verdict;
use crate::auth::AuthError;
use crate::auth::limiter::Refusal;
use crate::call::CallError;
use crate::http::limits::{MAX_LISTED, SHORT_RETRY};
use crate::metrics::Outcome;
use crate::responses_store::StoreError;

const INVALID: &str = "invalid_request_error";
const SERVER: &str = "server_error";
const PERMISSION: &str = "permission_error";
const RATE: &str = "rate_limit_error";

impl HttpError {
    /// The status, the error object and the outcome of this error.
    pub(crate) fn verdict(&self) -> Verdict {
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
            Self::Request(RequestError::TooLarge(_)) => {
                new(S::PAYLOAD_TOO_LARGE, INVALID, Rejected).code("request_too_large")
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
            Self::TwoLengths => new(S::BAD_REQUEST, INVALID, Rejected).code("ambiguous_length").close(),
            Self::BodiesFull => new(S::SERVICE_UNAVAILABLE, SERVER, Rejected)
                .code("server_busy")
                .retry_after(SHORT_RETRY)
                .close(),
            Self::ContentEncoding(_) => Verdict {
                codings: true,
                ..new(S::UNSUPPORTED_MEDIA_TYPE, INVALID, Rejected)
                    .code("unsupported_content_encoding")
                    .param(Some("content-encoding"))
                    .close()
            },
            Self::NotFound { .. } => new(S::NOT_FOUND, INVALID, Rejected).code("unknown_url"),
            Self::MethodNotAllowed { .. } => new(S::METHOD_NOT_ALLOWED, INVALID, Rejected).code("method_not_allowed"),
            Self::Foreign(ForeignRequest::Host(_)) => new(S::FORBIDDEN, PERMISSION, Rejected).code("foreign_host"),
            Self::Foreign(ForeignRequest::Page(_)) => new(S::FORBIDDEN, PERMISSION, Rejected).code("foreign_origin"),
            Self::Unauthorized(stranger) => self.stranger(*stranger),
            Self::ModelNotAllowed(_) => new(S::FORBIDDEN, PERMISSION, Rejected)
                .code("model_not_allowed")
                .param(Some("model")),
            Self::MetricsNotAllowed => new(S::FORBIDDEN, PERMISSION, Rejected).code("metrics_not_allowed"),
            Self::Limited(refusal) => self.limited(refusal),
            Self::Query(_) => new(S::BAD_REQUEST, INVALID, Rejected).code("invalid_value"),
            Self::ResponseNotFound(_) => new(S::NOT_FOUND, INVALID, Rejected).code("response_not_found"),
            Self::NotKept { param, error } => self.not_kept(param, error),
            Self::ModelsAtWorkers(_) => Verdict {
                should_retry: Some(false),
                ..new(S::NOT_IMPLEMENTED, INVALID, Rejected).code("models_at_workers")
            },
            Self::NotReady(_) => new(S::SERVICE_UNAVAILABLE, SERVER, Failed)
                .code("not_ready")
                .retry_after(SHORT_RETRY),
            Self::Answer(AnswerError::TooLarge) => new(S::INTERNAL_SERVER_ERROR, SERVER, Failed)
                .code("answer_too_large")
                .not_again(),
            Self::Answer(AnswerError::NoAnswer | AnswerError::TooManyChoices(_)) => {
                new(S::INTERNAL_SERVER_ERROR, SERVER, Failed).code("engine_error")
            }
            Self::Call(error) => call(error),
        }
    }

    fn not_kept(&self, param: &'static str, error: &StoreError) -> Verdict {
        match error {
            StoreError::Absent(_) | StoreError::TooLarge(_) => {
                Verdict::new(StatusCode::BAD_REQUEST, INVALID, Outcome::Rejected, self.to_string())
                    .code("responses_not_kept")
            }
            StoreError::Failed(_) => Verdict::new(
                StatusCode::SERVICE_UNAVAILABLE,
                SERVER,
                Outcome::Failed,
                self.to_string(),
            )
            .code("responses_unavailable")
            .retry_after(SHORT_RETRY),
        }
        .param(Some(param))
    }
}

impl HttpError {
    fn stranger(&self, stranger: AuthError) -> Verdict {
        match stranger {
            AuthError::NoKey | AuthError::UnknownKey => Verdict {
                challenge: true,
                ..Verdict::new(StatusCode::UNAUTHORIZED, INVALID, Outcome::Rejected, self.to_string())
                    .code("invalid_api_key")
            },
            AuthError::NotReady => Verdict::new(
                StatusCode::SERVICE_UNAVAILABLE,
                SERVER,
                Outcome::Failed,
                self.to_string(),
            )
            .code("not_ready")
            .retry_after(SHORT_RETRY),
        }
    }

    /// As at OpenAI: the type names the limit.
    fn limited(&self, refusal: &Refusal) -> Verdict {
        let (kind, after) = match refusal {
            Refusal::Requests { after, .. } => ("requests", *after),
            Refusal::Tokens { after, .. } => ("tokens", *after),
            Refusal::Streams { .. } => ("requests", SHORT_RETRY),
            Refusal::Expected { budget, .. } => (budget.name(), SHORT_RETRY),
            // A retry would be refused until the next day or month.
            Refusal::Spent { .. } => {
                let (status, quota) = (StatusCode::TOO_MANY_REQUESTS, "insufficient_quota");
                return Verdict::new(status, quota, Outcome::Rejected, self.to_string())
                    .code(quota)
                    .not_again();
            }
            Refusal::BudgetsUnknown => {
                let status = StatusCode::SERVICE_UNAVAILABLE;
                return Verdict::new(status, SERVER, Outcome::Failed, self.to_string())
                    .code("not_ready")
                    .retry_after(SHORT_RETRY);
            }
        };
        Verdict::new(StatusCode::TOO_MANY_REQUESTS, kind, Outcome::Rejected, self.to_string())
            .code("rate_limit_exceeded")
            .retry_after(after)
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
        CallError::WaitTooLong { retry_after, .. } => new(S::SERVICE_UNAVAILABLE, SERVER, Rejected)
            .code("wait_too_long")
            .retry_after(*retry_after),
        // A retry would put the same load on a cluster that was too slow already.
        CallError::Deadline { .. } => new(S::GATEWAY_TIMEOUT, SERVER, TimedOut)
            .code("deadline_exceeded")
            .not_again(),
        CallError::Engine(error) => engine(error),
        CallError::WorkerLost { .. } => new(S::BAD_GATEWAY, SERVER, Failed).code("worker_lost"),
        // A retry would take down the next engines.
        CallError::Deadly => new(S::INTERNAL_SERVER_ERROR, SERVER, Failed)
            .code("engine_died")
            .not_again(),
        CallError::BusDown { .. } => new(S::SERVICE_UNAVAILABLE, SERVER, Failed)
            .code("bus_unavailable")
            .retry_after(SHORT_RETRY),
        CallError::SlowClient => new(S::REQUEST_TIMEOUT, INVALID, Cancelled)
            .code("slow_client")
            .not_again(),
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
    // The engine's own code, if there is one: it says more than ours.
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
        // The engine's status is passed on, but the client must not look for the fault in its own key.
        ErrorCode::UpstreamUnauthorized => {
            not_your_key(new(S::UNAUTHORIZED, "authentication_error", Failed).code("upstream_unauthorized"))
        }
        ErrorCode::UpstreamForbidden => not_your_key(new(S::FORBIDDEN, PERMISSION, Failed).code("upstream_forbidden")),
        ErrorCode::ModelNotFound => new(S::NOT_FOUND, INVALID, Rejected)
            .code("model_not_found")
            .param(Some("model")),
        ErrorCode::TooLarge => new(S::PAYLOAD_TOO_LARGE, INVALID, Rejected).code("request_too_large"),
        ErrorCode::RateLimited => {
            let verdict = new(S::TOO_MANY_REQUESTS, RATE, Rejected)
                .code(told("rate_limit_exceeded"))
                .retry_after(after);
            // Only the operator's money helps.
            match error.engine_code.as_deref() {
                Some("insufficient_quota" | "billing_hard_limit_reached") => verdict.not_again(),
                _ => verdict,
            }
        }
        ErrorCode::EngineUnavailable => new(S::SERVICE_UNAVAILABLE, SERVER, Failed)
            .code("engine_unavailable")
            .retry_after(after),
        ErrorCode::Timeout => new(S::GATEWAY_TIMEOUT, SERVER, TimedOut)
            .code("engine_timeout")
            .not_again(),
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

/// The request's member that asks for a feature.
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

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
