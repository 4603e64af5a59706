//! The OpenAI-compatible HTTP gateway: HTTP in, frames out.

pub mod auth;
pub mod call;
pub mod core;
pub mod dispatch;
pub mod fast_path;
pub mod feed;
pub mod http;
pub mod limits;
pub mod metrics;
pub mod model_config;
pub mod placement;
mod policy;
pub mod reload;
pub mod responses_store;
pub mod roll_call;
pub mod service;
pub mod shared;
pub mod stream;
pub mod survey;
pub mod usage;
pub mod waiting_room;
pub mod waiting_told;

pub use service::{GatewayError, Options, run};
