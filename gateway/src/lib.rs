//! The OpenAI-compatible HTTP gateway: HTTP in, frames out.

pub mod auth;
pub mod call;
pub mod fast_path;
pub mod file_watch;
pub mod http;
pub mod limits;
pub mod loops;
pub mod metrics;
pub mod model_config;
pub mod placement;
pub mod responses_store;
pub mod service;
pub mod shared;
pub mod stream;
pub mod usage;
pub mod waiting_room;

pub use service::{GatewayError, Options, run};
