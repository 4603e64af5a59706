//! Which worker gets a request: the view of the workers, and the score.

pub mod able;
pub mod accept_clock;
pub mod budget;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) mod fixture;
pub mod score;
mod view;

pub use view::View;
pub use view::choice::{Choice, Tried};
pub use view::overview::{Overview, SeenModel, SeenWorker};
