//! Which worker gets a request: what is known of the workers, and the score.

pub mod able;
pub mod accept_clock;
pub mod budget;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) mod fixture;
pub mod score;
pub mod view;

pub use view::{Choice, Tried, View};
