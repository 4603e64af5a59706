//! `GET /cluster`: the workers, the models and this gateway's requests at this moment, for the page.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::header::CACHE_CONTROL;
use serde::Serialize;

use super::Edge;
use crate::core::Core;
use crate::placement::view::Overview;

#[derive(Serialize)]
struct Cluster {
    object: &'static str,
    version: &'static str,
    /// Requests that this gateway is answering.
    in_flight: i64,
    /// Those of them that wait for a worker with room.
    waiting: i64,
    #[serde(flatten)]
    overview: Overview,
}

/// Tells all of it.
pub(super) async fn show<C: Core>(State(edge): State<Edge<C>>) -> Response {
    let cluster = Cluster {
        object: "cluster",
        version: env!("CARGO_PKG_VERSION"),
        in_flight: edge.metrics.in_flight(),
        waiting: edge.metrics.waiting().get(),
        overview: edge.core.overview(),
    };
    ([(CACHE_CONTROL, "no-store")], Json(cluster)).into_response()
}
