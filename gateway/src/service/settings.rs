//! What is set of keys, models and usage: read at the start, kept true by loops from then on.

use std::sync::Arc;

use tokenbus_bus::BusError;
use tokenbus_bus::task::{self, AbortOnDrop};
use tokenbus_protocol::Name;
use tokio_util::sync::CancellationToken;

use crate::auth::source::{self, KeySource};
use crate::auth::{self, Auth};
use crate::file_watch::Followed;
use crate::limits;
use crate::metrics::Metrics;
use crate::model_config::{self, ModelConfig};
use crate::service::{GatewayError, Loops, Options};
use crate::shared::Shared;
use crate::usage::{self, Usage, UsageStream};

/// What is set for keys and models, before any of it is in force.
pub(crate) struct Policy {
    keys: Option<(KeySource, Option<Followed>)>,
    auth: Auth,
    models: ModelConfig,
    models_file: Option<(Followed, bool)>,
}

impl Policy {
    /// Reads the files, which must be in order at the start.
    pub(crate) async fn load(options: &Options, gateway: &Name, metrics: &Metrics) -> Result<Self, GatewayError> {
        let mut policy = Self {
            keys: None,
            auth: Auth::off(),
            models: ModelConfig::none(),
            models_file: None,
        };
        if let Some(source) = options.keys.clone() {
            policy.auth = Auth::on(gateway.clone(), metrics.clone());
            let mut file = None;
            if let KeySource::File(path) = &source {
                let (table, followed) = source::file::load(path).await?;
                policy.auth.set(table);
                file = Some(followed);
            }
            policy.keys = Some((source, file));
        }
        if let Some(file) = &options.models {
            let (table, followed) = model_config::load(file).await?;
            policy.models = ModelConfig::new(table);
            policy.models_file = Some((followed, file.shared));
        }
        Ok(policy)
    }

    /// Starts what keeps it true, and what tells the other gateways.
    pub(crate) async fn start(self, shared: &Arc<Shared>, loops: &mut Loops) -> Result<(Auth, ModelConfig), BusError> {
        let metrics = || shared.metrics.clone();
        let auth = || self.auth.clone();
        if let Some((source, file)) = self.keys {
            if let Some(file) = file {
                loops.add("key file", source::file::follow(auth(), file, metrics()));
            }
            if let KeySource::Bucket(name) = source {
                let bucket = KeySource::bucket_name(name.as_deref(), shared.subjects.namespace());
                loops.add(
                    "key bucket",
                    source::bucket::follow(auth(), shared.bus.clone(), bucket, metrics()),
                );
            }
            let heard = shared.bus.subscribe(shared.subjects.limits()).await?;
            loops.add(
                "limits",
                auth::gossip(auth(), shared.bus.clone(), shared.subjects.limits(), heard),
            );
        }
        if let Some((file, is_shared)) = self.models_file {
            let models = self.models.clone();
            loops.add("models", model_config::follow(models, file, is_shared, metrics()));
        }
        Ok((self.auth, self.models))
    }
}

/// The loop that publishes usage records. It ends after the requests have.
pub(crate) struct Accounts {
    closing: CancellationToken,
    task: tokio::task::JoinHandle<()>,
    metrics: Metrics,
}

impl Accounts {
    /// Starts it.
    pub(crate) fn open(shared: &Shared, keep: Option<UsageStream>) -> (Usage, Self) {
        let (usage, records) = Usage::new(shared.gateway.clone(), shared.metrics.clone());
        let closing = CancellationToken::new();
        let publishing = usage::run(
            shared.bus.clone(),
            shared.subjects.usage(),
            records,
            keep,
            shared.metrics.clone(),
            closing.clone(),
        );
        let task = task::spawn("usage", publishing);
        let metrics = shared.metrics.clone();
        (usage, Self { closing, task, metrics })
    }

    /// Lets it publish what is left.
    pub(crate) async fn close(self) {
        self.closing.cancel();
        let task = AbortOnDrop::new(self.task);
        if tokio::time::timeout(limits::LAST_RECORDS, task.ended()).await.is_err() {
            let lost = self.metrics.usage_waiting().get();
            tracing::error!(lost, "the last usage records are lost: they were not published in time");
        }
    }
}
