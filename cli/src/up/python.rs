//! Finds a Python that can install and run the prebuilt packages, without changing it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use tokio::process::Command;
use tokio::time::timeout;

use crate::limits;

/// Names tried on PATH, in this order: the usual one first, then newer before older.
const NAMES: [&str; 7] = [
    "python3",
    "python3.14",
    "python3.13",
    "python3.12",
    "python3.11",
    "python3.10",
    "python",
];

/// Printed by the interpreter about itself, as one line of JSON.
const PROBE: &str = r#"
import sys, os, json, glob, platform, sysconfig
d = dict(version=list(sys.version_info[:3]), executable=sys.executable,
         implementation=platform.python_implementation(),
         free_threaded=bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
         platform=sysconfig.get_platform(), libc=platform.libc_ver()[0],
         pip=None, pip_wheel=None)
try:
    import pip
    d["pip"] = pip.__version__
except Exception:
    try:
        import ensurepip
        w = sorted(glob.glob(os.path.join(os.path.dirname(ensurepip.__file__), "_bundled", "pip-*.whl")))
        d["pip_wheel"] = w[-1] if w else None
    except Exception:
        pass
print(json.dumps(d))
"#;

/// What an interpreter says about itself.
#[derive(Debug, Clone, Deserialize, PartialEq, Eq)]
pub(crate) struct Python {
    /// Major, minor, patch.
    pub(crate) version: (u32, u32, u32),
    /// The interpreter itself, behind any shim on PATH.
    pub(crate) executable: PathBuf,
    /// `CPython`, `PyPy`, …
    pub(crate) implementation: String,
    /// Whether this is the build without the global lock, which needs wheels of its own.
    pub(crate) free_threaded: bool,
    /// As wheels name it, for example `linux-x86_64` or `macosx-13.0-arm64`.
    pub(crate) platform: String,
    /// `glibc` where it is, otherwise empty.
    pub(crate) libc: String,
    /// The version of its pip, if it has one.
    pub(crate) pip: Option<String>,
    /// The pip wheel that Python itself carries (ensurepip), usable without installing it.
    pub(crate) pip_wheel: Option<PathBuf>,
}

/// Why no interpreter can be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum PythonError {
    /// Nothing named python3 on PATH.
    #[error(
        "no python3 on PATH, and {needed} is not installed: install Python 3.10 or later \
         (Debian, Ubuntu: apt-get install python3 python3-pip) and start again"
    )]
    Missing {
        /// What Python is needed for, and what would do instead.
        needed: String,
    },
    /// All that was found cannot be used.
    #[error("{needed} cannot be installed with the Python found: {reason}")]
    Unfit {
        /// What Python is needed for.
        needed: String,
        /// What is wrong with the first one found, and what to do.
        reason: String,
    },
}

/// What a package asks of the interpreter that installs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Demands {
    /// Whether its wheel is compiled for CPython 3.10 and later rather than for any Python 3.
    pub(crate) native: bool,
    /// Whether pip must run; otherwise the package is installed and only has to be imported.
    pub(crate) pip: bool,
}

/// Returns the first interpreter on `path` that meets `demands`.
///
/// `needed` names the thing to be installed, for the message.
///
/// # Errors
/// [`PythonError`], a sentence that says what to do.
pub(crate) async fn find(path: Option<&OsStr>, demands: Demands, needed: &str) -> Result<Python, PythonError> {
    let mut first_reason = None;
    for name in NAMES {
        let Some(program) = super::path::look_up(name, path) else {
            continue;
        };
        let reason = match probe(&program).await {
            Ok(python) => match unfit(&python, demands) {
                None => return Ok(python),
                Some(reason) => reason,
            },
            Err(reason) => reason,
        };
        first_reason.get_or_insert(reason);
    }
    let needed = needed.to_owned();
    Err(match first_reason {
        None => PythonError::Missing { needed },
        Some(reason) => PythonError::Unfit { needed, reason },
    })
}

/// Says why `python` does not meet `demands`, or nothing when it does.
fn unfit(python: &Python, demands: Demands) -> Option<String> {
    let (major, minor, patch) = python.version;
    let at = python.executable.display();
    if (major, minor) < (3, 10) {
        return Some(format!(
            "{at} is Python {major}.{minor}.{patch}; install Python 3.10 or later and start again"
        ));
    }
    if demands.native && python.implementation != "CPython" {
        return Some(format!(
            "{at} is {}; install CPython 3.10 or later and start again",
            python.implementation
        ));
    }
    if demands.native && python.free_threaded && minor != 14 {
        return Some(format!(
            "{at} is the free-threaded Python {major}.{minor}; install the usual build (or 3.14t) \
             and start again"
        ));
    }
    if demands.pip && python.pip.is_none() && python.pip_wheel.is_none() {
        return Some(format!(
            "{at} has no pip; install it (Debian, Ubuntu: apt-get install python3-pip; Fedora: dnf \
             install python3-pip; elsewhere: python3 -m ensurepip --user) and start again"
        ));
    }
    None
}

async fn probe(program: &Path) -> Result<Python, String> {
    let mut command = Command::new(program);
    // Not in the caller's directory: a json.py lying there would be imported.
    command.args(["-c", PROBE]).current_dir("/");
    let at = program.display();
    let output = match timeout(limits::PROBE_TIMEOUT, tokenbus_process::output(command)).await {
        Err(_) => {
            return Err(format!(
                "{at} does not start (no answer within {} s)",
                limits::PROBE_TIMEOUT.as_secs()
            ));
        }
        Ok(Err(error)) => return Err(format!("{at} does not start: {error}")),
        Ok(Ok(output)) => output,
    };
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said
            .lines()
            .rev()
            .find(|line| !line.trim().is_empty())
            .unwrap_or("nothing");
        return Err(format!("{at} does not start ({}): {said}", output.status));
    }
    serde_json::from_slice(&output.stdout).map_err(|error| format!("{at} does not behave like Python 3: {error}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use super::*;

    fn python(version: (u32, u32, u32)) -> Python {
        Python {
            version,
            executable: "/usr/bin/python3".into(),
            implementation: "CPython".into(),
            free_threaded: false,
            platform: "linux-x86_64".into(),
            libc: "glibc".into(),
            pip: Some("23.0.1".into()),
            pip_wheel: None,
        }
    }

    const NATIVE: Demands = Demands {
        native: true,
        pip: true,
    };

    #[test]
    fn a_current_cpython_with_pip_is_fit() {
        for minor in 10..=14 {
            assert_eq!(unfit(&python((3, minor, 0)), NATIVE), None, "3.{minor}");
        }
    }

    #[test]
    fn each_shortcoming_names_its_cure() {
        let old = unfit(&python((3, 9, 2)), NATIVE).unwrap();
        assert!(old.contains("3.9.2") && old.contains("3.10 or later"), "{old}");

        let mut pypy = python((3, 11, 0));
        pypy.implementation = "PyPy".into();
        assert!(unfit(&pypy, NATIVE).unwrap().contains("CPython"));
        assert_eq!(
            unfit(
                &pypy,
                Demands {
                    native: false,
                    pip: true
                }
            ),
            None
        );

        let mut free = python((3, 13, 0));
        free.free_threaded = true;
        assert!(unfit(&free, NATIVE).unwrap().contains("free-threaded"));
        free.version = (3, 14, 0);
        assert_eq!(unfit(&free, NATIVE), None);

        let mut bare = python((3, 12, 0));
        bare.pip = None;
        assert!(unfit(&bare, NATIVE).unwrap().contains("python3-pip"));
        assert_eq!(
            unfit(
                &bare,
                Demands {
                    native: true,
                    pip: false
                }
            ),
            None
        );
        bare.pip_wheel = Some("/usr/lib/python3/ensurepip/pip.whl".into());
        assert_eq!(unfit(&bare, NATIVE), None);
    }

    #[tokio::test]
    async fn an_empty_path_says_what_to_install() {
        let empty = tempfile::tempdir().unwrap();
        let error = find(Some(empty.path().as_os_str()), NATIVE, "nats-server")
            .await
            .unwrap_err();
        assert!(matches!(error, PythonError::Missing { .. }));
        assert!(error.to_string().contains("install Python 3.10 or later"));
    }

    #[tokio::test]
    async fn the_interpreter_of_this_machine_describes_itself() {
        let found = find(std::env::var_os("PATH").as_deref(), NATIVE, "test").await.unwrap();
        assert!(found.executable.is_absolute());
        assert!(found.version >= (3, 10, 0));
    }
}
