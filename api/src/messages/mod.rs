//! Anthropic's Messages API as a translation: its request becomes a chat request, and the chat's answer becomes content
//! blocks and events.

mod check;
mod error;
mod input;
mod message;
mod models;
mod objects;
mod thinking;
mod tools;
mod writer;

#[cfg(test)]
pub(crate) use check::COUNT;
pub use check::{check_message, check_message_count};
pub use error::anthropic_envelope;
pub use models::{ModelInfo, ModelPage, PageQuery};
pub use writer::MESSAGE_ID_PREFIX;
