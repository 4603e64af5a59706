//! A whole cluster that can be hurt: the stage of the fault tests, and seeded runs that mix the
//! faults, one after the other or two at once.

pub mod pairs;
pub mod plan;
pub mod play;
pub mod run;
pub mod stage;

pub use pairs::{Pair, Pairs};
pub use plan::{Act, Plan, Step};
pub use stage::{Setting, Stage};
