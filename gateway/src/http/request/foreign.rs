//! Refuses what foreign web pages send to a gateway without keys; with keys, each request must know one.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use tokenbus_http_parts::WebGuard;

use crate::http::error::HttpError;
use crate::http::options::HttpOptions;
use crate::http::origin::Origin;
use crate::http::request::{access, dialect};

/// What the gateway with these options answers to.
pub(crate) fn guard(options: &HttpOptions) -> WebGuard {
    let one = |origin: &Origin| match origin {
        Origin::Any => None,
        Origin::One(origin) => Some(origin.clone()),
    };
    WebGuard {
        hosts: options.allowed_hosts.clone(),
        origins: options.cors.iter().filter_map(one).collect(),
        any_origin: options.cors.contains(&Origin::Any),
    }
}

/// Refuses foreign requests. Health checks are not asked: they come under any name, and tell nothing.
pub(crate) async fn layer(State(guard): State<Arc<WebGuard>>, request: Request, next: Next) -> Response {
    if access::OPEN.contains(&request.uri().path()) {
        return next.run(request).await;
    }
    match guard.check(request.method(), request.uri(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(foreign) => dialect::refuse(&request, &HttpError::Foreign(foreign)),
    }
}
