//! `/healthz`, `/readyz` and `/metrics`.

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::header::CONTENT_TYPE;

use super::Edge;
use super::error::HttpError;
use crate::auth::AuthError;
use crate::call::Backend;
use crate::call::CallError;

/// The process lives. Says nothing else: a restart does not bring the bus back.
pub(super) async fn live() -> Response {
    ([(CONTENT_TYPE, "application/json")], r#"{"status":"ok"}"#).into_response()
}

#[derive(serde::Serialize)]
struct Ready {
    status: &'static str,
    /// What is wrong although requests are served.
    #[serde(skip_serializing_if = "Option::is_none")]
    degraded: Option<String>,
}

/// Requests can be served now.
pub(super) async fn ready<C: Backend>(State(edge): State<Edge<C>>) -> Result<Response, HttpError> {
    if edge.draining.is_cancelled() {
        return Err(HttpError::NotReady(CallError::ShuttingDown.to_string()));
    }
    let degraded = edge.auth.concern();
    if !edge.auth.is_ready() {
        return Err(degraded.map_or(HttpError::Unauthorized(AuthError::NotReady), HttpError::NotReady));
    }
    edge.core.readiness().map_err(HttpError::NotReady)?;
    // With keys that may be old, requests are still served: a load balancer should go on.
    let status = "ready";
    Ok(axum::Json(Ready { status, degraded }).into_response())
}

/// The metrics as OpenMetrics text.
pub(super) async fn metrics<C: Backend>(State(edge): State<Edge<C>>) -> Result<Response, HttpError> {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &edge.registry)
        .map_err(|error| CallError::Internal(format!("metrics: {error}")))?;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(CONTENT_TYPE, kind)], text).into_response())
}
