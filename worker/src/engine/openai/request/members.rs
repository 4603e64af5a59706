//! Members of a request's JSON object, read and written.

use bytes::Bytes;
use serde::Deserialize;
use tokenbus_protocol::{EngineError, ErrorCode, RawJsonError, RawObject};

use crate::engine::openai::error;

/// A member as `T`; `None` when it is absent, `null` or something else.
pub(crate) fn parsed<'a, T: Deserialize<'a>>(object: &'a RawObject, name: &str) -> Option<T> {
    object.get(name).and_then(|raw| serde_json::from_str(raw.get()).ok())
}

/// A member as a whole number of at least 0.
pub(crate) fn number(object: &RawObject, name: &str) -> Option<u64> {
    parsed(object, name)
}

/// The object as bytes to send.
pub(crate) fn encode(object: &RawObject) -> Result<Bytes, RawJsonError> {
    Ok(Bytes::from(object.to_json()?.get().to_owned()))
}

/// For errors of encoding, which are not seen for members that were read from JSON.
pub(crate) fn unwritable(reason: RawJsonError) -> EngineError {
    error::plain(
        ErrorCode::Internal,
        format!("the request cannot be written for the engine: {reason}"),
        false,
    )
}

/// Whether `tool_choice` leaves the model no choice.
pub(crate) fn demands_a_tool(object: &RawObject) -> bool {
    object
        .get("tool_choice")
        .is_some_and(|raw| raw.get() == "\"required\"" || raw.get().starts_with('{'))
}
