//! What ends a subcommand.

use std::error::Error;

/// Whatever ended a subcommand; all that is left to do is to say it.
pub(crate) type Failure = Box<dyn Error + Send + Sync>;

/// A configuration that cannot be used: the process ends as for a wrong command line.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Unusable(pub(crate) String);
