//! The simulated engine, for benchmarks, load and fault tests: [`SimEngine`] is a worker's engine, and [`Server`] puts
//! one behind an OpenAI-compatible HTTP endpoint. Never the default.

mod engine;
mod limits;
mod refusal;
mod server;

pub use engine::{SimEngine, SimOptions};
pub use server::{Server, serve};
