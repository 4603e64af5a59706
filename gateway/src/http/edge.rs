//! What the handlers of all endpoints share.

use std::sync::Arc;

use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;

use crate::auth::Auth;
use crate::http::options::HttpOptions;
use crate::metrics::Metrics;
use crate::model_config::ModelConfig;
use crate::responses_store::ResponsesStore;
use crate::usage::Usage;

/// What the handlers share.
#[derive(Debug, Clone)]
pub struct Edge<C> {
    /// Places the calls.
    pub core: C,
    /// Settings.
    pub options: Arc<HttpOptions>,
    /// What each request is measured with.
    pub metrics: Metrics,
    /// What `/metrics` shows.
    pub registry: Arc<Registry>,
    /// Who may ask for what.
    pub auth: Auth,
    /// What names of models mean.
    pub models: ModelConfig,
    /// What each request used is told here.
    pub usage: Usage,
    /// Responses that conversations may go on from.
    pub responses: ResponsesStore,
    /// Cancelled when the gateway begins to stop: `/readyz` fails from then on.
    pub draining: CancellationToken,
}
