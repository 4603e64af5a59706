//! `tokenbus up`: a whole cluster on one machine, with everything it needs.

pub(crate) mod cache;
mod command;
mod download;
mod engine;
mod first_answer;
pub(crate) mod hub;
pub(crate) mod model;
mod nats;
mod nats_log;
mod package;
mod path;
mod pip;
pub(crate) mod provision;
pub(crate) mod provision_command;
pub(crate) mod python;
mod roles;

pub(crate) use command::Args;
pub(crate) use command::run;
