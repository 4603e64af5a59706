//! `GET /cluster`: the current workers, models and requests of this gateway, for the page.

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json};
use http::header::CACHE_CONTROL;
use serde::Serialize;

use crate::auth::Caller;
use crate::call::Backend;
use crate::http::edge::Edge;
use crate::placement::Overview;

#[derive(Serialize)]
struct Cluster {
    object: &'static str,
    version: &'static str,
    /// Requests that this gateway is answering.
    in_flight: i64,
    /// Requests among them that wait for a free slot.
    waiting: i64,
    #[serde(flatten)]
    overview: Overview,
}

/// Answers for the models that the caller may use.
pub(crate) async fn show<C: Backend>(State(edge): State<Edge<C>>, caller: Option<Extension<Caller>>) -> Response {
    let mut overview = edge.core.overview();
    if let Some(caller) = caller {
        overview.retain(|model| caller.key().may_use(model));
    }
    let cluster = Cluster {
        object: "cluster",
        version: env!("CARGO_PKG_VERSION"),
        in_flight: edge.metrics.in_flight(),
        waiting: edge.metrics.waiting().get(),
        overview,
    };
    ([(CACHE_CONTROL, "no-store")], Json(cluster)).into_response()
}
