//! The chat request into which a request of another API is translated.

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;
use tokenbus_protocol::{ADDED_MEMBERS, RawJsonError, RawObject};

use crate::request::RequestError;

/// An optional value as JSON.
///
/// # Errors
/// [`RequestError`]; never for a value that was read from JSON.
pub(crate) fn json<T: Serialize>(value: Option<&T>) -> Result<Option<Box<RawValue>>, RequestError> {
    let raw = value.map(serde_json::value::to_raw_value).transpose();
    raw.map_err(|error| unwritable(&error.into()))
}

/// A chat request in the making.
#[derive(Debug, Default)]
pub(crate) struct ChatBody {
    members: RawObject,
    /// Paths of members that no client wrote and an engine may be asked without.
    added: Vec<&'static str>,
}

impl ChatBody {
    /// Sets a member.
    ///
    /// # Errors
    /// [`RequestError`]; never for a value that was read from JSON. That holds for all these methods.
    pub(crate) fn set<T: Serialize + ?Sized>(&mut self, name: &str, value: &T) -> Result<(), RequestError> {
        self.members.set(name, value).map_err(|error| unwritable(&error))
    }

    /// Notes that the member at `path` is the translation's own: an engine that does not take it is asked without.
    pub(crate) fn note_added(&mut self, path: &'static str) {
        self.added.push(path);
    }

    /// Sets a member to the client's value, if there is one.
    pub(crate) fn give(&mut self, name: &str, raw: Option<&RawValue>) -> Result<(), RequestError> {
        raw.map_or(Ok(()), |raw| self.set(name, raw))
    }

    /// Passes on members that only an engine may know.
    pub(crate) fn pass(&mut self, rest: &RawObject) -> Result<(), RequestError> {
        rest.iter().try_for_each(|(name, raw)| self.set(name, raw))
    }

    /// The request as JSON.
    pub(crate) fn finish(mut self) -> Result<Bytes, RequestError> {
        if !self.added.is_empty() {
            let added = std::mem::take(&mut self.added);
            self.set(ADDED_MEMBERS, &added)?;
        }
        let json = serde_json::to_vec(&self.members).map_err(|error| unwritable(&error.into()))?;
        Ok(json.into())
    }
}

/// An error of encoding, which never happens for values that were read from JSON.
pub(crate) fn unwritable(error: &RawJsonError) -> RequestError {
    RequestError::Field {
        param: None,
        code: "invalid_value",
        message: format!("Your request cannot be passed on: {error}"),
    }
}
