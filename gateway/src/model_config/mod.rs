//! Names of models that are the gateway's own: aliases, fallbacks, and defaults of requests. See
//! docs/models.md.
//!
//! `table.rs` reads them and `splice.rs` fills them in (both pure); `routed.rs` is a call that goes
//! to one model after the other until one takes it.

pub mod model_table;
mod routed;
mod splice;

use tokenbus_api::models::ListedModel;

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

pub use model_table::{ModelTable, Route, Target};
pub use routed::{Routed, Served};

use crate::file_watch::{self, Followed};
use crate::metrics::Metrics;

/// Largest file of models in bytes: ten thousand of them with defaults.
const MAX_FILE: u64 = 8 * 1024 * 1024;

/// Where the configuration of models is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelFile {
    /// The file.
    pub path: PathBuf,
    /// It is the configuration of everything, in which `models` is one table of many.
    pub shared: bool,
}

/// The configuration of models cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the models in {path} cannot be used: {reason}", path = path.display())]
pub struct ModelFileError {
    path: PathBuf,
    reason: String,
}

/// What is configured of models. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct ModelConfig(Option<Arc<RwLock<Arc<ModelTable>>>>);

impl ModelConfig {
    /// Nothing is.
    pub fn none() -> Self {
        Self(None)
    }

    /// This is.
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

    /// Where a request for `model` goes and with which defaults; `None` when it goes as it is.
    pub fn route(&self, model: &str) -> Option<Arc<Route>> {
        self.table()?.route(model)
    }

    /// The names of all aliases.
    pub fn aliases(&self) -> Vec<String> {
        let table = self.table();
        table.map_or_else(Vec::new, |table| {
            table.aliases().map(|(name, _)| name.to_owned()).collect()
        })
    }

    /// Adds the aliases to what the cluster has.
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

/// Reads `file`, to be given to [`follow`] once it is in place.
///
/// # Errors
/// [`ModelFileError`].
pub async fn load(file: &ModelFile) -> Result<(ModelTable, Followed), ModelFileError> {
    let wrong = |path: &Path, reason: String| ModelFileError {
        path: path.to_owned(),
        reason,
    };
    let text = file_watch::read(&file.path, MAX_FILE).await;
    let text = text.map_err(|error| wrong(&file.path, error.to_string()))?;
    let table = ModelTable::parse(&text, file.shared).map_err(|error| wrong(&file.path, error.to_string()))?;
    let followed = Followed {
        what: "models",
        path: file.path.clone(),
        limit: MAX_FILE,
        text,
    };
    Ok((table, followed))
}

/// Keeps `config` at what stands in `file`.
pub async fn follow(config: ModelConfig, file: Followed, shared: bool, metrics: Metrics) {
    let apply = |text: &str| {
        let table = ModelTable::parse(text, shared).map_err(|error| error.to_string())?;
        config.set(table);
        Ok(())
    };
    file_watch::follow(file, metrics, apply).await;
}
