//! Files that are read again when they change, noticed by a file watch or on SIGHUP.
//!
//! The watch is on the folder, because editors and orchestrators replace a file instead of writing to it (Kubernetes
//! swaps a link beside it). The text decides whether the file has changed.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::io::AsyncReadExt as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;

use crate::metrics::Metrics;

/// Time between the first sign of a change and the reading, because programs write a file in several steps.
const SETTLE: Duration = Duration::from_millis(50);

/// Time after which a file that could not be used is read again, though nothing told of a change: a disk or a network
/// that fails tells nothing when it is back.
const RETRY: Duration = Duration::from_secs(1);

/// A file cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// The system reported an error.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It is larger than this many bytes.
    #[error("it is larger than {0} bytes")]
    TooLarge(u64),
    /// It is not text.
    #[error("it is not UTF-8")]
    NotText,
}

/// Reads a file of at most `limit` bytes.
///
/// # Errors
/// [`ReadError`].
pub(crate) async fn read(path: &Path, limit: u64) -> Result<String, ReadError> {
    let file = tokio::fs::File::open(path).await?;
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).await?;
    if bytes.len() as u64 > limit {
        return Err(ReadError::TooLarge(limit));
    }
    String::from_utf8(bytes).map_err(|_| ReadError::NotText)
}

/// A file to follow.
#[derive(Debug, Clone)]
pub(crate) struct WatchedFile {
    /// The name of its contents in logs and metrics: `keys`, `models`.
    pub what: &'static str,
    /// Its path.
    pub path: PathBuf,
    /// Largest size in bytes.
    pub limit: u64,
    /// The text that was read and applied last.
    pub text: String,
}

/// Passes the text of `file` to `apply` whenever it changes. A text that cannot be read or applied changes nothing; it
/// is logged and counted, and tried again until it can.
pub(crate) async fn follow(
    mut file: WatchedFile,
    metrics: Metrics,
    mut apply: impl FnMut(&str) -> Result<(), String> + Send,
) {
    let mut watch = Watch::new(&file.path);
    // It may have changed before the watch began.
    watch.changed.notify_one();
    // Refuses the same text once, not at every sign of a change.
    let mut refused: Option<String> = None;
    loop {
        let again = async {
            match &refused {
                Some(_) => tokio::time::sleep(RETRY).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = watch.changed() => {}
            () = again => {}
        }
        tokio::time::sleep(SETTLE).await;
        watch.attend(&file.path);
        let (what, path) = (file.what, file.path.display());
        let outcome = match read(&file.path, file.limit).await {
            Ok(text) if text == file.text => {
                refused = None;
                continue;
            }
            Ok(text) => apply(&text).map(|()| file.text = text),
            Err(error) => Err(error.to_string()),
        };
        match outcome {
            Ok(()) => {
                refused = None;
                metrics.reloaded(what, true);
                tracing::info!(what, %path, "file was read again");
            }
            Err(reason) if refused.as_ref() != Some(&reason) => {
                metrics.reloaded(what, false);
                tracing::error!(what, %path, reason, "file cannot be used, its last valid contents stay");
                refused = Some(reason);
            }
            Err(_) => {}
        }
    }
}

/// The signs of a change: events of the file system and SIGHUP.
struct Watch {
    changed: Arc<Notify>,
    names: Arc<Mutex<BTreeSet<OsString>>>,
    watcher: Option<RecommendedWatcher>,
    folders: BTreeSet<PathBuf>,
    hangup: Option<Signal>,
}

impl Watch {
    fn new(path: &Path) -> Self {
        let changed = Arc::new(Notify::new());
        let names = Arc::new(Mutex::new(BTreeSet::new()));
        let (tell, concerned) = (Arc::clone(&changed), Arc::clone(&names));
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            let concerned = concerned.lock().unwrap_or_else(PoisonError::into_inner);
            // An error of the watch may hide a change.
            if event.map_or(true, |event| concerns(&event, &concerned)) {
                tell.notify_one();
            }
        });
        let mut watch = Self {
            changed,
            names,
            watcher: watcher.map_err(|error| not_watched(path, &error)).ok(),
            folders: BTreeSet::new(),
            hangup: signal(SignalKind::hangup()).ok(),
        };
        watch.attend(path);
        watch
    }

    /// Watches the folder of `path`, and the folder of its target if it is a link.
    fn attend(&mut self, path: &Path) {
        let Some(watcher) = &mut self.watcher else { return };
        let behind = std::fs::canonicalize(path).ok();
        let paths = [Some(path), behind.as_deref()];
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        names.clear();
        names.extend(
            paths
                .into_iter()
                .flatten()
                .filter_map(Path::file_name)
                .map(OsString::from),
        );
        drop(names);
        let folders: BTreeSet<PathBuf> = paths.into_iter().flatten().map(folder).collect();
        for left in self.folders.difference(&folders) {
            // The folder may be gone, and its watch with it.
            let _ = watcher.unwatch(left);
        }
        for new in folders.difference(&self.folders) {
            if let Err(error) = watcher.watch(new, RecursiveMode::NonRecursive) {
                not_watched(new, &error);
            }
        }
        self.folders = folders;
    }

    async fn changed(&mut self) {
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.changed.notified() => {}
            _ = hangup => {}
        }
    }
}

fn not_watched(path: &Path, error: &notify::Error) {
    tracing::warn!(path = %path.display(), %error, "changes are not noticed; send SIGHUP after a change");
}

fn folder(path: &Path) -> PathBuf {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// Whether `event` may be a change of a file with one of these names. Reading a file, as this module does, is no
/// change.
fn concerns(event: &notify::Event, names: &BTreeSet<OsString>) -> bool {
    let read = match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => false,
        EventKind::Access(_) => true,
        _ => false,
    };
    let named = |path: &PathBuf| {
        path.file_name().is_some_and(|name| {
            // Kubernetes changes a mounted configuration through its link `..data`.
            names.contains(name) || name.as_encoded_bytes().starts_with(b"..")
        })
    };
    !read && (event.need_rescan() || event.paths.is_empty() || event.paths.iter().any(named))
}

/// The line of `text` in which reading it as TOML failed, from 1.
pub(crate) fn toml_line(text: &str, error: &toml::de::Error) -> usize {
    let before = error.span().and_then(|span| text.get(..span.start));
    before.map_or(1, |before| before.matches('\n').count() + 1)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs;

    use tokio::sync::mpsc;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    /// Follows `path` and returns the applied texts; the text `bad` is refused.
    fn followed(path: &Path) -> (mpsc::Receiver<String>, Metrics, tokenbus_bus::task::AbortOnDrop<()>) {
        let (applied, texts) = mpsc::channel(16);
        let metrics = Metrics::default();
        let file = WatchedFile {
            what: "keys",
            path: path.to_owned(),
            limit: 100,
            text: fs::read_to_string(path).unwrap(),
        };
        let apply = move |text: &str| {
            if text == "bad" {
                return Err("it is bad".to_owned());
            }
            applied.try_send(text.to_owned()).map_err(|error| error.to_string())
        };
        let task = tokenbus_bus::task::spawn("follow", follow(file, metrics.clone(), apply));
        (texts, metrics, tokenbus_bus::task::AbortOnDrop::new(task))
    }

    async fn next(texts: &mut mpsc::Receiver<String>) -> String {
        tokio::time::timeout(PATIENCE, texts.recv()).await.unwrap().unwrap()
    }

    #[tokio::test]
    async fn a_file_that_is_written_or_replaced_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        fs::write(&path, "one").unwrap();
        let (mut texts, _, _task) = followed(&path);
        for round in 0..3 {
            let written = format!("written {round}");
            fs::write(&path, &written).unwrap();
            // The file may be seen while it is empty.
            while next(&mut texts).await != written {}
            let replaced = format!("replaced {round}");
            fs::write(folder.path().join("new"), &replaced).unwrap();
            fs::rename(folder.path().join("new"), &path).unwrap();
            assert_eq!(next(&mut texts).await, replaced);
        }
    }

    #[tokio::test]
    async fn what_cannot_be_used_changes_nothing_and_is_counted_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        fs::write(&path, "one").unwrap();
        let (mut texts, metrics, _task) = followed(&path);
        let put = |text: &str| {
            fs::write(folder.path().join("new"), text).unwrap();
            fs::rename(folder.path().join("new"), &path).unwrap();
        };
        let refused = async |times: u64| {
            let counted = async {
                while metrics.reloads("keys", false) != times {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            tokio::time::timeout(PATIENCE, counted).await.unwrap();
        };
        put("bad");
        refused(1).await;
        put(&"x".repeat(101));
        refused(2).await;
        fs::remove_file(&path).unwrap();
        refused(3).await;
        put("two");
        assert_eq!(next(&mut texts).await, "two");
        assert_eq!((metrics.reloads("keys", true), metrics.reloads("keys", false)), (1, 3));
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_read_is_tried_until_it_can_without_a_sign_of_change() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        fs::write(&path, "one").unwrap();
        let (mut texts, metrics, _task) = followed(&path);
        // A link into a folder that is not there yet: no watch tells when it comes.
        let far = tempfile::tempdir().unwrap();
        let target = far.path().join("below/f");
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(&target, &path).unwrap();
        let counted = async {
            while metrics.reloads("keys", false) == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, counted).await.unwrap();
        tokio::time::sleep(4 * SETTLE).await;
        fs::create_dir(far.path().join("below")).unwrap();
        fs::write(&target, "two").unwrap();
        while next(&mut texts).await != "two" {}
    }

    #[tokio::test]
    async fn a_link_that_is_swapped_as_kubernetes_does_is_followed() {
        use std::os::unix::fs::symlink;
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for (version, text) in [("..v1", "one"), ("..v2", "two"), ("..v3", "three")] {
            fs::create_dir(at(version)).unwrap();
            fs::write(at(version).join("f"), text).unwrap();
        }
        symlink("..v1", at("..data")).unwrap();
        symlink("..data/f", at("f")).unwrap();
        let (mut texts, _, _task) = followed(&at("f"));
        for (version, text) in [("..v2", "two"), ("..v3", "three")] {
            symlink(version, at("..tmp")).unwrap();
            fs::rename(at("..tmp"), at("..data")).unwrap();
            assert_eq!(next(&mut texts).await, text);
        }
        // A change behind the link, in another folder.
        fs::write(at("..v3").join("f"), "four").unwrap();
        while next(&mut texts).await != "four" {}
    }

    #[tokio::test]
    async fn a_hangup_reads_it_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        fs::write(&path, "one").unwrap();
        let mut watch = Watch::new(&path);
        watch.watcher = None;
        nix::sys::signal::kill(nix::unistd::Pid::this(), nix::sys::signal::Signal::SIGHUP).unwrap();
        tokio::time::timeout(PATIENCE, watch.changed()).await.unwrap();
    }

    #[test]
    fn reading_and_other_files_are_no_change() {
        let names = BTreeSet::from([OsString::from("f")]);
        let event = |kind, path: &str| notify::Event::new(kind).add_path(PathBuf::from(path));
        let written = EventKind::Access(AccessKind::Close(AccessMode::Write));
        let opened = EventKind::Access(AccessKind::Open(AccessMode::Any));
        assert!(concerns(&event(written, "/a/f"), &names));
        assert!(!concerns(&event(opened, "/a/f"), &names));
        assert!(!concerns(&event(written, "/a/g"), &names));
        assert!(concerns(&event(EventKind::Any, "/a/..data"), &names));
        assert!(concerns(&notify::Event::new(EventKind::Other), &names));
    }
}
