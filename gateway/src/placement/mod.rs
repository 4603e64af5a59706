//! Which worker gets a request: the view of the workers, what is known of their prefix caches, and the choice.

pub(crate) mod able;
pub(crate) mod accept_clock;
pub(crate) mod budget;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) mod fixture;
pub(crate) mod policy;
pub(crate) mod prefixes;
pub(crate) mod prompt;
pub(crate) mod refusals;
mod view;

pub(crate) use policy::{Policy, Selector, Tier};
pub use prefixes::Prefixes;
pub use view::View;
pub use view::choice::{Ask, Choice, Target, Tried, Why};
pub use view::overview::Overview;
pub(crate) use view::tiers::{Policies, WorkerKind};
