//! The seam between the HTTP edge and everything behind it: a client's call, its output, and the trait that takes it.

mod cluster;
mod error;
mod output;
mod request;

pub use cluster::{CallStream, Core, Prospect};
pub use error::{CallError, Stage};
pub use output::{Output, Written};
pub use request::Call;
