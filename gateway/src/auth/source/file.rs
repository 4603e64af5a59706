//! Keys in a TOML file, which is read again when it changes.

use std::path::{Path, PathBuf};

use super::super::Auth;
use super::super::key_table::KeyTable;
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
    let table = parse(&text).map_err(wrong)?;
    let followed = WatchedFile {
        what: "keys",
        path: path.to_owned(),
        limit: MAX_FILE,
        text,
    };
    Ok((table, followed))
}

/// Reads a key file's text. Without any it is no file without keys but one that was cut off: that has a `[keys]`.
fn parse(text: &str) -> Result<KeyTable, String> {
    if text.trim().is_empty() {
        return Err("it is empty; a file without keys has the line [keys]".to_owned());
    }
    KeyTable::parse(text).map_err(|error| error.to_string())
}

/// Keeps `auth` current with `file`.
pub(crate) async fn follow(auth: Auth, file: WatchedFile, metrics: Metrics) {
    let apply = |text: &str| {
        auth.set(parse(text)?);
        Ok(())
    };
    file_watch::follow(file, metrics, apply).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_file_is_an_error_and_one_without_keys_is_not() {
        for text in ["", " \n\n"] {
            assert!(parse(text).is_err_and(|reason| reason.contains("empty")));
        }
        assert!(parse("[keys]\n").is_ok_and(|table| table.is_empty()));
    }
}
