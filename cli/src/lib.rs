//! The command line of tokenbus: one binary, a subcommand for each role.

mod access;
mod app;
mod chat;
mod config;
mod coordinator;
mod drain;
mod failure;
mod files;
mod fleet;
mod gateway;
mod generated;
mod health;
mod http;
mod keys;
mod limits;
mod listen;
mod nats_config;
mod open_files;
mod outlet;
mod reference;
mod secret;
mod shared;
mod signals;
mod sim_server;
mod size;
mod status;
mod ui;
mod up;
mod variables;
mod worker;

use std::process::ExitCode;

/// Runs the process's command line to its end.
pub fn main() -> ExitCode {
    app::main()
}
