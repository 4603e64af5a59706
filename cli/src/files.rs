//! Files of a configuration, in their folder. Each is replaced as a whole, and secrets are for their owner only.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// A file that cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {source}", path = path.display())]
pub(crate) struct FilesError {
    path: PathBuf,
    source: io::Error,
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> FilesError {
    let path = path.to_owned();
    move |source| FilesError { path, source }
}

/// Reads a file that the user named.
pub(crate) fn read(path: &Path) -> Result<String, FilesError> {
    fs::read_to_string(path).map_err(at(path))
}

/// A folder of a configuration.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
}

impl Folder {
    /// Opens the folder, and makes it where there is none.
    pub(crate) fn open(path: &Path) -> Result<Self, FilesError> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.and_then(|()| fs::canonicalize(path))
            .map(|path| Self { path })
            .map_err(at(path))
    }

    /// A folder in this one.
    pub(crate) fn within(&self, name: &str) -> Result<Self, FilesError> {
        Self::open(&self.path.join(name))
    }

    /// Its absolute path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The text of a file, if there is one.
    pub(crate) fn read(&self, name: &str) -> Result<Option<String>, FilesError> {
        let path = self.path.join(name);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(at(&path)(error)),
        }
    }

    /// Writes a file that everybody may read.
    pub(crate) fn write(&self, name: &str, text: &str) -> Result<(), FilesError> {
        self.replace(name, text, 0o644)
    }

    /// Writes a file that its owner alone may read.
    pub(crate) fn write_private(&self, name: &str, text: &str) -> Result<(), FilesError> {
        self.replace(name, text, 0o600)
    }

    /// Removes a file, if there is one.
    pub(crate) fn remove(&self, name: &str) -> Result<(), FilesError> {
        let path = self.path.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(at(&path)(error)),
            _ => Ok(()),
        }
    }

    fn replace(&self, name: &str, text: &str, mode: u32) -> Result<(), FilesError> {
        let path = self.path.join(name);
        let write = || {
            let mut file = tempfile::Builder::new()
                .permissions(Permissions::from_mode(mode))
                .tempfile_in(path.parent().unwrap_or(&self.path))?;
            file.write_all(text.as_bytes())?;
            // The umask may have taken bits away.
            file.as_file().set_permissions(Permissions::from_mode(mode))?;
            file.as_file().sync_all()?;
            let _: File = file.persist(&path)?;
            Ok(())
        };
        write().map_err(at(&path))
    }
}
