//! The OpenAI-compatible HTTP gateway: HTTP in, frames out.

pub mod call;
