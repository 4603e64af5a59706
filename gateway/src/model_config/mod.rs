//! The gateway's own model names: aliases, fallbacks, and defaults of requests. See docs/models.md.
//!
//! `model_table.rs` reads them, `aliases.rs` says what a name stands for, and `splice.rs` applies the defaults (all
//! pure). `routed.rs` is a call that tries one model after another until one takes it.

mod aliases;
pub(crate) mod model_table;
mod prices;
mod routed;
mod splice;

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use tokenbus_api::ListedModel;
use tokenbus_protocol::Labels;

pub use model_table::ModelTable;
pub(crate) use model_table::Route;
pub(crate) use routed::{Routed, Served};

use crate::auth::budget::Price;
use crate::file_watch::{self, WatchedFile};
use crate::metrics::Metrics;
use crate::placement::Policies;

/// Largest model file in bytes: ten thousand models with defaults.
const MAX_FILE: u64 = 8 * 1024 * 1024;

/// The file that configures models.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelFile {
    /// Its path.
    pub path: PathBuf,
    /// The file configures everything, and `models` is one of its tables.
    pub shared: bool,
}

/// The configuration of models cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the models in {path} cannot be used: {reason}", path = path.display())]
pub struct ModelFileError {
    path: PathBuf,
    reason: String,
}

/// The configured models. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct ModelConfig(Option<Arc<RwLock<Arc<ModelTable>>>>);

impl ModelConfig {
    /// No model is configured.
    pub fn none() -> Self {
        Self(None)
    }

    /// Configures the models of `table`.
    pub fn new(table: ModelTable) -> Self {
        Self(Some(Arc::new(RwLock::new(Arc::new(table)))))
    }

    fn table(&self) -> Option<Arc<ModelTable>> {
        let table = self.0.as_ref()?;
        Some(Arc::clone(&table.read().unwrap_or_else(PoisonError::into_inner)))
    }

    fn set(&self, new: ModelTable) {
        if let Some(table) = &self.0 {
            *table.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
        }
    }

    /// The targets and defaults of a request for `model`; `None` if the request is not changed.
    pub fn route(&self, model: &str) -> Option<Arc<Route>> {
        self.table()?.route(model)
    }

    /// Whether a request for `model` keeps the tools that it offers, whatever the model knows.
    pub fn keeps_offered_tools(&self, model: &str) -> bool {
        self.table().is_some_and(|table| table.keeps_offered_tools(model))
    }

    /// What the tokens of a request for `asked` cost that a worker of `served` with these labels serves: the price of the
    /// name that the client used, or else that of the model. Without either they are free.
    pub fn price(&self, asked: &str, served: Option<&str>, labels: &Labels) -> Price {
        let price = self.table().and_then(|table| {
            let of_served = || served.and_then(|served| table.price(served, labels));
            table.price(asked, labels).or_else(of_served)
        });
        price.unwrap_or_default()
    }

    /// In which order requests use the workers of the models that have one of their own.
    pub(crate) fn policies(&self) -> Arc<Policies> {
        self.table().map(|table| table.policies()).unwrap_or_default()
    }

    /// The names of all aliases.
    pub fn aliases(&self) -> Vec<String> {
        let table = self.table();
        table.map_or_else(Vec::new, |table| {
            table.aliases().map(|(name, _)| name.to_owned()).collect()
        })
    }

    /// Adds the aliases to the cluster's models.
    #[must_use]
    pub fn with_aliases(&self, mut models: Vec<ListedModel>) -> Vec<ListedModel> {
        let Some(table) = self.table() else { return models };
        let aliases: Vec<ListedModel> = table
            .aliases()
            .map(|(name, route)| route.listed(name, &models))
            .collect();
        models.retain(|model| !table.is_alias(&model.name));
        models.extend(aliases);
        models
    }
}

/// Reads `file`. Pass it to [`follow`] once its models are in force.
///
/// # Errors
/// [`ModelFileError`].
pub(crate) async fn load(file: &ModelFile) -> Result<(ModelTable, WatchedFile), ModelFileError> {
    let wrong = |path: &Path, reason: String| ModelFileError {
        path: path.to_owned(),
        reason,
    };
    let text = file_watch::read(&file.path, MAX_FILE).await;
    let text = text.map_err(|error| wrong(&file.path, error.to_string()))?;
    let table = ModelTable::parse(&text, file.shared).map_err(|error| wrong(&file.path, error.to_string()))?;
    let followed = WatchedFile {
        what: "models",
        path: file.path.clone(),
        limit: MAX_FILE,
        text,
    };
    Ok((table, followed))
}

/// Keeps `config` current with `file`, and calls `changed` after each change.
pub(crate) async fn follow(
    config: ModelConfig,
    (file, shared): (WatchedFile, bool),
    metrics: Metrics,
    changed: impl Fn(&ModelConfig) + Sync,
) {
    let apply = |text: &str| {
        let table = ModelTable::parse(text, shared).map_err(|error| error.to_string())?;
        config.set(table);
        changed(&config);
        Ok(())
    };
    file_watch::follow(file, metrics, apply).await;
}
