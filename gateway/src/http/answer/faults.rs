//! Faults of the core that end an answer. None of them should happen.

use crate::call::{CallError, Stage};
use crate::http::error::HttpError;

/// The core sent nothing until the backstop.
pub(crate) fn overdue() -> HttpError {
    tracing::error!("a call outlived its deadline in the core");
    CallError::Deadline {
        stage: Stage::Generation,
    }
    .into()
}

/// The core sent an output that only other callers ask for.
pub(crate) fn unasked() -> HttpError {
    CallError::Internal("output came in a form that was not asked for".to_owned()).into()
}

/// The core's stream ended with neither a finish nor an error.
pub(crate) fn ended_early() -> HttpError {
    CallError::Internal("the stream ended without its finish".to_owned()).into()
}
