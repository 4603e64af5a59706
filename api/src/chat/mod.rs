//! OpenAI's chat completions: how a request is checked, and how its answer is written.

mod check;
mod style;
#[cfg(test)]
mod text_tests;

#[cfg(any(test, feature = "testing"))]
pub(crate) use check::chat_view;
pub use check::check_chat;
#[cfg(test)]
pub(crate) use style::ChatStyle;
