//! Published clients that tests run against a cluster. `clients/install.py` installs them into a folder of the
//! user's cache.

use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use tokio::process::Command;

use crate::child::Child;
use crate::wait::within_time;

/// Time limit for an installation on a slow network.
const INSTALL: Duration = Duration::from_secs(600);

/// Time limit for a script.
const RUN: Duration = Duration::from_secs(180);

/// Exit code of `install.py` when a registry cannot be reached.
const OFFLINE: i32 = 75;

/// Exit code of `install.py` without Node.js.
const NO_NODE: i32 = 69;

/// A set of clients and the program that runs their scripts.
#[derive(Debug)]
pub struct Clients {
    set: String,
    packages: PathBuf,
}

impl Clients {
    /// The clients of `requirements/SET.txt`, or of `SET/package-lock.json`. If the registry
    /// cannot be reached or Node.js is missing, says so on standard error and returns `None`.
    ///
    /// # Panics
    /// When the installation fails in any other way.
    pub async fn of(set: &str) -> Option<Self> {
        let mut install = python();
        install.arg(folder().join("install.py")).arg(set);
        let output = within_time(INSTALL, "install.py", install.output())
            .await
            .expect("python3");
        if let Some(OFFLINE | NO_NODE) = output.status.code() {
            eprintln!("SKIPPED: the clients {set} cannot be installed: {}", said(&output));
            return None;
        }
        assert!(output.status.success(), "install.py {set}: {}", said(&output));
        let out = String::from_utf8_lossy(&output.stdout).into_owned();
        let packages = out.trim().split_once('=').expect("SET=FOLDER").1.into();
        Some(Self {
            set: set.to_owned(),
            packages,
        })
    }

    /// The folder into which they are installed.
    pub fn packages(&self) -> &Path {
        &self.packages
    }

    /// Runs `script` (below `tests/clients/`) with `args`.
    ///
    /// # Panics
    /// When it fails; shows its output.
    pub async fn run(&self, script: &str, args: &[&str]) {
        let path = folder().join(script);
        // The script's files go here and are deleted with the folder. Node.js looks for packages only beside the
        // script.
        let beside = tempfile::tempdir().expect("a folder");
        let mut command = if self.set == "node" {
            let copy = beside.path().join(Path::new(script).file_name().expect("a script"));
            std::fs::copy(&path, &copy).expect("a copy");
            std::os::unix::fs::symlink(self.packages.join("node_modules"), beside.path().join("node_modules"))
                .expect("a link");
            let mut node = Command::new("node");
            node.arg(copy);
            node
        } else {
            let mut python = python();
            python.arg(path).env("PYTHONPATH", &self.packages);
            python
        };
        run(command.args(args).current_dir(beside.path()), script).await;
    }

    /// Starts the Python `script`, a path in the repository, as a process that stays.
    pub fn start(&self, name: &str, script: &str, args: &[&str]) -> Child {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").join(script);
        let mut command = python();
        command
            .arg(path)
            .args(args)
            .env("PYTHONPATH", &self.packages)
            .env("PYTHONDONTWRITEBYTECODE", "1");
        Child::spawn(name, command)
    }
}

/// Runs `script` (below `tests/clients/`), which needs no installed clients.
///
/// # Panics
/// When it fails; shows its output.
pub async fn shell(script: &str, args: &[&str]) {
    run(Command::new("bash").arg(folder().join(script)).args(args), script).await;
}

async fn run(command: &mut Command, script: &str) {
    command
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("NO_PROXY", "*")
        .env("no_proxy", "*")
        .kill_on_drop(true);
    let output = within_time(RUN, script, command.output()).await.expect("it runs");
    assert!(output.status.success(), "{script}: {}", said(&output));
}

fn python() -> Command {
    let interpreter: PathBuf = std::env::var_os("TOKENBUS_PYTHON").map_or_else(|| "python3".into(), Into::into);
    let mut command = Command::new(interpreter);
    command.kill_on_drop(true);
    command
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("clients")
}

fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}
