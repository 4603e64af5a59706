//! The HTTP edge: makes calls of requests, and responses of what comes back.
//!
//! From the outside in: `connection/` serves a client's connection; `router.rs` leads a request through its layers to
//! an endpoint; `endpoints/` has one file per API; `request/` reads what the client sent; `answer/` writes the response.
//! [`error`] alone knows the status of an error.

mod answer;
pub(crate) mod connection;
mod edge;
mod endpoints;
pub(crate) mod error;
mod format;
mod held;
pub(crate) mod limits;
mod openapi;
mod options;
mod origin;
mod page;
mod request;
mod router;

pub use edge::Edge;
#[cfg(feature = "testing")]
pub use endpoints::routes::paths;
pub use held::Bodies;
pub use options::{HttpOptions, MostConnections};
pub use origin::Origin;
#[cfg(feature = "testing")]
pub use page::paths as page_paths;
pub use router::router;
