//! `/healthz`, `/readyz` and `/metrics`.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::header::CONTENT_TYPE;

use crate::auth::AuthError;
use crate::call::{Backend, CallError};
use crate::http::edge::Edge;
use crate::http::error::HttpError;

/// The process is alive. This says nothing of the bus: a restart would not bring it back.
pub(crate) async fn live() -> Response {
    ([(CONTENT_TYPE, "application/json")], r#"{"status":"ok"}"#).into_response()
}

#[derive(serde::Serialize)]
struct Readiness {
    status: &'static str,
    /// A problem that does not stop requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    degraded: Option<String>,
}

/// Whether requests can be served now.
pub(crate) async fn ready<C: Backend>(State(edge): State<Arc<Edge<C>>>) -> Result<Response, HttpError> {
    if edge.draining.is_cancelled() {
        return Err(HttpError::NotReady(CallError::ShuttingDown.to_string()));
    }
    let degraded = edge.auth.concern();
    if !edge.auth.is_ready() {
        return Err(degraded.map_or(HttpError::Unauthorized(AuthError::NotReady), HttpError::NotReady));
    }
    edge.core.readiness().map_err(HttpError::NotReady)?;
    let degraded = degraded.or_else(|| edge.core.concern());
    // The keys may be old, but requests are served: a load balancer should keep sending them.
    let status = "ready";
    Ok(axum::Json(Readiness { status, degraded }).into_response())
}

/// The metrics as OpenMetrics text.
pub(crate) async fn metrics<C: Backend>(State(edge): State<Arc<Edge<C>>>) -> Result<Response, HttpError> {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &edge.registry)
        .map_err(|error| CallError::Internal(format!("metrics: {error}")))?;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(CONTENT_TYPE, kind)], text).into_response())
}
