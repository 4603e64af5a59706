//! `tokenbus coordinator`: flags to [`Options`].

use std::process::ExitCode;
use std::time::Duration;

use tokenbus_coordinator::Options;
use tokenbus_protocol::Name;

use crate::failure::Failure;
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

    /// Address of the status page: /healthz, /readyz, /metrics and /capacity
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:8081")]
    listen: Listen,

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
    let listener = args.listen.bind().await?;
    let shared = args.bus.shared("coordinator").keeping(&args.kept);
    let options = Options {
        id: args.id.as_ref().map(unlike_any_other),
        lost_after: args.lost_after,
        ..Options::new(shared.bus, shared.namespace)
    };
    tokenbus_coordinator::run(options, listener, shutdown).await?;
    Ok(ExitCode::SUCCESS)
}

/// `name` with a random part. Two coordinators with the same id would take each other's heartbeats for their own.
fn unlike_any_other(name: &Name) -> Name {
    let first = name.as_str();
    let first = first.get(..limits::GIVEN_NAME).unwrap_or(first);
    Name::sanitized(&format!("{first}-{:08x}", fastrand::u32(..)), name)
}
