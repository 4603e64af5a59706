//! API keys: who may ask for what, how much of it, and that it holds over all gateways.

mod bucket;
pub mod estimate;
pub mod limiter;
pub mod limits;
pub mod pattern;
pub mod secret;
mod state;
pub mod table;
