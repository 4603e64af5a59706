//! Which worker gets a request: the view of the workers, and the score.

pub(crate) mod able;
pub(crate) mod accept_clock;
pub(crate) mod budget;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) mod fixture;
pub(crate) mod refusals;
pub(crate) mod score;
mod view;

pub use view::View;
pub use view::choice::{Choice, Tried};
pub use view::overview::Overview;
