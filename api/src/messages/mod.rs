//! Anthropic's Messages API as a translation: its request becomes a chat request, and what comes of
//! that becomes content blocks and events.

mod create;
pub mod error;
mod input;
pub mod models;
mod shape;
mod thinking;
mod tools;
mod writer;

#[cfg(test)]
pub(crate) use create::COUNT;
pub use create::{check, check_count};

/// With what the ids of messages begin.
pub const ID_PREFIX: &str = "msg_";
