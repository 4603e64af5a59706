//! Why a response could not be kept or found.

use tokio::time::timeout;

use super::limits;

/// Why a response could not be stored or found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// This cluster has no place for responses.
    #[error("this cluster keeps no responses: {0}")]
    Absent(String),
    /// The place exists, but did not answer properly.
    #[error("kept responses cannot be reached at the moment: {0}")]
    Failed(String),
    /// Too large to store.
    #[error("the response and its conversation have {0} bytes, which is too large to store")]
    TooLarge(usize),
}

pub(super) async fn limited<T, E: std::fmt::Display>(
    operation: impl Future<Output = Result<T, E>>,
) -> Result<T, StoreError> {
    match timeout(limits::OPERATION, operation).await {
        Ok(result) => result.map_err(failed),
        Err(_) => Err(StoreError::Failed("JetStream did not answer".to_owned())),
    }
}

pub(super) fn failed(error: impl std::fmt::Display) -> StoreError {
    StoreError::Failed(error.to_string())
}
