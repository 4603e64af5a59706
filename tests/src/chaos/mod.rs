//! A whole cluster with faults: the stage of the fault tests, and seeded runs that mix the faults, one or two at a
//! time.

pub mod pairs;
pub mod plan;
pub mod play;
pub mod run;
pub mod stage;

pub use pairs::{Pair, Pairs};
pub use plan::{Act, Plan, Step};
pub use stage::{Setting, Stage};
