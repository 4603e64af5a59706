//! OpenAI's chat completions: the check of a request, and the events of its answer.

mod check;
#[cfg(test)]
mod text_tests;

pub use crate::generation::encoder::ChunkEncoder;
pub use check::{ChatView, check};
