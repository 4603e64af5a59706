//! The settings of keys and models: loaded at the start, and kept current by loops.

use std::sync::Arc;

use tokenbus_bus::BusError;
use tokenbus_protocol::Name;

use super::options::{GatewayError, Options};
use super::tasks::Tasks;
use crate::auth::source::{self, KeySource};
use crate::auth::{Auth, gossip};
use crate::file_watch::WatchedFile;
use crate::metrics::Metrics;
use crate::model_config::{self, ModelConfig};

use crate::shared::Shared;

/// The settings of keys and models, before they are in force.
pub(super) struct Settings {
    keys: Option<(KeySource, Option<WatchedFile>)>,
    auth: Auth,
    models: ModelConfig,
    models_file: Option<(WatchedFile, bool)>,
}

impl Settings {
    /// Loads the files. At the start they must be valid.
    pub(super) async fn load(options: &Options, gateway: &Name, metrics: &Metrics) -> Result<Self, GatewayError> {
        let mut settings = Self {
            keys: None,
            auth: Auth::off(),
            models: ModelConfig::none(),
            models_file: None,
        };
        if let Some(source) = options.keys.clone() {
            settings.auth = Auth::on(gateway.clone(), metrics.clone());
            let mut file = None;
            if let KeySource::File(path) = &source {
                let (table, followed) = source::file::load(path).await?;
                settings.auth.set(table);
                file = Some(followed);
            }
            settings.keys = Some((source, file));
        }
        if let Some(file) = &options.models {
            let (table, followed) = model_config::load(file).await?;
            settings.models = ModelConfig::new(table);
            settings.models_file = Some((followed, file.shared));
        }
        Ok(settings)
    }

    /// Starts the loops that keep the settings current and share the keys' consumption with the other gateways.
    pub(super) async fn start(self, shared: &Arc<Shared>, tasks: &mut Tasks) -> Result<(Auth, ModelConfig), BusError> {
        let metrics = || shared.metrics.clone();
        let auth = || self.auth.clone();
        if let Some((source, file)) = self.keys {
            if let Some(file) = file {
                tasks.add("key file", source::file::follow(auth(), file, metrics()));
            }
            if let KeySource::Bucket(name) = source {
                let bucket = KeySource::bucket_name(name.as_deref(), shared.subjects.namespace());
                tasks.add(
                    "key bucket",
                    source::bucket::follow(auth(), shared.bus.clone(), bucket, metrics()),
                );
            }
            let heard = shared.bus.subscribe(shared.subjects.limits()).await?;
            tasks.add(
                "limits",
                gossip::run(auth(), shared.bus.clone(), shared.subjects.limits(), heard),
            );
        }
        if let Some(file) = self.models_file {
            let order = {
                let shared = Arc::clone(shared);
                move |models: &ModelConfig| shared.view().set_policies(models.policies())
            };
            order(&self.models);
            let models = self.models.clone();
            tasks.add("models", model_config::follow(models, file, metrics(), order));
        }
        Ok((self.auth, self.models))
    }
}
