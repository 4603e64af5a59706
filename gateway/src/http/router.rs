//! The router: all routes, and the layers that each request passes.

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::response::Response;
use http::Method;
use tokenbus_api::RequestError;

use crate::call::Backend;
use crate::http::edge::Edge;
use crate::http::endpoints::ollama_models;
use crate::http::endpoints::routes::routes;
use crate::http::error::HttpError;
use crate::http::request::access::{self, Access};
use crate::http::request::{cors, dialect, foreign, request_id};

/// A method of OpenAI's that would else look like one of a kept response.
const COMPACT: &str = "/v1/responses/compact";

const NO_COMPACTION: &str = "Compaction is not supported here: the gateway shortens no conversation. Ask the model for \
                             a summary with a request of your own, and go on from that";

/// The gateway's router.
pub fn router<C: Backend>(edge: Edge<C>) -> Router {
    let access = Access {
        auth: edge.auth.clone(),
        metrics: edge.metrics.clone(),
    };
    let cors = cors::layer(&edge.options.cors);
    let guard = foreign::guard(&edge.options);
    let mut router = routes()
        .into_iter()
        .fold(Router::new(), |router, (path, methods)| router.route(path, methods))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(Arc::new(edge));
    // A request passes the last layer first.
    if access.auth.is_on() {
        router = router.layer(axum::middleware::from_fn_with_state(Arc::new(access), access::layer));
    } else {
        router = router.layer(axum::middleware::from_fn_with_state(Arc::new(guard), foreign::layer));
    }
    // Outside of `access`: a preflight has no key, and a page must be able to read a refusal.
    if let Some(cors) = cors {
        router = router.layer(cors);
    }
    // Outermost, so that routing errors have an id too.
    router.layer(axum::middleware::from_fn(request_id::layer))
}

async fn not_found(request: Request) -> Response {
    let path = request.uri().path();
    let error = ollama_models::changes_models(path).unwrap_or_else(|| HttpError::NotFound {
        method: request.method().to_string(),
        path: path.to_owned(),
    });
    dialect::refuse(&request, &error)
}

async fn method_not_allowed(request: Request) -> Response {
    let (method, path) = (request.method(), request.uri().path());
    let error = if method == Method::POST && path == COMPACT {
        RequestError::Field {
            param: None,
            code: "unsupported_endpoint",
            message: NO_COMPACTION.to_owned(),
        }
        .into()
    } else {
        HttpError::MethodNotAllowed {
            method: method.to_string(),
            path: path.to_owned(),
        }
    };
    dialect::refuse(&request, &error)
}
