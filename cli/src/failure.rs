//! Errors that end a subcommand.

use std::error::Error;

/// Any error that ends a subcommand; it is only written out.
pub(crate) type Failure = Box<dyn Error + Send + Sync>;

/// A configuration that cannot be used: the process ends as for a wrong command line.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Unusable(pub(crate) String);
