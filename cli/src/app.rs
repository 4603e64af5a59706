//! The whole command line: its subcommands, and the way from arguments to an exit status.

use std::error::Error;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _};
use tokio::runtime::{Builder, Runtime};

use crate::failure::{Failure, Unusable};
use crate::shared::{BusArgs, LogArgs, Shared, start_logging, thread_count};
use crate::status::{self, StatusArgs, TopArgs, TraceArgs};
use crate::{
    chat, config, coordinator, drain, fleet, gateway, generated, health, http, keys, nats_config, open_files, outlet,
    sim_server, ui, up, variables, worker,
};

/// Exit status of a command line or a configuration that cannot be used; the same as clap's.
const UNUSABLE: u8 = 2;

const SETTINGS: &str = "\
Settings: a flag wins over its environment variable, that over the TOML file, that over the default. \
Every flag --some-flag has the variable TOKENBUS_SOME_FLAG (an empty one counts as not set; where subcommands \
differ in what a flag means, its variable names the subcommand, as in TOKENBUS_WORKER_URL) and the TOML key \
some-flag: at the root of the file for what several subcommands share (log, log-format, nats, nats-creds, \
nats-ca, nats-tls-first, namespace), otherwise in the subcommand's table, as in [worker]; \
tables [models.\"NAME\"] are the aliases and defaults of models. Flags that can be repeated are arrays \
there.";

/// An LLM-serving cluster on a message bus: many machines behind one OpenAI-compatible endpoint.
///
/// `tokenbus up` starts a whole cluster on this machine, with a small model, and asks it a question.
#[derive(Debug, clap::Parser)]
#[command(name = "tokenbus", version = version(), arg_required_else_help = true, after_help = SETTINGS)]
struct Cli {
    #[command(flatten)]
    log: LogArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Up(up::Args),
    Gateway(gateway::Args),
    Worker(worker::Args),
    Coordinator(coordinator::Args),
    Chat(chat::Args),
    #[command(flatten)]
    Watch(Watch),
    Drain(drain::Args),
    Health(health::Args),
    Keys(keys::Args),
    NatsConfig(nats_config::Args),
    Bench(tokenbus_loadgen::Args),
    SimServer(sim_server::Args),
    #[command(hide = true)]
    FloorServer(tokenbus_loadgen::FloorArgs),
    #[command(hide = true)]
    Fleet(fleet::Args),
    Provision(up::provision_command::Args),
    Completions(generated::CompletionsArgs),
    Man(generated::ManArgs),
}

/// A subcommand that only looks at the bus.
#[derive(Debug, clap::Subcommand)]
enum Watch {
    Status {
        #[command(flatten)]
        bus: BusArgs,
        #[command(flatten)]
        args: StatusArgs,
    },
    Top {
        #[command(flatten)]
        bus: BusArgs,
        #[command(flatten)]
        args: TopArgs,
    },
    Trace {
        #[command(flatten)]
        bus: BusArgs,
        #[command(flatten)]
        args: TraceArgs,
    },
}

/// The version, with the commit where the build was told it.
fn version() -> String {
    let version = env!("CARGO_PKG_VERSION");
    match option_env!("TOKENBUS_COMMIT") {
        Some(commit) => format!("{version} ({commit})"),
        None => version.to_owned(),
    }
}

/// Runs the process's command line.
pub(crate) fn main() -> ExitCode {
    let status = run();
    outlet::last_words();
    status
}

fn run() -> ExitCode {
    report_panics_in_one_line();
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let command = match config::fold(Cli::command(), &arguments, |name| std::env::var_os(name)) {
        Ok(command) => command,
        Err(error) => return fail(&error, UNUSABLE),
    };
    let parsed = command.clone().try_get_matches_from(arguments);
    let parsed = parsed.and_then(|matches| Ok((Cli::from_arg_matches(&matches)?, matches)));
    let cli = match parsed {
        Ok((cli, matches)) => {
            for (old, new) in variables::old_names(&command, &matches) {
                ui::complain(format_args!(
                    "warning: {old} means different things to different subcommands: name it {new}"
                ));
            }
            cli
        }
        Err(error) => {
            // Help and version are such errors too, with status 0.
            drop(error.print());
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(UNUSABLE));
        }
    };
    if let Err(error) = start_logging(&cli.log, cli.command.default_log()) {
        return fail(&error, UNUSABLE);
    }
    http::install_tls();
    if cli.command.holds_connections() {
        open_files::allow_all();
    }
    let runtime = match cli.command.runtime() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error, 1),
    };
    let failure_status = cli.command.failure_status();
    let status = match runtime.block_on(cli.command.run(cli.log.config)) {
        Ok(status) => status,
        Err(failure) if failure.is::<Unusable>() => fail(failure.as_ref(), UNUSABLE),
        Err(failure) => fail(failure.as_ref(), failure_status),
    };
    // A thread may still wait for a key press or a lock; the process does not wait for it.
    runtime.shutdown_background();
    status
}

impl Command {
    /// Runs the subcommand; `config` is the file of its settings.
    async fn run(self, config: Option<PathBuf>) -> Result<ExitCode, Failure> {
        match self {
            Self::Up(args) => up::run(args, config).await,
            Self::Gateway(args) => gateway::run(args, config).await,
            Self::Worker(args) => worker::run(args).await,
            Self::Coordinator(args) => coordinator::run(args).await,
            Self::Watch(watch) => watch.run().await,
            Self::Drain(args) => drain::run(args).await,
            Self::Health(args) => health::run(args).await,
            Self::Keys(args) => keys::run(args).await,
            Self::NatsConfig(args) => nats_config::run(args),
            Self::Chat(args) => Ok(chat::run(args).await?),
            Self::Bench(args) => Ok(tokenbus_loadgen::run(chat::only_model(args).await?).await?),
            Self::SimServer(args) => sim_server::run(args).await,
            Self::FloorServer(args) => sim_server::floor(&args),
            Self::Fleet(args) => fleet::run(args).await,
            Self::Provision(args) => up::provision_command::run(args).await,
            Self::Completions(args) => {
                generated::completions(&args, Cli::command())?;
                Ok(ExitCode::SUCCESS)
            }
            Self::Man(args) => {
                generated::man(&args, variables::attach(Cli::command(), &|_| None))?;
                Ok(ExitCode::SUCCESS)
            }
        }
    }

    /// The log filter without `--log`: a role logs what it does, a tool only what goes wrong.
    fn default_log(&self) -> &'static str {
        match self {
            Self::Gateway(_) | Self::Worker(_) | Self::Coordinator(_) => {
                // The bus says itself why a server cannot be reached.
                "info,async_nats=warn,async_nats::connector=off"
            }
            Self::Up(_) => "warn,async_nats::connector=off",
            Self::Watch(_)
            | Self::Drain(_)
            | Self::Health(_)
            | Self::Keys(_)
            | Self::NatsConfig(_)
            | Self::Chat(_)
            | Self::Bench(_)
            | Self::SimServer(_)
            | Self::FloorServer(_)
            | Self::Fleet(_)
            | Self::Provision(_)
            | Self::Completions(_)
            | Self::Man(_) => "warn,async_nats::connector=off,tokenbus_bus=error",
        }
    }

    /// Whether it may hold thousands of connections. (The benchmark raises its own limit.)
    fn holds_connections(&self) -> bool {
        matches!(
            self,
            Self::Up(_) | Self::Gateway(_) | Self::Worker(_) | Self::SimServer(_) | Self::FloorServer(_)
        )
    }

    fn runtime(&self) -> std::io::Result<Runtime> {
        // Before the runtime, whose timers count from its own beginning.
        tokenbus_bus::Rhythm::of_process();
        match self {
            // The load generator has its own threads. The simulated engine leaves the others to the measured server.
            Self::Bench(_) | Self::SimServer(_) | Self::FloorServer(_) => {
                Builder::new_current_thread().enable_all().build()
            }
            Self::Gateway(args) => runtime(args.threads),
            Self::Worker(args) => runtime(args.io_threads),
            Self::Coordinator(_) | Self::Health(_) => runtime(Some(1)),
            _ => Builder::new_multi_thread().enable_all().build(),
        }
    }

    /// The benchmark keeps status 1 for runs in which requests failed.
    fn failure_status(&self) -> u8 {
        if matches!(self, Self::Bench(_)) { UNUSABLE } else { 1 }
    }
}

/// A runtime with this many threads. One thread needs no wake-ups between threads; these cost more per token than
/// all other work for it.
fn runtime(threads: Option<usize>) -> std::io::Result<Runtime> {
    match thread_count(threads) {
        1 => Builder::new_current_thread().enable_all().build(),
        threads => Builder::new_multi_thread().worker_threads(threads).enable_all().build(),
    }
}

impl Watch {
    async fn run(self) -> Result<ExitCode, Failure> {
        match self {
            Self::Status { bus, args } => {
                let Shared { bus, namespace } = bus.shared("tokenbus status");
                Ok(status::status(args, bus, namespace).await?)
            }
            Self::Top { bus, args } => {
                let Shared { bus, namespace } = bus.shared("tokenbus top");
                Ok(status::top(args, bus, namespace).await?)
            }
            Self::Trace { bus, args } => {
                let Shared { bus, namespace } = bus.shared("tokenbus trace");
                Ok(status::trace(args, bus, namespace).await?)
            }
        }
    }
}

/// Writes the error in one line.
fn fail(error: &(dyn Error + 'static), status: u8) -> ExitCode {
    let text = error.to_string();
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    ui::complain(format_args!("error: {}", lines.join(" ")));
    ExitCode::from(status)
}

/// Writes a panic in one line with its place and without a back-trace: a bug for the user to report.
fn report_panics_in_one_line() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map_or_else(String::new, |at| format!(" at {at}"));
        let payload = panic.payload();
        let words = payload
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("no message");
        ui::complain(format_args!("internal error{place}: {words} (please report it)"));
    }));
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    /// Flags that mean the same wherever they are, although their help is worded for each subcommand.
    const ALIKE: [&str; 10] = [
        "allowed-host",
        "api-key",
        "gpu-layers",
        "health-file",
        "insecure",
        "keys",
        "max-tokens",
        "models",
        "sort",
        "usage-stream",
    ];

    fn flags(command: &clap::Command, found: &mut BTreeMap<String, BTreeSet<String>>) {
        for arg in command.get_arguments() {
            if let (Some(flag), Some(help)) = (arg.get_long(), arg.get_help()) {
                let help = help.to_string();
                let meaning = help.split(" [default").next().unwrap_or_default();
                found.entry(flag.to_owned()).or_default().insert(meaning.to_owned());
            }
        }
        command.get_subcommands().for_each(|sub| flags(sub, found));
    }

    #[test]
    fn no_variable_means_different_things_to_different_subcommands() {
        let mut found = BTreeMap::new();
        flags(&Cli::command(), &mut found);
        let several = found.iter().filter(|(_, helps)| helps.len() > 1);
        let unlisted: Vec<&String> = several
            .map(|(flag, _)| flag)
            .filter(|flag| !ALIKE.contains(&flag.as_str()) && !variables::AMBIGUOUS.contains(&flag.as_str()))
            .collect();
        assert!(unlisted.is_empty(), "list them in AMBIGUOUS or ALIKE: {unlisted:?}");
    }
}
