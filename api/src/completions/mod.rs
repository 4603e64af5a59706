//! OpenAI's text completions: the check of a request, and the events of its answer.

mod check;
pub(crate) mod logprobs;
mod text_encoder;

pub use check::{CompletionView, check};
