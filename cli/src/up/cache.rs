//! The cache folder: versioned entries that are either whole or not there.
//!
//! An entry `NAME` is prepared in `NAME.partial` and renamed into place. Whoever prepares it holds
//! a lock on `NAME.lock`, which the kernel releases when the holder dies: so a `.partial` whose
//! lock is free is a leftover, and two processes never prepare the same entry.

use std::ffi::OsString;
use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

/// The folder that holds everything which was downloaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cache {
    root: PathBuf,
    /// A folder of the same kind that is only read, as a container's image has it.
    provisioned: Option<PathBuf>,
}

/// Why the cache folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CacheError {
    /// Neither variable is set.
    #[error("no folder for downloads: HOME is not set; set TOKENBUS_CACHE to a writable folder")]
    NoHome,
    /// The file system said no.
    #[error(
        "cannot {action} {path}: {source}; make it writable, or set TOKENBUS_CACHE to another folder",
        path = path.display()
    )]
    Io {
        /// What was attempted, as a verb.
        action: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl CacheError {
    /// For `map_err`: what was attempted, and where.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}

impl Cache {
    /// The folder the environment names: `$TOKENBUS_CACHE`, else `$XDG_CACHE_HOME/tokenbus`, else
    /// `$HOME/.cache/tokenbus`. What is whole in `$TOKENBUS_PROVISIONED` is used from there.
    ///
    /// # Errors
    /// [`CacheError::NoHome`] where none of them is set.
    pub(crate) fn from_env(variable: impl Fn(&str) -> Option<OsString>) -> Result<Self, CacheError> {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let root = if let Some(root) = set("TOKENBUS_CACHE") {
            root
        } else if let Some(xdg) = set("XDG_CACHE_HOME").filter(|path| path.is_absolute()) {
            xdg.join("tokenbus")
        } else {
            set("HOME").ok_or(CacheError::NoHome)?.join(".cache/tokenbus")
        };
        // Children run in other directories: a relative folder must mean the same to them.
        let root = std::path::absolute(&root).map_err(CacheError::io("use", &root))?;
        let provisioned = set("TOKENBUS_PROVISIONED").filter(|path| path.is_absolute());
        Ok(Self { root, provisioned })
    }

    /// A cache in this folder.
    #[cfg(test)]
    pub(crate) fn at(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            provisioned: None,
        }
    }

    /// The folder itself; it may not exist yet.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The entry of this name, whether it exists or not.
    pub(crate) fn entry(&self, name: &str) -> Entry {
        Entry {
            root: self.root.clone(),
            name: name.to_owned(),
        }
    }

    /// The folder of the whole entry `name`, known by its file `proof`; `None` where it has to be installed.
    pub(crate) fn ready(&self, name: &str, proof: &str) -> Option<PathBuf> {
        [Some(&self.root), self.provisioned.as_ref()]
            .into_iter()
            .flatten()
            .map(|root| root.join(name))
            .find(|folder| folder.join(proof).is_file())
    }

    /// Removes what processes that died have left half-made. Failures are not worth a message: the
    /// next start tries again.
    pub(crate) fn sweep(&self) {
        let Ok(listing) = std::fs::read_dir(&self.root) else {
            return;
        };
        for found in listing.flatten() {
            let file_name = found.file_name();
            let Some(name) = file_name.to_str().and_then(|name| name.strip_suffix(".partial")) else {
                continue;
            };
            // Taking the lock removes the leftover.
            if let Ok(Some(lock)) = self.entry(name).try_lock() {
                tracing::debug!(entry = name, "removed a half-made download of a dead process");
                drop(lock);
            }
        }
    }
}

/// One versioned entry of the cache.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    root: PathBuf,
    name: String,
}

impl Entry {
    /// Where the whole entry is, once it is there.
    pub(crate) fn path(&self) -> PathBuf {
        self.root.join(&self.name)
    }

    /// Takes the entry's lock if it is free; `None` while another process prepares it.
    ///
    /// # Errors
    /// [`CacheError::Io`] if the folder is not writable.
    pub(crate) fn try_lock(&self) -> Result<Option<Lock>, CacheError> {
        let (file, path) = self.open_lock()?;
        match file.try_lock() {
            Ok(()) => self.locked(file).map(Some),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(CacheError::io("lock", &path)(error)),
        }
    }

    /// Waits for the entry's lock; blocks the calling thread.
    ///
    /// # Errors
    /// [`CacheError::Io`] if the folder is not writable.
    pub(crate) fn lock_blocking(&self) -> Result<Lock, CacheError> {
        let (file, path) = self.open_lock()?;
        file.lock().map_err(CacheError::io("lock", &path))?;
        self.locked(file)
    }

    fn open_lock(&self) -> Result<(File, PathBuf), CacheError> {
        std::fs::create_dir_all(&self.root).map_err(CacheError::io("create", &self.root))?;
        let path = self.root.join(format!("{}.lock", self.name));
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(CacheError::io("open", &path))?;
        Ok((file, path))
    }

    fn locked(&self, file: File) -> Result<Lock, CacheError> {
        let lock = Lock {
            entry: self.clone(),
            _held: file,
        };
        lock.discard()?;
        Ok(lock)
    }
}

/// The right to prepare an entry; dropping it discards what is not committed.
#[derive(Debug)]
pub(crate) struct Lock {
    entry: Entry,
    _held: File,
}

impl Lock {
    /// Where the entry is prepared. Same file system as the entry, so that the rename is atomic.
    pub(crate) fn partial(&self) -> PathBuf {
        self.entry.root.join(format!("{}.partial", self.entry.name))
    }

    /// Puts `prepared` (a folder within [`Self::partial`]) in the entry's place, replacing what may
    /// be there, and returns the entry's path.
    ///
    /// # Errors
    /// [`CacheError::Io`] if the file system refuses.
    pub(crate) fn commit(&self, prepared: &Path) -> Result<PathBuf, CacheError> {
        let place = self.entry.path();
        if place.exists() {
            // An entry that was damaged by hand. What uses it keeps its open files.
            let aside = self.partial().join("replaced");
            std::fs::rename(&place, &aside).map_err(CacheError::io("replace", &place))?;
        }
        std::fs::rename(prepared, &place).map_err(CacheError::io("create", &place))?;
        Ok(place)
    }

    fn discard(&self) -> Result<(), CacheError> {
        let partial = self.partial();
        match std::fs::remove_dir_all(&partial) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(CacheError::io("remove", &partial)(error)),
            _ => Ok(()),
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        if let Err(error) = self.discard() {
            tracing::debug!(%error, "a half-made download stays until the next start");
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use super::*;

    fn from(pairs: &[(&str, &str)]) -> Result<Cache, CacheError> {
        Cache::from_env(|name| {
            pairs
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| OsString::from(value))
        })
    }

    #[test]
    fn the_folder_follows_the_environment_in_order() {
        let all = [("TOKENBUS_CACHE", "/a"), ("XDG_CACHE_HOME", "/b"), ("HOME", "/c")];
        assert_eq!(from(&all).unwrap().root(), Path::new("/a"));
        assert_eq!(from(&all[1..]).unwrap().root(), Path::new("/b/tokenbus"));
        assert_eq!(from(&all[2..]).unwrap().root(), Path::new("/c/.cache/tokenbus"));
        assert_eq!(
            from(&[("TOKENBUS_CACHE", ""), ("XDG_CACHE_HOME", "relative"), ("HOME", "/c")])
                .unwrap()
                .root(),
            Path::new("/c/.cache/tokenbus")
        );
        assert!(from(&[]).unwrap_err().to_string().contains("TOKENBUS_CACHE"));
    }

    #[test]
    fn what_an_image_brought_is_used_where_the_own_folder_has_nothing() {
        let (own, image) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let cache = from(&[
            ("TOKENBUS_CACHE", own.path().to_str().unwrap()),
            ("TOKENBUS_PROVISIONED", image.path().to_str().unwrap()),
        ])
        .unwrap();
        assert_eq!(cache.ready("thing-1", "file"), None);
        for root in [image.path(), own.path()] {
            std::fs::create_dir(root.join("thing-1")).unwrap();
            assert_ne!(cache.ready("thing-1", "file"), Some(root.join("thing-1")));
            std::fs::write(root.join("thing-1/file"), "").unwrap();
            assert_eq!(cache.ready("thing-1", "file"), Some(root.join("thing-1")));
        }
    }

    #[test]
    fn an_entry_appears_whole_or_not_at_all() {
        let root = tempfile::tempdir().unwrap();
        let entry = Cache::at(root.path()).entry("thing-1");
        {
            let lock = entry.try_lock().unwrap().unwrap();
            std::fs::create_dir_all(lock.partial().join("root")).unwrap();
            std::fs::write(lock.partial().join("root/file"), "half").unwrap();
        }
        assert!(!entry.path().exists());
        assert!(!root.path().join("thing-1.partial").exists());

        let lock = entry.try_lock().unwrap().unwrap();
        let prepared = lock.partial().join("root");
        std::fs::create_dir_all(&prepared).unwrap();
        std::fs::write(prepared.join("file"), "whole").unwrap();
        assert_eq!(lock.commit(&prepared).unwrap(), entry.path());
        drop(lock);
        assert_eq!(std::fs::read_to_string(entry.path().join("file")).unwrap(), "whole");
        assert!(!root.path().join("thing-1.partial").exists());
    }

    #[test]
    fn only_one_prepares_and_a_damaged_entry_is_replaced() {
        let root = tempfile::tempdir().unwrap();
        let entry = Cache::at(root.path()).entry("thing-1");
        let lock = entry.try_lock().unwrap().unwrap();
        assert!(entry.try_lock().unwrap().is_none());
        std::fs::create_dir_all(entry.path()).unwrap();
        std::fs::write(entry.path().join("damaged"), "").unwrap();
        let prepared = lock.partial().join("root");
        std::fs::create_dir_all(&prepared).unwrap();
        lock.commit(&prepared).unwrap();
        assert!(!entry.path().join("damaged").exists());
        drop(lock);
        assert!(entry.try_lock().unwrap().is_some());
    }

    #[test]
    fn leftovers_of_the_dead_go_and_those_of_the_living_stay() {
        let root = tempfile::tempdir().unwrap();
        let cache = Cache::at(root.path());
        std::fs::create_dir_all(root.path().join("dead.partial/root")).unwrap();
        let alive = cache.entry("alive").try_lock().unwrap().unwrap();
        std::fs::create_dir_all(alive.partial()).unwrap();
        cache.sweep();
        assert!(!root.path().join("dead.partial").exists());
        assert!(alive.partial().exists());
    }
}
