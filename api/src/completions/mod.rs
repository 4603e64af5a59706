//! OpenAI's text completions: how a request is checked, and how its answer is written.

mod check;
mod logprobs;
mod style;

pub use check::check_completion;
#[cfg(feature = "testing")]
pub(crate) use check::completion_view;
#[cfg(test)]
pub(crate) use style::TextStyle;
