//! The table of all routes. A test compares it with the OpenAPI document, so a new route must be described in
//! `openapi/`.

use std::sync::Arc;

use axum::routing::{MethodRouter, get, post};

use crate::call::Backend;
use crate::http::edge::Edge;
use crate::http::endpoints::endpoint::Endpoint;
use crate::http::endpoints::{
    chat, cluster, completions, embeddings, health, messages, models, ollama, ollama_models, page, rank, responses,
    tokens,
};
use crate::http::openapi;

/// A path and its handlers.
type Route<C> = (&'static str, MethodRouter<Arc<Edge<C>>>);

/// All routes.
pub(crate) fn routes<C: Backend>() -> Vec<Route<C>> {
    let mut routes: Vec<Route<C>> = endpoints().map(|(path, endpoint)| (path, endpoint.route())).collect();
    routes.extend([
        (responses::ENDPOINT.path, post(responses::create::<C>)),
        (responses::INPUT_TOKENS.path, post(responses::input_tokens::<C>)),
        (
            "/v1/responses/{id}",
            get(responses::one::<C>).delete(responses::delete::<C>),
        ),
        ("/v1/responses/{id}/input_items", get(responses::input_items::<C>)),
        ("/v1/models", get(models::list::<C>)),
        ("/v1/models/{*id}", get(models::one::<C>)),
        ("/healthz", get(health::live)),
        // What the clients of vLLM, llama.cpp and SageMaker ask.
        ("/health", get(health::live)),
        ("/ping", get(health::live)),
        ("/readyz", get(health::ready::<C>)),
        ("/metrics", get(health::metrics::<C>)),
        ("/cluster", get(cluster::show::<C>)),
        ("/openapi.json", get(openapi::show)),
        ("/", get(page::show)),
        ("/page/{*file}", get(page::show)),
    ]);
    routes.extend(ollama_routes());
    routes
}

/// The routes of Ollama's own API.
fn ollama_routes<C: Backend>() -> Vec<Route<C>> {
    let mut routes: Vec<Route<C>> = ollama::ENDPOINTS
        .iter()
        .map(|endpoint| (endpoint.endpoint.path, endpoint.route()))
        .collect();
    routes.extend([
        ("/api/tags", get(ollama_models::list::<C>)),
        ("/api/ps", get(ollama_models::running::<C>)),
        ("/api/show", post(ollama_models::show::<C>)),
        ("/api/version", get(ollama_models::version)),
        ("/api/pull", post(ollama_models::pull::<C>)),
    ]);
    routes
}

/// The paths of all routes, in the order of the table.
#[cfg(any(test, feature = "testing"))]
pub fn paths<C: Backend>() -> Vec<&'static str> {
    routes::<C>().into_iter().map(|(path, _)| path).collect()
}

/// The endpoints that only check and call, with their paths.
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
