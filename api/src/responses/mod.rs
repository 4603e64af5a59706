//! OpenAI's Responses API as a translation: its request becomes a chat request, and what comes of
//! that becomes items and events.
//!
//! [`Create::read`] reads a request, [`Create::translate`] makes the call of it, [`Shape`] writes
//! the answer. What a kept response is, and how a conversation goes on from one, is in [`kept`].

mod echo;
mod input;
mod item;
pub mod kept;
mod request;
mod response;
mod tools;
mod writer;

#[cfg(test)]
pub(crate) use request::COUNT;
pub use request::{Create, Translated};
pub use response::Shape;

/// With what the ids of responses begin.
pub const ID_PREFIX: &str = "resp_";
