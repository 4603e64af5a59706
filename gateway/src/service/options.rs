//! The options of a gateway, and the errors that end it.

use tokenbus_bus::{BusError, BusOptions};
use tokenbus_protocol::Name;
use tokenbus_telemetry::TelemetryError;
use tokio::time::Duration;

use crate::auth::source::KeySource;
use crate::auth::source::file::FileError;
use crate::http::HttpOptions;
use crate::limits;
use crate::model_config::{ModelFile, ModelFileError};
use crate::responses_store::ResponsesOptions;
use crate::usage::UsageStream;
use crate::waiting_room::Bounds;

/// The options of a gateway.
#[derive(Debug, Clone)]
pub struct Options {
    /// How to reach NATS.
    pub bus: BusOptions,
    /// The cluster's namespace.
    pub namespace: Name,
    /// First part of the gateway's id. A random part follows, so that no id is used twice.
    pub name: Option<Name>,
    /// Options of the HTTP edge.
    pub http: HttpOptions,
    /// How responses are kept.
    pub responses: ResponsesOptions,
    /// How long a request that no worker has taken waits while NATS is away.
    pub bus_patience: Duration,
    /// How many requests may wait for a free slot, and how many bytes their bodies may have, over all models.
    pub waiting: Bounds,
    /// A request that would wait longer than this for the workers of a tier may use the next one.
    pub tier_wait: Duration,
    /// How long the gateway still accepts connections after the stop, with `/readyz` failing, so that load balancers
    /// notice first.
    pub drain_delay: Duration,
    /// How long running streams may continue after that.
    pub grace: Duration,
    /// Where the API keys are. Without them, the gateway requires no keys.
    pub keys: Option<KeySource>,
    /// Aliases, fallbacks and defaults of models.
    pub models: Option<ModelFile>,
    /// Time to the first output beyond which a request is traced in any case, where traces are on.
    pub trace_slow: Duration,
    /// The stream that keeps usage records.
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
            tier_wait: limits::TIER_WAIT,
            // Without a load balancer, nobody needs the delay.
            drain_delay: Duration::ZERO,
            grace: crate::http::limits::GRACE,
            keys: None,
            models: None,
            trace_slow: tokenbus_telemetry::SLOW,
            usage_stream: None,
        }
    }
}

/// Why a gateway stopped or did not start.
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
    /// Traces cannot be told as asked.
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    /// One of the gateway's loops ended. None does while the gateway runs.
    #[error("the loop that reads {0} ended")]
    LoopEnded(&'static str),
}

/// Makes a name from a literal that is a valid one.
pub(super) fn default_name(text: &'static str) -> Name {
    #[allow(clippy::expect_used)] // a literal of this file
    Name::new(text).expect("a literal name")
}
