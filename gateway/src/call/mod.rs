//! What the HTTP edge asks of the core, and what comes back: the seam between `http/`, `api/` and
//! everything that knows the bus.

mod cluster;
mod error;
mod output;
mod request;

pub use cluster::{CallStream, Core, Prospect};
pub use error::{CallError, Stage};
pub use output::{Output, Written};
pub use request::Call;
