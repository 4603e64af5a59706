//! A whole cluster that can be hurt: the stage of the fault tests, and a seeded run that mixes
//! the faults.

pub mod plan;
pub mod run;
pub mod stage;

pub use plan::{Act, Plan, Step};
pub use stage::{Setting, Stage};
