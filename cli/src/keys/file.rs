//! Keys in a TOML file. A change keeps all other content, comments included. A reader sees the old file or the new one,
//! never half of it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::num::NonZeroU64;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use tokenbus_gateway::{KeyEntry, KeyTable};
use tokenbus_protocol::Name;
use toml_edit::{Array, DocumentMut, Item, Table, value};

use super::error::KeysError;

/// Mode of a new file: only its owner may read and write it.
const MODE: u32 = 0o600;

/// A key file.
pub(super) struct File {
    path: PathBuf,
}

#[derive(Deserialize)]
struct Keys {
    #[serde(default)]
    keys: BTreeMap<String, KeyEntry>,
}

impl File {
    pub(super) fn new(path: &Path) -> Self {
        // A link stays a link: its target is replaced.
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        Self { path }
    }

    pub(super) fn add(&self, name: &Name, entry: &KeyEntry) -> Result<(), KeysError> {
        self.change(|document| {
            let keys = document.entry("keys").or_insert_with(|| {
                let mut keys = Table::new();
                keys.set_implicit(true);
                Item::Table(keys)
            });
            let Some(keys) = keys.as_table_like_mut() else {
                return Err(self.wrong("keys is no table"));
            };
            if keys.contains_key(name.as_str()) {
                return Err(KeysError::Exists(name.clone()));
            }
            keys.insert(name.as_str(), Item::Table(table(entry)));
            Ok(())
        })
    }

    pub(super) fn remove(&self, name: &Name) -> Result<(), KeysError> {
        self.change(|document| {
            let keys = document.get_mut("keys").and_then(Item::as_table_like_mut);
            let removed = keys.and_then(|keys| keys.remove(name.as_str()));
            removed.map(drop).ok_or_else(|| KeysError::Unknown(name.clone()))
        })
    }

    pub(super) fn list(&self) -> Result<Vec<(String, KeyEntry)>, KeysError> {
        let text = fs::read_to_string(&self.path).map_err(|error| self.wrong(error))?;
        KeyTable::parse(&text).map_err(|error| self.wrong(error))?;
        let keys: Keys = toml::from_str(&text).map_err(|error| self.wrong(error.message()))?;
        Ok(keys.keys.into_iter().collect())
    }

    fn wrong(&self, reason: impl std::fmt::Display) -> KeysError {
        KeysError::Place {
            place: self.path.display().to_string(),
            reason: reason.to_string(),
        }
    }

    fn folder(&self) -> &Path {
        match self.path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        }
    }

    fn change(&self, change: impl FnOnce(&mut DocumentMut) -> Result<(), KeysError>) -> Result<(), KeysError> {
        // Others who change the file wait. The lock is on the folder, because the file is replaced.
        let lock = fs::File::open(self.folder()).and_then(|folder| folder.lock().map(|()| folder));
        let _lock = lock.map_err(|error| self.wrong(error))?;
        let text = match fs::read_to_string(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(self.wrong(error)),
        };
        KeyTable::parse(&text).map_err(|error| self.wrong(error))?;
        let mut document: DocumentMut = text.parse().map_err(|error| self.wrong(error))?;
        change(&mut document)?;
        let mut text = document.to_string();
        if text.trim().is_empty() {
            // Gateways take an empty file for one that was cut off.
            "[keys]\n".clone_into(&mut text);
        }
        // A file that the gateways would refuse is not written.
        KeyTable::parse(&text).map_err(|error| self.wrong(error))?;
        self.replace(&text).map_err(|error| self.wrong(error))
    }

    fn replace(&self, text: &str) -> io::Result<()> {
        let mut new = tempfile::Builder::new().prefix(".keys-").tempfile_in(self.folder())?;
        let permissions = match fs::metadata(&self.path) {
            Ok(old) => old.permissions(),
            Err(_) => fs::Permissions::from_mode(MODE),
        };
        new.as_file().set_permissions(permissions)?;
        new.write_all(text.as_bytes())?;
        new.as_file().sync_all()?;
        new.persist(&self.path)?;
        Ok(())
    }
}

fn table(entry: &KeyEntry) -> Table {
    let mut table = Table::new();
    table.insert("hash", value(entry.hash.to_string()));
    if let Some(tenant) = &entry.tenant {
        table.insert("tenant", value(tenant));
    }
    if let Some(models) = &entry.models {
        table.insert(
            "models",
            value(Array::from_iter(models.iter().map(|model| model.as_str()))),
        );
    }
    // The largest number of TOML stands for no limit.
    let large = |limit: NonZeroU64| i64::try_from(limit.get()).unwrap_or(i64::MAX);
    let numbers = [
        (
            "requests-per-minute",
            entry.requests_per_minute.map(|limit| i64::from(limit.get())),
        ),
        ("tokens-per-minute", entry.tokens_per_minute.map(large)),
        ("streams", entry.streams.map(|limit| i64::from(limit.get()))),
        ("tokens-per-day", entry.tokens_per_day.map(large)),
        ("tokens-per-month", entry.tokens_per_month.map(large)),
        (
            "priority",
            Some(i64::from(entry.priority)).filter(|priority| *priority != 0),
        ),
    ];
    for (name, number) in numbers {
        if let Some(number) = number {
            table.insert(name, value(number));
        }
    }
    for (name, money) in [
        ("cost-per-day", entry.cost_per_day),
        ("cost-per-month", entry.cost_per_month),
    ] {
        if let Some(money) = money {
            table.insert(name, value(f64::from(money)));
        }
    }
    for (right, given) in [
        ("metrics", entry.metrics),
        ("cluster", entry.cluster),
        ("engine-members", entry.engine_members),
    ] {
        if given {
            table.insert(right, value(true));
        }
    }
    if !entry.labels.is_empty() {
        let labels = entry.labels.iter().map(ToString::to_string);
        table.insert("labels", value(Array::from_iter(labels)));
    }
    table
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use std::num::NonZeroU32;

    use tokenbus_gateway::{KeyHash, Pattern};
    use tokenbus_protocol::Labels;

    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    fn full(of: &str) -> KeyEntry {
        KeyEntry {
            tenant: Some("team \"a\"".to_owned()),
            models: Some(vec![Pattern::new("gpt-*"), Pattern::new("a/b")]),
            requests_per_minute: NonZeroU32::new(60),
            tokens_per_minute: NonZeroU64::new(u64::MAX),
            streams: NonZeroU32::new(4),
            tokens_per_day: NonZeroU64::new(1000),
            cost_per_month: "0.5".parse().ok(),
            priority: -3,
            metrics: true,
            cluster: true,
            engine_members: true,
            labels: Labels::new(["region=eu".parse().unwrap()]).unwrap(),
            ..KeyEntry::new(KeyHash::of(of.as_bytes()))
        }
    }

    #[test]
    fn what_is_written_is_what_gateways_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.toml");
        let file = File::new(&path);
        file.add(&name("alice"), &full("a")).unwrap();
        file.add(&name("bob"), &KeyEntry::new(KeyHash::of(b"b"))).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, MODE);
        let read = file.list().unwrap();
        let written = KeyEntry {
            tokens_per_minute: NonZeroU64::new(i64::MAX as u64),
            ..full("a")
        };
        assert_eq!(read[0], ("alice".to_owned(), written));
        assert_eq!(read[1].1, KeyEntry::new(KeyHash::of(b"b")));
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("[keys.alice]\n"), "{text}");
        file.remove(&name("alice")).unwrap();
        assert_eq!(file.list().unwrap().len(), 1);
        assert_eq!(
            fs::read_dir(folder.path()).unwrap().count(),
            1,
            "nothing is left behind"
        );
    }

    #[test]
    fn what_else_is_in_the_file_stays() {
        let folder = tempfile::tempdir().unwrap();
        let (path, link) = (folder.path().join("keys.toml"), folder.path().join("link"));
        let hash = KeyHash::of(b"a");
        let old = format!("# ours\n\n[keys.alice] # the first\nhash = \"{hash}\"\nstreams    = 3 # few\n");
        fs::write(&path, &old).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let file = File::new(&link);
        file.add(&name("bob"), &full("b")).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with(&old), "{text}");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        file.remove(&name("bob")).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), old);
    }

    #[test]
    fn what_cannot_be_done_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.toml");
        let file = File::new(&path);
        assert!(matches!(file.remove(&name("bob")), Err(KeysError::Unknown(_))));
        assert!(!path.exists());
        assert!(file.list().unwrap_err().to_string().contains("keys.toml"));
        file.add(&name("bob"), &full("b")).unwrap();
        let before = fs::read_to_string(&path).unwrap();
        assert!(matches!(file.add(&name("bob"), &full("c")), Err(KeysError::Exists(_))));
        assert!(
            file.add(&name("carl"), &full("b"))
                .unwrap_err()
                .to_string()
                .contains("bob")
        );
        assert_eq!(fs::read_to_string(&path).unwrap(), before);
        fs::write(&path, "[keys.bob]\nhash = 3\n").unwrap();
        let error = file.add(&name("carl"), &full("c")).unwrap_err().to_string();
        assert!(error.contains("line 2"), "{error}");
    }
}
