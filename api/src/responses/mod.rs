//! OpenAI's Responses API as a translation: its request becomes a chat request, and what comes of
//! that becomes items and events.
//!
//! [`Create::read`] reads a request, [`Create::translate`] makes the call of it, [`Shape`] writes
//! the answer. What a kept response is, and how a conversation goes on from one, is in [`kept`].

mod create;
mod echo;
mod input;
mod item;
pub mod kept;
mod shape;
mod tools;
mod writer;

#[cfg(test)]
pub(crate) use create::COUNT;
pub use create::{Create, Translated};
pub use shape::Shape;

/// With what the ids of responses begin.
pub const ID_PREFIX: &str = "resp_";
