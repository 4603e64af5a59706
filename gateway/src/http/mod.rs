//! The HTTP edge: turns requests into calls and what comes of them into responses.
//!
//! One file per endpoint family; [`error`] is the one place that knows the status of an error.

mod access;
mod answer;
mod beside;
mod body;
mod chat;
mod chunked;
mod cluster;
mod completions;
mod connection;
mod cors;
mod dialect;
mod embeddings;
mod endpoint;
pub mod error;
mod handover;
mod headers;
mod health;
mod keeping;
mod leftover;
pub mod limits;
mod messages;
mod models;
mod openapi;
mod options;
mod page;
mod rank;
mod record;
mod request_id;
mod responses;
mod routes;
pub mod server;
mod socket;
mod sse;
mod tokens;
mod wire;

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::response::Response;
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;

pub use cors::{NoOrigin, Origin};
pub use error::{HttpError, Verdict};
pub use options::HttpOptions;
pub use routes::paths;

use self::access::Access;
use self::endpoint::Endpoint;

use crate::auth::Auth;
use crate::call::Backend;
use crate::metrics::Metrics;
use crate::model_config::ModelConfig;
use crate::responses_store::ResponsesStore;
use crate::usage::Usage;

/// What the handlers share.
#[derive(Debug, Clone)]
pub struct Edge<C> {
    /// Places the calls.
    pub core: C,
    /// Settings.
    pub options: Arc<HttpOptions>,
    /// What each request is measured with.
    pub metrics: Metrics,
    /// What `/metrics` shows.
    pub registry: Arc<Registry>,
    /// Who may ask for what.
    pub auth: Auth,
    /// What names of models mean.
    pub models: ModelConfig,
    /// What each request used is told here.
    pub usage: Usage,
    /// Responses that conversations may go on from.
    pub responses: ResponsesStore,
    /// Cancelled when the gateway begins to stop: `/readyz` fails from then on.
    pub draining: CancellationToken,
}

/// All routes.
pub fn router<C: Backend>(edge: Edge<C>) -> Router {
    let access = Access {
        auth: edge.auth.clone(),
        metrics: edge.metrics.clone(),
    };
    let cors = cors::layer(&edge.options.cors);
    let mut router = routes::routes()
        .into_iter()
        .fold(Router::new(), |router, (path, methods)| router.route(path, methods))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(edge);
    // A request walks through these from the last to the first.
    if access.auth.is_on() {
        router = router.layer(axum::middleware::from_fn_with_state(Arc::new(access), access::layer));
    }
    // Browsers ask without a key what they may send, and want to read a refusal as well.
    if let Some(cors) = cors {
        router = router.layer(cors);
    }
    // Outermost, so that errors of the routing have an id as well.
    router.layer(axum::middleware::from_fn(request_id::layer))
}

/// The endpoints at which models are asked, with their paths.
fn endpoints() -> impl Iterator<Item = (&'static str, &'static Endpoint)> {
    let endpoints = [
        &chat::ENDPOINT,
        &completions::ENDPOINT,
        &embeddings::ENDPOINT,
        &messages::ENDPOINT,
        &messages::COUNT_TOKENS,
        &rank::RERANK,
        &rank::SCORE,
        &tokens::TOKENIZE,
        &tokens::DETOKENIZE,
    ];
    let aliases = rank::RERANK_ALIASES.map(|path| (path, &rank::RERANK));
    let aliases = aliases.into_iter().chain([(rank::SCORE_ALIAS, &rank::SCORE)]);
    let routes = endpoints.into_iter().map(|endpoint| (endpoint.path, endpoint));
    routes.chain(aliases)
}

async fn not_found(request: Request) -> Response {
    let error = HttpError::NotFound {
        method: request.method().to_string(),
        path: request.uri().path().to_owned(),
    };
    dialect::refuse(&request, &error)
}

async fn method_not_allowed(request: Request) -> Response {
    let error = HttpError::MethodNotAllowed {
        method: request.method().to_string(),
        path: request.uri().path().to_owned(),
    };
    dialect::refuse(&request, &error)
}
