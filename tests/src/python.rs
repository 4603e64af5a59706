//! Python packages that tests run against a cluster, installed by pip into a folder of the build.

use std::path::PathBuf;
use std::time::Duration;

use tokio::process::Command;

use crate::wait::within_time;

/// How long an installation may take on a slow network.
const INSTALL: Duration = Duration::from_secs(300);

/// How long a script may run.
const RUN: Duration = Duration::from_secs(120);

/// An interpreter and a folder of packages.
#[derive(Debug)]
pub struct Python {
    interpreter: PathBuf,
    packages: PathBuf,
}

impl Python {
    /// A Python with the package `requirement` and what it needs; `None` where the package index cannot
    /// be reached, which is said on standard error.
    ///
    /// # Panics
    /// When the installation fails in any other way.
    pub async fn with(requirement: &str) -> Option<Self> {
        let interpreter: PathBuf = std::env::var_os("TOKENBUS_PYTHON").map_or_else(|| "python3".into(), Into::into);
        let packages = folder(requirement);
        if !packages.exists() {
            // Installed beside it and then named, so that nobody sees half of it.
            let parent = packages.parent().expect("it has one");
            std::fs::create_dir_all(parent).expect("a folder of the build");
            let fresh = tempfile::tempdir_in(parent).expect("a folder of the build");
            let mut pip = Command::new(&interpreter);
            pip.args([
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
                "--target",
            ])
            .arg(fresh.path())
            .arg(requirement)
            .kill_on_drop(true);
            let output = within_time(INSTALL, "pip", pip.output())
                .await
                .expect("python3 with pip");
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            if !output.status.success() {
                assert!(is_offline(&said), "pip install {requirement}: {said}");
                eprintln!("SKIPPED: the package index cannot be reached, {requirement} is not tested: {said}");
                return None;
            }
            // Another test may have been faster, which is as good.
            let _ = std::fs::rename(fresh.keep(), &packages);
        }
        Some(Self { interpreter, packages })
    }

    /// Runs `script` (below `tests/clients/`) with `args`.
    ///
    /// # Panics
    /// When it fails; with what it said.
    pub async fn run(&self, script: &str, args: &[&str]) {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("clients").join(script);
        let mut python = Command::new(&self.interpreter);
        python
            .arg(path)
            .args(args)
            .env("PYTHONPATH", &self.packages)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("NO_PROXY", "*")
            .kill_on_drop(true);
        let output = within_time(RUN, script, python.output()).await.expect("python3");
        let (out, err) = (
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        assert!(output.status.success(), "{script}: {out}{err}");
    }
}

/// A folder of its own for each requirement, beside what was built.
fn folder(requirement: &str) -> PathBuf {
    let legal = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    let name: String = requirement.chars().map(legal).collect();
    let test = std::env::current_exe().expect("a test is a program");
    let built = test.ancestors().nth(3).expect("target/PROFILE/deps/TEST");
    built.join("tmp").join("python").join(name)
}

fn is_offline(said: &str) -> bool {
    let signs = [
        "Temporary failure in name resolution",
        "Failed to establish a new connection",
        "NewConnectionError",
        "Network is unreachable",
        "ConnectTimeoutError",
        "ReadTimeoutError",
        "ProxyError",
    ];
    signs.iter().any(|sign| said.contains(sign))
}
