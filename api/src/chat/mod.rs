//! OpenAI's chat completions: the check of a request, and the events of its answer.

mod check;
mod chunk_encoder;
#[cfg(test)]
mod text_tests;

pub use check::{ChatView, check};
pub use chunk_encoder::ChunkEncoder;
