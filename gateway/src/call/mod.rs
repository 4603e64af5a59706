//! The seam between the HTTP edge and everything behind it: a client's call, its output, and the trait that takes it.

mod backend;
mod error;
mod output;
mod request;

pub use backend::{Backend, CallStream, Prospect};
pub use error::{CallError, Stage};
pub use output::Output;
pub(crate) use output::Written;
pub use request::Call;
