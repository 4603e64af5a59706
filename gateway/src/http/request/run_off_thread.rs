//! Work over many bytes, apart from the threads that serve connections.

use crate::call::CallError;
use crate::http::error::HttpError;
use crate::http::limits::INLINE;

/// Runs `work`, which goes over `bytes`: at once where they are few, else on a thread that may block.
///
/// # Errors
/// Only when `work` panicked, or the gateway stops.
pub(crate) async fn beside<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, HttpError> {
    if bytes <= INLINE {
        return Ok(work());
    }
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| CallError::Internal(format!("the request could not be read: {error}")).into())
}
