//! Finds the programs that the tests start.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::OnceLock;
use std::time::Duration;

use tokio::process::Command;

use crate::child::die_with_us;
use crate::wait::within_time;

/// The `tokenbus` binary: `TOKENBUS_BIN`, or else the one built beside the test.
///
/// # Panics
/// When it does not exist.
pub fn tokenbus() -> &'static Path {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    FOUND.get_or_init(|| {
        let path = std::env::var_os("TOKENBUS_BIN").map_or_else(beside_the_test, PathBuf::from);
        assert!(
            path.is_file(),
            "{} is not there: run `cargo build --bin tokenbus`, or `tests/run`",
            path.display()
        );
        path
    })
}

/// `target/{profile}/tokenbus`, relative to `target/{profile}/deps/{test}`.
fn beside_the_test() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own path");
    let profile = test.ancestors().nth(2).expect("a test lies in target/{profile}/deps");
    profile.join("tokenbus")
}

/// The nats-server: `TOKENBUS_NATS_SERVER`, or else the one on PATH if it is 2.10 or newer, or else the one that
/// `tokenbus provision nats` fetches into its cache.
///
/// # Panics
/// When none is available; names what was tried.
pub fn nats_server() -> &'static Path {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    FOUND.get_or_init(|| {
        if let Some(named) = std::env::var_os("TOKENBUS_NATS_SERVER") {
            let named = PathBuf::from(named);
            let version = version(&named);
            assert!(
                version.is_some(),
                "TOKENBUS_NATS_SERVER={} is no nats-server",
                named.display()
            );
            return named;
        }
        let on_path = PathBuf::from("nats-server");
        if version(&on_path).is_some_and(|version| version >= (2, 10)) {
            return on_path;
        }
        provisioned()
    })
}

/// Major and minor version of the nats-server at `path`; `None` when it is absent.
fn version(path: &Path) -> Option<(u32, u32)> {
    let output = std::process::Command::new(path)
        .arg("--version")
        .stdin(Stdio::null())
        .output()
        .ok()?;
    parse_version(&String::from_utf8_lossy(&output.stdout))
}

/// Reads `nats-server: v2.15.1`.
fn parse_version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.trim().rsplit_once('v')?.1.split('.').map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

fn provisioned() -> PathBuf {
    let output = std::process::Command::new(tokenbus())
        .args(["provision", "nats"])
        .stdin(Stdio::null())
        .output()
        .expect("the tokenbus binary can be started");
    let text = String::from_utf8_lossy(&output.stdout);
    let path = text
        .lines()
        .find_map(|line| line.strip_prefix("nats_server="))
        .map(PathBuf::from);
    let path = path.filter(|path| path.is_file());
    path.unwrap_or_else(|| {
        let error = String::from_utf8_lossy(&output.stderr);
        panic!("no nats-server on PATH (2.10 or newer), and `tokenbus provision nats` gave none:\n{text}{error}")
    })
}

/// The output of a command that has ended.
#[derive(Debug)]
pub struct CommandOutput {
    /// Its exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// Runs `tokenbus` with `args` to its end, without settings of tokenbus in its environment.
///
/// # Panics
/// When it does not end within `limit`.
pub async fn run(limit: Duration, args: &[&str]) -> CommandOutput {
    let mut command = command();
    command.args(args).stdin(Stdio::null()).kill_on_drop(true);
    die_with_us(&mut command);
    let what = format!("the end of tokenbus {args:?}");
    let output = within_time(limit, &what, command.output())
        .await
        .expect("the tokenbus binary can be started");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    CommandOutput {
        code: output.status.code(),
        stdout: text(&output.stdout),
        stderr: text(&output.stderr),
    }
}

/// A `tokenbus` command without settings of tokenbus in its environment.
pub fn command() -> Command {
    let mut command = Command::new(tokenbus());
    for (key, _) in std::env::vars_os() {
        // Coverage and sanitizer settings stay, and so does the folder of provisioned files.
        if key.to_string_lossy().starts_with("TOKENBUS_") && key != "TOKENBUS_CACHE" {
            command.env_remove(key);
        }
    }
    command.env("RUST_BACKTRACE", "1").env("NO_COLOR", "1");
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        assert_eq!(parse_version("nats-server: v2.15.1\n"), Some((2, 15)));
        assert!(parse_version("nats-server: v2.9.10").unwrap() < (2, 10));
        assert_eq!(parse_version("command not found"), None);
    }
}
