//! Anthropic's Messages API as a translation: its request becomes a chat request, and what comes of
//! that becomes content blocks and events.

mod check;
pub mod error;
mod input;
mod message;
pub mod models;
mod thinking;
mod tools;
mod writer;

#[cfg(test)]
pub(crate) use check::COUNT;
pub use check::{check, check_count};

/// With what the ids of messages begin.
pub const ID_PREFIX: &str = "msg_";
