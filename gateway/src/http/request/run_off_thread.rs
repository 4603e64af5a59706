//! Runs work on many bytes off the threads that serve connections.

use tokio::sync::Semaphore;

use crate::call::CallError;
use crate::http::error::HttpError;
use crate::http::limits::{CHECKS_AT_ONCE, INLINE};

/// Runs `work`, which reads `bytes` bytes: here if they are few, otherwise on a blocking thread.
///
/// # Errors
/// If `work` panicked or the gateway stops.
pub(crate) async fn run_off_thread<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, HttpError> {
    if bytes <= INLINE {
        return Ok(work());
    }
    static CHECKS: Semaphore = Semaphore::const_new(CHECKS_AT_ONCE);
    // Never closed.
    let permit = CHECKS.acquire().await.ok();
    let work = move || {
        // Kept until the work is done, although the client may leave before.
        let _permit = permit;
        work()
    };
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| CallError::Internal(format!("the request could not be read: {error}")).into())
}
