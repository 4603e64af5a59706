//! What ends a subcommand.

use std::error::Error;

/// Whatever ended a subcommand; all that is left to do is to say it.
pub(crate) type Failure = Box<dyn Error + Send + Sync>;
