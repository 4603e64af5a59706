//! OpenAI's chat completions: how a request is checked, and how its answer is written.

mod check;
mod offered;
mod style;
#[cfg(test)]
mod text_tests;

#[cfg(any(test, feature = "testing"))]
pub(crate) use check::chat_view;
pub use check::check_chat;
pub use offered::{WithoutTools, without_offered_tools};
#[cfg(test)]
pub(crate) use style::ChatStyle;
