//! The table of all routes. The OpenAPI document is held against it by a test, so a route that is
//! added here is described in `openapi/`.

use axum::routing::{MethodRouter, get, post};

use super::{Edge, cluster, endpoints, health, models, openapi, page, responses};
use crate::call::Backend;

/// A path and what answers at it.
type Route<C> = (&'static str, MethodRouter<Edge<C>>);

/// All of them.
pub(super) fn routes<C: Backend>() -> Vec<Route<C>> {
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
        ("/readyz", get(health::ready::<C>)),
        ("/metrics", get(health::metrics::<C>)),
        ("/cluster", get(cluster::show::<C>)),
        ("/openapi.json", get(openapi::show)),
    ]);
    routes.extend(page::FILES.iter().map(|file| (file.path, file.route())));
    routes
}

/// The paths of all routes, in the order of the table.
pub fn paths<C: Backend>() -> Vec<&'static str> {
    routes::<C>().into_iter().map(|(path, _)| path).collect()
}
