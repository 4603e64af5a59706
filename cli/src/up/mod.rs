//! `tokenbus up`: a whole cluster on one machine, with everything it needs.

pub mod cache;
mod command;
mod download;
mod first_answer;
pub mod hub;
pub mod model;
mod nats;
mod nats_log;
mod package;
mod path;
mod pip;
pub mod provision;
pub mod provision_command;
pub mod python;
mod roles;

pub use command::Args;
pub(crate) use command::run;
