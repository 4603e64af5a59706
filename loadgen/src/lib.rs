//! `tokenbus bench`: load on any OpenAI-compatible server, every answer checked, cost and latency reported.
//!
//! [`openai`], [`sim_text`] and [`check`] decide whether an answer is right. [`conn`], [`http1`] and [`exchange`] make
//! one request, [`load`] makes many. [`stats`], [`usage`] and [`report`] say what they cost.

mod args;
mod arrivals;
mod budget;
mod check;
mod conn;
mod deadline;
mod error;
mod exchange;
mod failure;
mod http1;
mod limits;
mod load;
mod openai;
mod probe;
mod procfs;
mod progress;
mod report;
mod run;
mod sim_text;
mod stats;
mod stream;
mod target;
#[cfg(test)]
mod tests;
mod text;
mod usage;

pub use args::{Args, Arrivals, Check, NamedPid};
pub use error::Error;
pub use procfs::ProcError;
pub use run::run;
pub use target::TargetError;
