//! The HTTP edge: makes calls of requests, and responses of what comes back.
//!
//! From the outside in: `connection/` serves a client's connection; `router.rs` leads a request through its layers to
//! an endpoint; `endpoints/` has one file per API; `request/` reads what the client sent; `answer/` writes the response.
//! [`error`] alone knows the status of an error.

mod answer;
pub mod connection;
mod edge;
mod endpoints;
pub mod error;
mod format;
pub mod limits;
mod openapi;
mod options;
mod origin;
mod page;
mod request;
mod router;

pub use edge::Edge;
pub use endpoints::routes::paths;
pub use error::{HttpError, Verdict};
pub use options::HttpOptions;
pub use origin::{NoOrigin, Origin};
pub use router::router;
