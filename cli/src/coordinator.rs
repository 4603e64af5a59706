//! `tokenbus coordinator`: flags to [`Options`].

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::ArgAction;
use tokenbus_bus::task;
use tokenbus_coordinator::{AllowedHost, Options, PageAccess, PageToken, ScaleRules};
use tokenbus_protocol::Name;

use crate::failure::{Failure, Unusable};
use crate::limits;
use crate::listen::Listen;
use crate::shared::{BusArgs, KeptArgs, duration};
use crate::signals;

/// Watch the workers and publish what the cluster can take
///
/// Any number can run: one leads, the others are ready to take over. Requests flow without any.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    bus: BusArgs,

    #[command(flatten)]
    kept: KeptArgs,

    /// Address of the status page: /healthz, /readyz, /metrics, /capacity and /scale
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:8081")]
    listen: Listen,

    /// Secret that /metrics, /capacity and /scale ask for, as in "Authorization: Bearer TOKEN"
    #[arg(
        long,
        value_name = "TOKEN",
        hide_env_values = true,
        conflicts_with = "page_token_file"
    )]
    page_token: Option<String>,

    /// File with that secret
    #[arg(long, value_name = "FILE")]
    page_token_file: Option<PathBuf>,

    /// Show the status page to everybody who can reach it, where it listens beyond this machine and has no token
    #[arg(long, action = ArgAction::SetTrue)]
    insecure: bool,

    /// Name under which the page may be asked without a token, beside its addresses and localhost; * for all; repeated
    #[arg(long, value_name = "HOST")]
    allowed_host: Vec<AllowedHost>,

    /// How models are scaled: a TOML file with tables [models."NAME".scale]
    #[arg(long, value_name = "FILE")]
    models: Option<PathBuf>,

    /// Program that starts and stops workers of the models that have such a table; its arguments are the model, how many
    /// workers there should be, and how many there are
    #[arg(long, value_name = "PROGRAM")]
    scaler_command: Option<PathBuf>,

    /// First part of this coordinator's id; a random part is added [default: c]
    #[arg(long, value_name = "NAME")]
    id: Option<Name>,

    /// Silence after which a worker is lost
    #[arg(long, value_name = "DURATION", default_value = "3s", value_parser = duration)]
    lost_after: Duration,
}

/// Runs the subcommand.
pub(crate) async fn run(args: Args) -> Result<ExitCode, Failure> {
    let shutdown = signals::shutdown()?;
    let page = page(&args).await?;
    let rules = rules(&args).await?;
    let listener = args.listen.bind().await?;
    let shared = args.bus.shared("coordinator").keeping(&args.kept);
    let options = Options {
        id: args.id.as_ref().map(unlike_any_other),
        lost_after: args.lost_after,
        page,
        rules,
        scaler: args.scaler_command,
        ..Options::new(shared.bus, shared.namespace)
    };
    task::apart("coordinator", tokenbus_coordinator::run(options, listener, shutdown)).await?;
    Ok(ExitCode::SUCCESS)
}

/// How models are scaled.
///
/// # Errors
/// [`Unusable`] if the file cannot be used, or if there is a command and no model for it.
async fn rules(args: &Args) -> Result<ScaleRules, Unusable> {
    let rules = match &args.models {
        Some(path) => {
            let unusable = |reason: String| Unusable(format!("--models {}: {reason}", path.display()));
            let text = tokio::fs::read_to_string(path).await;
            let text = text.map_err(|error| unusable(error.to_string()))?;
            ScaleRules::parse(&text).map_err(|error| unusable(error.to_string()))?
        }
        None => ScaleRules::default(),
    };
    if args.scaler_command.is_some() && rules.is_empty() {
        return Err(Unusable(
            "--scaler-command is only for models with a table [models.\"NAME\".scale], and there is none".to_owned(),
        ));
    }
    Ok(rules)
}

/// Who may read the status page.
///
/// # Errors
/// [`Unusable`] if the token cannot be read, or if others can reach the page and nobody said that they may.
async fn page(args: &Args) -> Result<PageAccess, Unusable> {
    let token = match (&args.page_token, &args.page_token_file) {
        (Some(text), _) => Some(PageToken::new(text).ok_or_else(|| Unusable("--page-token is empty".to_owned()))?),
        (None, Some(path)) => {
            let unusable = |reason: &str| Unusable(format!("--page-token-file {}: {reason}", path.display()));
            let text = tokio::fs::read_to_string(path).await;
            let text = text.map_err(|error| unusable(&error.to_string()))?;
            Some(PageToken::new(&text).ok_or_else(|| unusable("it is empty"))?)
        }
        (None, None) => None,
    };
    if token.is_none() && !args.insecure && !args.listen.is_loopback().await {
        return Err(Unusable(format!(
            "--listen {} can be reached from other machines, and its status page tells of every worker: give \
             --page-token-file FILE, or --insecure to show it to everybody",
            args.listen
        )));
    }
    Ok(PageAccess {
        token,
        allowed_hosts: args.allowed_host.clone(),
    })
}

/// `name` with a random part. Two coordinators with the same id would take each other's heartbeats for their own.
fn unlike_any_other(name: &Name) -> Name {
    let first = name.as_str();
    let first = first.get(..limits::GIVEN_NAME).unwrap_or(first);
    Name::sanitized(&format!("{first}-{:08x}", fastrand::u32(..)), name)
}
