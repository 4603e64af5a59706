//! Errors as an engine reports them.

use tokenbus_protocol::{EngineError, ErrorCode};

/// An error that another attempt would not cure.
pub(crate) fn refusal(code: ErrorCode, message: String, param: Option<&str>) -> EngineError {
    EngineError {
        code,
        message,
        param: param.map(str::to_owned),
        engine_code: None,
        retryable: false,
        retry_after_ms: None,
    }
}
