//! What the handlers of all endpoints share.

use std::sync::Arc;

use prometheus_client::registry::Registry;
use tokenbus_telemetry::Tracer;
use tokio_util::sync::CancellationToken;

use crate::auth::Auth;
use crate::http::held::Bodies;
use crate::http::options::HttpOptions;
use crate::metrics::Metrics;
use crate::model_config::ModelConfig;
use crate::responses_store::{ResponsesStore, SealKeys};
use crate::story::KeptStories;
use crate::usage::Usage;

/// What the handlers share.
#[derive(Debug, Clone)]
pub struct Edge<C> {
    /// Places the calls.
    pub core: C,
    /// Settings.
    pub options: Arc<HttpOptions>,
    /// The bytes of all request bodies.
    pub bodies: Bodies,
    /// Measures each request.
    pub metrics: Metrics,
    /// The metrics that `/metrics` shows.
    pub registry: Arc<Registry>,
    /// The API keys and their rights.
    pub auth: Auth,
    /// The aliases and defaults of models.
    pub models: ModelConfig,
    /// Takes the usage record of each request.
    pub usage: Usage,
    /// Keeps the story of each request.
    pub stories: KeptStories,
    /// Makes the trace of each request.
    pub tracer: Tracer,
    /// The stored responses that conversations continue from.
    pub responses: ResponsesStore,
    /// The keys that seal the reasoning which clients carry.
    pub seals: SealKeys,
    /// Cancelled when the gateway begins to stop: `/readyz` fails from then on.
    pub draining: CancellationToken,
}
