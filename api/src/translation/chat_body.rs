//! The body of a chat request, while another API is translated into it.

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;
use tokenbus_protocol::{RawJsonError, RawObject};

use crate::request::RequestError;

/// A value as JSON, where there is one.
///
/// # Errors
/// [`RequestError`]; not seen for what was read from JSON.
pub(crate) fn json<T: Serialize>(value: Option<&T>) -> Result<Option<Box<RawValue>>, RequestError> {
    let raw = value.map(serde_json::value::to_raw_value).transpose();
    raw.map_err(|error| unwritable(&error.into()))
}

/// The chat request while it is written.
#[derive(Debug, Default)]
pub(crate) struct ChatBody(RawObject);

impl ChatBody {
    /// Sets a member.
    ///
    /// # Errors
    /// [`RequestError`]; not seen for what was read from JSON. So it is with all of these.
    pub(crate) fn set<T: Serialize + ?Sized>(&mut self, name: &str, value: &T) -> Result<(), RequestError> {
        self.0.set(name, value).map_err(|error| unwritable(&error))
    }

    /// Sets a member to what was sent, where it was.
    pub(crate) fn give(&mut self, name: &str, raw: Option<&RawValue>) -> Result<(), RequestError> {
        raw.map_or(Ok(()), |raw| self.set(name, raw))
    }

    /// Passes on what nobody here knows and an engine may.
    pub(crate) fn pass(&mut self, rest: &RawObject) -> Result<(), RequestError> {
        rest.iter().try_for_each(|(name, raw)| self.set(name, raw))
    }

    /// The JSON.
    pub(crate) fn finish(self) -> Result<Bytes, RequestError> {
        let json = serde_json::to_vec(&self.0).map_err(|error| unwritable(&error.into()))?;
        Ok(json.into())
    }
}

/// For errors of encoding, which are not seen for what was read from JSON.
pub(crate) fn unwritable(error: &RawJsonError) -> RequestError {
    RequestError::Field {
        param: None,
        code: "invalid_value",
        message: format!("Your request cannot be passed on: {error}"),
    }
}
