//! Failures that the worker finds itself, and what a failure speaks against.

use tokenbus_protocol::{EngineError, ErrorCode};

use super::secrets::Secrets;

/// The server cannot be reached, or closed the connection before it answered.
pub(crate) fn unreachable() -> EngineError {
    plain(ErrorCode::EngineUnavailable, "the engine cannot be reached", true)
}

/// Marks that the engine closed the connection of a request that it had taken: its process may have died of that request.
const DIED: &str = "engine_died";

/// The server took the request and closed the connection before it answered, or in the middle of its answer.
pub(crate) fn died() -> EngineError {
    EngineError {
        engine_code: Some(DIED.to_owned()),
        ..plain(
            ErrorCode::EngineUnavailable,
            "the engine closed the connection before its answer was complete",
            true,
        )
    }
}

/// The server listens no more, and its open streams are silent.
pub(crate) fn lost() -> EngineError {
    plain(
        ErrorCode::EngineUnavailable,
        "the engine takes no connections any more and left the answer silent",
        true,
    )
}

/// The server says that it is healthy, and generates nothing.
pub(crate) fn hung() -> EngineError {
    plain(
        ErrorCode::EngineUnavailable,
        "the engine is up but generates nothing any more",
        true,
    )
}

/// The stream ended, or its connection broke, before the engine said that the answer is complete.
pub(crate) fn truncated() -> EngineError {
    plain(
        ErrorCode::EngineUnavailable,
        "the engine's answer ended without a finish",
        true,
    )
}

/// Marks an answer that the engine gave up, which it does on purpose: it is paused, scaled down or short of memory.
const GAVE_UP: &str = "engine_gave_up";

/// The engine ended the answer with the finish reason `said`, which is none of a whole answer.
pub(crate) fn given_up(said: &str, secrets: &Secrets) -> EngineError {
    let message = format!("the engine gave the answer up (finish_reason {said:?})");
    EngineError {
        engine_code: Some(GAVE_UP.to_owned()),
        ..plain(ErrorCode::EngineUnavailable, secrets.clean(&message), true)
    }
}

/// The engine sent what no OpenAI server sends.
pub(crate) fn nonsense(what: &str) -> EngineError {
    plain(ErrorCode::Internal, what, true)
}

/// The client's time is over.
pub(crate) fn timeout() -> EngineError {
    plain(ErrorCode::Timeout, "the engine did not answer in time", false)
}

/// The request cannot be served as it is; another worker of this kind would say the same.
pub(crate) fn unsupported(message: impl Into<String>, param: &'static str) -> EngineError {
    EngineError {
        param: Some(param.to_owned()),
        engine_code: Some("unsupported_feature".to_owned()),
        ..plain(ErrorCode::BadRequest, message, false)
    }
}

/// The engine cannot go on from what the client has already.
pub(crate) fn not_continuable(message: &str, retryable: bool) -> EngineError {
    EngineError {
        engine_code: Some("not_continuable".to_owned()),
        ..plain(ErrorCode::EngineUnavailable, message, retryable)
    }
}

/// Whether the engine cannot go on from what the client has already.
pub(crate) fn is_not_continuable(error: &EngineError) -> bool {
    error.engine_code.as_deref() == Some("not_continuable")
}

/// Whether the engine refuses a request whose prompt ends with the client's answer. The same request
/// without it was taken before, so it is the answer that the engine or its template does not take.
pub(crate) fn refuses_continuation(error: &EngineError) -> bool {
    // Older llama-servers tell the errors of a template as their own.
    let template = || {
        let message = error.message.to_ascii_lowercase();
        ["prefill", "final message", "last message", "assistant"]
            .iter()
            .any(|word| message.contains(word))
    };
    !is_not_continuable(error)
        && match error.code {
            ErrorCode::BadRequest => true,
            ErrorCode::Internal => template(),
            _ => false,
        }
}

/// The engine's refusal, told as what it is: the client's request is not at fault.
pub(crate) fn continuation_refused(error: &EngineError) -> EngineError {
    not_continuable(
        &format!("the engine refuses to continue a partial answer: {}", error.message),
        true,
    )
}

/// A deterministic answer was generated again, and is another one.
pub(crate) fn came_out_otherwise(retryable: bool) -> EngineError {
    not_continuable("the answer came out differently when it was generated again", retryable)
}

/// An error with nothing but a code and a sentence.
pub(crate) fn plain(code: ErrorCode, message: impl Into<String>, retryable: bool) -> EngineError {
    EngineError {
        code,
        message: message.into(),
        param: None,
        engine_code: None,
        retryable,
        retry_after_ms: None,
    }
}

/// Whether this failure speaks against the server rather than against the request. An answer that the engine gave up
/// does not: the engine is well enough to say so, and its health tells whether it ends.
pub(crate) fn is_fault(error: &EngineError) -> bool {
    matches!(
        error.code,
        ErrorCode::EngineUnavailable | ErrorCode::Internal | ErrorCode::Timeout
    ) && error.retryable
        && !is_not_continuable(error)
        && error.engine_code.as_deref() != Some(GAVE_UP)
}
