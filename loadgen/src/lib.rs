//! `tokenbus bench`: load on any OpenAI-compatible server, every answer checked, cost and latency reported.
//!
//! [`openai`], [`sim_text`] and [`check`] decide whether an answer is right. [`conn`], [`http1`] and [`exchange`] make
//! one request; [`load`] makes many. [`stats`], [`process_usage`] and [`report`] give latencies and costs.
//! [`floor`] is the server that does nothing but write, whose cost is what all others are measured in.

mod args;
mod arrivals;
mod budget;
mod check;
mod conn;
mod deadline;
mod error;
mod exchange;
mod failure;
mod floor;
mod http1;
mod limits;
mod load;
mod openai;
mod probe;
mod process_usage;
mod procfs;
mod progress;
mod report;
mod report_text;
mod run;
mod sim_text;
mod socket;
mod stats;
mod target;
#[cfg(test)]
mod tests;

pub use args::{Args, Arrivals, Check, NamedPid};
pub use error::Error;
pub use floor::{FloorArgs, FloorError, serve as serve_floor};
pub use procfs::ProcError;
pub use run::run;
pub use target::TargetError;
