//! Child processes: started so that they cannot outlive this process, and stopped with all their descendants.
//!
//! Each child leads a process group of its own, so Ctrl-C in the terminal does not reach it. On Linux the
//! kernel kills it when this process dies, even of SIGKILL.

mod deaths;
mod lines;
mod process;
mod starter;

pub use deaths::Deaths;
pub use lines::Lines;
pub use process::{Process, output};
