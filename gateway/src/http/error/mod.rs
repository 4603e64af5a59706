//! The errors that clients see. Only this room knows their statuses, error objects and metrics outcomes: see `table.rs`.

pub(crate) mod raw;
mod table;
mod verdict;

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use tokenbus_api::{AnswerError, RequestError};
use tokenbus_http_parts::ForeignRequest;

use crate::auth::AuthError;
use crate::auth::budget::{Budget, currency};
use crate::auth::limiter::Refusal;
use crate::call::CallError;
use crate::http::format::go_duration;
use crate::responses_store::StoreError;

pub(crate) use verdict::SHOULD_RETRY;
pub(crate) use verdict::Verdict;

/// Every error that a client may get instead of an answer.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(crate) enum HttpError {
    /// The body is not a valid request.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// A header has an illegal value.
    #[error("The header '{name}' is wrong: {reason}")]
    Header {
        /// Its name.
        name: &'static str,
        /// Why it is wrong.
        reason: String,
    },
    /// The body is larger than the limit, in bytes.
    #[error("The body of your request is larger than the limit of {0} bytes")]
    BodyTooLarge(usize),
    /// The client stopped in the middle of its body.
    #[error("The body of your request did not arrive in time")]
    BodyTimeout,
    /// The body did not arrive completely.
    #[error("The body of your request could not be read: {0}")]
    BodyBroken(String),
    /// The head gives the length of the body in two ways.
    #[error("Your request has both Content-Length and Transfer-Encoding; where its body ends is not certain")]
    TwoLengths,
    /// The bodies of all requests together are as large as they may be.
    #[error("The gateway holds as many bytes of request bodies as it may hold. Try again shortly")]
    BodiesFull,
    /// The body is compressed in an unknown way.
    #[error(
        "A request body with Content-Encoding {0:?} is not supported; send it with gzip, deflate or zstd alone, or uncompressed"
    )]
    ContentEncoding(String),
    /// The path does not exist.
    #[error(
        "Unknown request URL: {method} {path}. Chat is at POST /v1/chat/completions: the base URL of OpenAI's clients \
         ends with /v1, that of Anthropic's clients with the host"
    )]
    NotFound {
        /// The request's method.
        method: String,
        /// The request's path.
        path: String,
    },
    /// The path does not have this method.
    #[error("Not allowed to {method} on {path}")]
    MethodNotAllowed {
        /// The request's method.
        method: String,
        /// The request's path.
        path: String,
    },
    /// A foreign web page sends the request, or may do so.
    #[error("{}", foreign(.0))]
    Foreign(ForeignRequest),
    /// The request has no valid key.
    #[error("{}", stranger(*.0))]
    Unauthorized(AuthError),
    /// The request's key may not use this model.
    #[error("Your API key may not use the model {0:?}")]
    ModelNotAllowed(String),
    /// The request's key may not read metrics.
    #[error("Your API key may not read metrics")]
    MetricsNotAllowed,
    /// The request's key has reached a limit.
    #[error("{}", limited(.0))]
    Limited(Refusal),
    /// The query string has an illegal value.
    #[error("The query of your request is wrong: {0}")]
    Query(String),
    /// No response with this id is stored.
    #[error("Response with id '{0}' not found")]
    ResponseNotFound(String),
    /// A response cannot be stored, or cannot be read to continue from it.
    #[error("'{param}' cannot be served: {error}")]
    NotKept {
        /// The request's member that needs it.
        param: &'static str,
        /// The store's error.
        error: StoreError,
    },
    /// The request would change a model, and models live at the workers.
    #[error("{0} is not possible here: the workers hold the models. A model is served as long as a worker has it")]
    ModelsAtWorkers(&'static str),
    /// The gateway cannot serve requests now, and why.
    #[error("The gateway is not ready: {0}")]
    NotReady(String),
    /// The call failed.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The worker's output is not a valid answer.
    #[error(transparent)]
    Answer(#[from] AnswerError),
}

fn foreign(foreign: &ForeignRequest) -> String {
    match foreign {
        ForeignRequest::Host(_) => {
            format!("{foreign}. The operator can add names with --allowed-host, or ask for keys")
        }
        ForeignRequest::Page(_) => format!(
            "{foreign}, and without API keys those are refused. The operator can let them in with --cors-origin, or ask \
             for keys"
        ),
    }
}

fn stranger(stranger: AuthError) -> &'static str {
    match stranger {
        AuthError::NoKey => {
            "You did not provide an API key. Send it in the header Authorization, as in 'Authorization: Bearer YOUR_KEY', or in x-api-key or api-key"
        }
        AuthError::UnknownKey => "Incorrect API key provided",
        AuthError::NotReady => "The gateway does not know the API keys yet",
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
        Refusal::Spent { budget, limit, after } => format!(
            "You exceeded your current quota: the budget of your API key, {}, is used up. It begins anew in {}",
            amount(*budget, *limit),
            go_duration(*after)
        ),
        Refusal::Expected { budget, limit } => format!(
            "Your API key's running requests may use up the rest of its budget, {}. Try again when one has ended",
            amount(*budget, *limit)
        ),
        Refusal::BudgetsUnknown => "The gateway does not know yet what your API key has used of its budget".to_owned(),
    }
}

/// The limit of a budget in words.
fn amount(budget: Budget, limit: u64) -> String {
    let per = match budget {
        Budget::TokensDay | Budget::CostDay => "a day",
        Budget::TokensMonth | Budget::CostMonth => "a month",
    };
    if budget.is_money() {
        format!("{} of money {per}", currency(limit))
    } else {
        format!("{limit} tokens {per}")
    }
}

impl IntoResponse for HttpError {
    fn into_response(self) -> Response {
        self.verdict().into_response()
    }
}
