//! The status page: `/healthz`, `/readyz`, `/metrics`, `GET /capacity` and `GET /scale`.

use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::registry::Registry;
use serde::Serialize;
use tokenbus_bus::Bus;
use tokenbus_protocol::{Capacity, ModelCapacity};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::leader::Leadership;
use crate::limits::WARM_UP;
use crate::page_access::{self, Checks, PageAccess};
use crate::page_server;
use crate::scaling::command::current;

/// The leader, if known. A follower answers with its own snapshot.
const LEADER: HeaderName = HeaderName::from_static("x-tokenbus-leader");

const OPENMETRICS: HeaderValue = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");

/// What the page shows.
#[derive(Clone)]
pub(crate) struct Page {
    /// The connection.
    pub(crate) bus: Bus,
    /// Whether the subscriptions are confirmed.
    pub(crate) subscribed: watch::Receiver<bool>,
    /// Who leads.
    pub(crate) leadership: watch::Receiver<Leadership>,
    /// The newest snapshot.
    pub(crate) newest: watch::Receiver<Arc<Capacity>>,
    /// The metrics.
    pub(crate) metrics: Arc<Registry>,
}

/// Serves the page until `shutdown`.
pub(crate) async fn run(page: Page, access: PageAccess, listener: TcpListener, shutdown: CancellationToken) {
    let checks = Checks::new(access);
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/capacity", get(capacity))
        .route("/scale", get(scale_all))
        .route("/scale/{*model}", get(scale_one))
        .with_state(page)
        .layer(axum::middleware::from_fn_with_state(checks, page_access::layer));
    page_server::serve(router, listener, shutdown).await;
}

fn unavailable(reason: &str) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response()
}

/// Why this coordinator does not see the workers, or `None` if it does.
fn not_ready(page: &Page) -> Option<String> {
    // Why it is away stands in the log: strangers may read this, and the reason names addresses.
    if !page.bus.is_connected() {
        return Some("NATS is away".to_owned());
    }
    if let Some(subject) = page.bus.refusals().borrow().subscriptions().next() {
        return Some(format!("NATS refuses the subscription to {subject}"));
    }
    (!*page.subscribed.borrow()).then(|| "the subscriptions are not confirmed yet".to_owned())
}

async fn readyz(State(page): State<Page>) -> Response {
    match not_ready(&page) {
        Some(reason) => unavailable(&reason),
        None => "ready\n".into_response(),
    }
}

async fn metrics(State(page): State<Page>) -> Response {
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, &page.metrics) {
        Ok(()) => ([(header::CONTENT_TYPE, OPENMETRICS)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "cannot encode the metrics");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// The newest snapshot of this coordinator, whether it leads or not. Right after the start this waits for the first one: an
/// empty one would be wrong.
async fn newest(page: &Page) -> Result<Arc<Capacity>, Response> {
    let mut newest = page.newest.clone();
    let first = newest.wait_for(|capacity| capacity.seq > 0);
    match tokio::time::timeout(2 * WARM_UP, first).await {
        Ok(Ok(capacity)) => Ok(Arc::clone(&capacity)),
        Ok(Err(_)) => Err(unavailable("the coordinator is shutting down")),
        Err(_) => {
            let reason = not_ready(page).unwrap_or_else(|| "no snapshot yet".to_owned());
            Err(unavailable(&reason))
        }
    }
}

async fn capacity(State(page): State<Page>) -> Result<Response, Response> {
    let mut response = Json(&*newest(&page).await?).into_response();
    let leader = page.leadership.borrow().leader.clone();
    if let Some(leader) = leader.and_then(|leader| HeaderValue::from_str(leader.as_str()).ok()) {
        response.headers_mut().insert(LEADER, leader);
    }
    Ok(response)
}

/// How many workers each model should have.
async fn scale_all(State(page): State<Page>) -> Result<Response, Response> {
    let capacity = newest(&page).await?;
    let models: Vec<Scale<'_>> = capacity
        .models
        .iter()
        .map(|model| Scale::of(model, &capacity))
        .collect();
    Ok(Json(models).into_response())
}

/// How many workers one model should have.
async fn scale_one(State(page): State<Page>, Path(name): Path<String>) -> Result<Response, Response> {
    let capacity = newest(&page).await?;
    let model = capacity.models.iter().find(|model| model.model == name);
    let unknown = || (StatusCode::NOT_FOUND, "no such model\n").into_response();
    Ok(Json(Scale::of(model.ok_or_else(unknown)?, &capacity)).into_response())
}

/// The signal to scale one model by. Its fields are at the top, so that an autoscaler can name one.
#[derive(Debug, Serialize)]
struct Scale<'a> {
    /// Name.
    model: &'a str,
    /// Workers that there should be.
    desired: u32,
    /// Workers that are there or on their way.
    current: u32,
    /// Those of them that are ready.
    ready: u32,
    /// Requests running.
    active: u32,
    /// Requests waiting, on workers and at gateways.
    waiting: u32,
}

impl<'a> Scale<'a> {
    fn of(model: &'a ModelCapacity, capacity: &Capacity) -> Self {
        Self {
            model: &model.model,
            desired: model.desired_workers,
            current: current(capacity, &model.model),
            ready: model.workers,
            active: model.active,
            waiting: model.queued.saturating_add(model.waiting),
        }
    }
}
