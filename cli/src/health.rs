//! `tokenbus health`: whether a role is well, as an exit status for a container's health check.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Url;
use tokenbus_bus::task::{self, AbortOnDrop};
use tokenbus_worker::engine::{Engine, Health};

use crate::failure::Failure;
use crate::limits::{HEALTH_FILE_AGE, HEALTH_FILE_PERIOD};
use crate::shared::duration;
use crate::{http, ui};

/// What a worker that can take requests writes.
const READY: &str = "ready";

/// Tell whether a role is well, for a container's health check
///
/// Asks the HTTP server of a gateway or a coordinator, or reads the file that a worker writes with --health-file. The
/// exit status is 0 if it is well and 1 if it is not.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Address to ask: of a gateway or `up` /readyz or /healthz, of a coordinator /healthz
    #[arg(value_name = "URL", default_value = "http://127.0.0.1:8080/readyz")]
    url: Url,

    /// Read this file of a worker instead
    #[arg(long, value_name = "FILE")]
    health_file: Option<PathBuf>,

    /// How long the answer may take
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "2s")]
    timeout: Duration,
}

/// Runs the subcommand.
pub(crate) async fn run(args: Args) -> Result<ExitCode, Failure> {
    let said = match &args.health_file {
        Some(file) => read(file),
        None => match tokio::time::timeout(args.timeout, ask(&args.url)).await {
            Ok(said) => said,
            Err(_) => Err(format!("{}: no answer within {:?}", args.url, args.timeout)),
        },
    };
    match said {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(reason) => {
            ui::complain(format_args!("{reason}"));
            Ok(ExitCode::FAILURE)
        }
    }
}

async fn ask(url: &Url) -> Result<(), String> {
    let failed = |error: &dyn std::fmt::Display| format!("{url}: {error}");
    let client = http::client(url, HEALTH_FILE_AGE).map_err(|error| failed(&error))?;
    let answer = client.get(url.clone()).send().await.map_err(|error| failed(&error))?;
    if answer.status().is_success() {
        return Ok(());
    }
    Err(failed(&answer.status()))
}

/// Whether the worker that writes `file` lives and can take requests.
fn read(file: &Path) -> Result<(), String> {
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
    let written = std::fs::metadata(file).and_then(|metadata| metadata.modified());
    let written = written.map_err(|error| failed(&error))?;
    // A clock that was set back makes the file younger than now: the worker writes again within a second.
    let age = written.elapsed().unwrap_or_default();
    if age > HEALTH_FILE_AGE {
        return Err(failed(&format_args!("the worker last wrote {} s ago", age.as_secs())));
    }
    let said = std::fs::read_to_string(file).map_err(|error| failed(&error))?;
    if said == READY {
        return Ok(());
    }
    Err(failed(&said))
}

/// Keeps `file` telling how `engine` is, for as long as the returned task lives.
pub(crate) fn keep(file: PathBuf, engine: &Arc<dyn Engine>) -> AbortOnDrop<()> {
    let mut info = engine.info();
    AbortOnDrop::new(task::spawn("health file", async move {
        let mut failing = false;
        loop {
            let said = match &info.borrow_and_update().health {
                Health::Ready => READY.to_owned(),
                Health::Starting => "the engine is starting".to_owned(),
                Health::Down(reason) => format!("the engine is down: {reason}"),
            };
            match replace(&file, &said).await {
                Err(error) if !failing => {
                    tracing::warn!(path = %file.display(), %error, "the health file cannot be written");
                    failing = true;
                }
                Err(_) => {}
                Ok(()) => failing = false,
            }
            // A changed engine is told at once; that it lives, once in each period.
            let changed = tokio::time::timeout(HEALTH_FILE_PERIOD, info.changed()).await;
            if changed.is_ok_and(|changed| changed.is_err()) {
                return;
            }
        }
    }))
}

/// Writes beside the file and renames, so that nobody reads half of it.
async fn replace(file: &Path, said: &str) -> std::io::Result<()> {
    let mut beside = file.as_os_str().to_owned();
    beside.push(".new");
    tokio::fs::write(&beside, said).await?;
    tokio::fs::rename(&beside, file).await
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_tells_well_from_ill_and_from_old() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("health");
        assert!(read(&file).is_err());
        replace(&file, READY).await.unwrap();
        assert_eq!(read(&file), Ok(()));
        replace(&file, "the engine is starting").await.unwrap();
        assert!(read(&file).unwrap_err().ends_with("the engine is starting"));
        replace(&file, READY).await.unwrap();
        let old = std::time::SystemTime::now() - HEALTH_FILE_AGE - Duration::from_secs(2);
        std::fs::File::options()
            .write(true)
            .open(&file)
            .unwrap()
            .set_modified(old)
            .unwrap();
        assert!(read(&file).unwrap_err().contains("last wrote"));
    }
}
