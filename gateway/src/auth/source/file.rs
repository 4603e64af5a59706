//! Keys in a TOML file, which is read again when it changes.

use std::path::{Path, PathBuf};

use super::super::Auth;
use super::super::key_table::{KeyTable, KeyTableError};
use super::super::limits::MAX_FILE;
use crate::file_watch::{self, ReadError, WatchedFile};
use crate::metrics::Metrics;

/// The keys of a file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the keys in {path} cannot be used: {reason}", path = path.display())]
pub struct FileError {
    path: PathBuf,
    reason: String,
}

/// Reads the keys in `path`. Pass the file to [`follow`] once they are in force.
///
/// # Errors
/// [`FileError`].
pub(crate) async fn load(path: &Path) -> Result<(KeyTable, WatchedFile), FileError> {
    let wrong = |reason: String| FileError {
        path: path.to_owned(),
        reason,
    };
    let text = file_watch::read(path, MAX_FILE).await;
    let text = text.map_err(|error: ReadError| wrong(error.to_string()))?;
    let table = KeyTable::parse(&text).map_err(|error: KeyTableError| wrong(error.to_string()))?;
    let followed = WatchedFile {
        what: "keys",
        path: path.to_owned(),
        limit: MAX_FILE,
        text,
    };
    Ok((table, followed))
}

/// Keeps `auth` current with `file`.
pub(crate) async fn follow(auth: Auth, file: WatchedFile, metrics: Metrics) {
    let apply = |text: &str| {
        let table = KeyTable::parse(text).map_err(|error| error.to_string())?;
        auth.set(table);
        Ok(())
    };
    file_watch::follow(file, metrics, apply).await;
}
