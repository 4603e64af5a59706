//! How a gateway is set up, and why it stops.

use tokenbus_bus::{BusError, BusOptions};
use tokenbus_protocol::Name;
use tokio::time::Duration;

use crate::auth::source::KeySource;
use crate::auth::source::file::FileError;
use crate::http::HttpOptions;
use crate::limits;
use crate::model_config::{ModelFile, ModelFileError};
use crate::responses_store::ResponsesOptions;
use crate::usage::UsageStream;
use crate::waiting_room::Bounds;

/// How a gateway is set up.
#[derive(Debug, Clone)]
pub struct Options {
    /// How to reach NATS.
    pub bus: BusOptions,
    /// The cluster's namespace.
    pub namespace: Name,
    /// First part of the gateway's id; a random part is added, so that an id is never used twice.
    pub name: Option<Name>,
    /// The HTTP side.
    pub http: HttpOptions,
    /// Responses that are kept for their conversations.
    pub responses: ResponsesOptions,
    /// Time that a request which no worker has taken waits for NATS while that is away.
    pub bus_patience: Duration,
    /// Requests that may wait for room, and bytes of their bodies, all models together.
    pub waiting: Bounds,
    /// Time for which it goes on serving, with `/readyz` failing, after the stop was asked for, so
    /// that load balancers notice before connections are refused.
    pub drain_delay: Duration,
    /// Time that running streams have from then on.
    pub grace: Duration,
    /// Where the API keys are that it asks for; it asks for none without.
    pub keys: Option<KeySource>,
    /// Aliases, fallbacks and defaults of models.
    pub models: Option<ModelFile>,
    /// A stream that keeps usage records.
    pub usage_stream: Option<UsageStream>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            bus: BusOptions::default(),
            namespace: default_name("tb"),
            name: None,
            http: HttpOptions::default(),
            responses: ResponsesOptions::default(),
            bus_patience: limits::BUS_PATIENCE,
            waiting: Bounds {
                requests: limits::WAITING,
                bytes: limits::WAITING_BYTES,
            },
            // Without a load balancer there is nobody to notice.
            drain_delay: Duration::ZERO,
            grace: crate::http::limits::GRACE,
            keys: None,
            models: None,
            usage_stream: None,
        }
    }
}

/// Why a gateway stopped, or did not start.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// The bus cannot be used.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// The listener failed.
    #[error("cannot serve HTTP: {0}")]
    Http(#[from] std::io::Error),
    /// The keys cannot be used.
    #[error(transparent)]
    Keys(#[from] FileError),
    /// The configuration of models cannot be used.
    #[error(transparent)]
    Models(#[from] ModelFileError),
    /// One of the gateway's loops ended, which none does while it runs.
    #[error("the loop that reads {0} ended")]
    LoopEnded(&'static str),
}

/// A name that is known to be one.
pub(super) fn default_name(text: &'static str) -> Name {
    #[allow(clippy::expect_used)] // a literal of this file
    Name::new(text).expect("a literal name")
}
