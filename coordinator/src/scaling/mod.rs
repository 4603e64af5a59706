//! How many workers a model should have, and who is told. `rules.rs` reads what is configured and `desired.rs` decides
//! (both pure); `command.rs` runs the scaler's command.

pub(crate) mod command;
pub(crate) mod desired;
pub(crate) mod rules;

pub(crate) use desired::{Load, Scaling};
