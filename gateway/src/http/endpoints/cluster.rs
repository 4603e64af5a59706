//! `GET /cluster`: the current workers, models and requests of this gateway, for the page. A key that may not see the
//! cluster is told only which of its models are served.

use std::sync::Arc;

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

/// What a key without the right to see the cluster is told.
#[derive(Serialize)]
struct Served {
    object: &'static str,
    version: &'static str,
    models: Vec<ServedModel>,
}

#[derive(Serialize)]
struct ServedModel {
    model: String,
    /// Whether a worker serves it now.
    ready: bool,
}

const OBJECT: &str = "cluster";
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Answers for the models that the caller may use.
pub(crate) async fn show<C: Backend>(State(edge): State<Arc<Edge<C>>>, caller: Option<Extension<Caller>>) -> Response {
    let mut overview = edge.core.overview();
    if let Some(caller) = caller {
        overview.retain(|model| caller.key().may_use(model));
        if !caller.key().cluster {
            return fresh(Served::of(overview));
        }
    }
    let cluster = Cluster {
        object: OBJECT,
        version: VERSION,
        in_flight: edge.metrics.in_flight(),
        waiting: edge.metrics.waiting(),
        overview,
    };
    fresh(cluster)
}

fn fresh(answer: impl Serialize) -> Response {
    ([(CACHE_CONTROL, "no-store")], Json(answer)).into_response()
}

impl Served {
    fn of(overview: Overview) -> Self {
        let models = overview.models.into_iter().map(|model| ServedModel {
            model: model.model,
            ready: model.workers > 0,
        });
        Self {
            object: OBJECT,
            version: VERSION,
            models: models.collect(),
        }
    }
}
