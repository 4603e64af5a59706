//! Reads a JSON object member by member. A member is removed when it is read, an error names the member's path, and
//! the members that are left can be passed on as they came.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use tokenbus_protocol::RawObject;

use super::{RequestError, bound_values, field, missing, parse};

/// An object whose members are read and removed one by one. A null counts as absent, as everywhere in these APIs.
#[derive(Debug)]
pub(crate) struct MemberReader {
    path: String,
    object: RawObject,
}

impl MemberReader {
    /// Reads a request's body.
    ///
    /// # Errors
    /// [`RequestError`] when the body is no JSON object.
    pub(crate) fn body(body: &[u8]) -> Result<Self, RequestError> {
        bound_values(body)?;
        Ok(Self {
            path: String::new(),
            object: parse(body)?,
        })
    }

    /// Reads the object `raw` at `path`.
    ///
    /// # Errors
    /// [`RequestError`] when `raw` is no object.
    pub(crate) fn nested(path: impl Into<String>, raw: &RawValue) -> Result<Self, RequestError> {
        let path = path.into();
        match RawObject::parse(raw.get().as_bytes()) {
            Ok(object) => Ok(Self { path, object }),
            Err(_) => Err(wrong_type(path, "an object is expected")),
        }
    }

    /// The path of the member `name`.
    pub(crate) fn at(&self, name: &str) -> String {
        join(&self.path, name)
    }

    /// Removes a member and reads it as `T`.
    ///
    /// # Errors
    /// [`RequestError`] when the member is no `T`.
    pub(crate) fn take<T: DeserializeOwned>(&mut self, name: &str) -> Result<Option<T>, RequestError> {
        match self.raw(name) {
            Some(raw) => read(&self.at(name), &raw).map(Some),
            None => Ok(None),
        }
    }

    /// Removes a required member and reads it as `T`.
    ///
    /// # Errors
    /// [`RequestError`] when the member is missing, or no `T`.
    pub(crate) fn need<T: DeserializeOwned>(&mut self, name: &str) -> Result<T, RequestError> {
        self.take(name)?.ok_or_else(|| missing(self.at(name)))
    }

    /// Removes a member, checks that it is a `T`, and returns it as it was written.
    ///
    /// # Errors
    /// [`RequestError`] when the member is no `T`.
    pub(crate) fn checked<T: DeserializeOwned>(&mut self, name: &str) -> Result<Option<Box<RawValue>>, RequestError> {
        let raw = self.raw(name);
        if let Some(raw) = &raw {
            read::<T>(&self.at(name), raw)?;
        }
        Ok(raw)
    }

    /// Removes a required member and returns it as it was written.
    ///
    /// # Errors
    /// [`RequestError`] when the member is missing.
    pub(crate) fn need_raw(&mut self, name: &str) -> Result<Box<RawValue>, RequestError> {
        self.raw(name).ok_or_else(|| missing(self.at(name)))
    }

    /// Removes a member and returns it as it was written; `None` when it is null or absent.
    pub(crate) fn raw(&mut self, name: &str) -> Option<Box<RawValue>> {
        self.object.remove(name).filter(|raw| raw.get() != "null")
    }

    /// Removes a member that is a string; any other stays.
    pub(crate) fn raw_text(&mut self, name: &str) -> Option<String> {
        let text = serde_json::from_str(self.object.get(name)?.get()).ok();
        if text.is_some() {
            let _ = self.object.remove(name);
        }
        text
    }

    /// Removes an array and returns its elements.
    ///
    /// # Errors
    /// [`RequestError`] when the member is no array.
    pub(crate) fn list(&mut self, name: &str) -> Result<Option<Vec<Box<RawValue>>>, RequestError> {
        match self.raw(name) {
            Some(raw) => list(&self.at(name), &raw).map(Some),
            None => Ok(None),
        }
    }

    /// Removes an object.
    ///
    /// # Errors
    /// [`RequestError`] when the member is no object.
    pub(crate) fn object(&mut self, name: &str) -> Result<Option<Self>, RequestError> {
        match self.raw(name) {
            Some(raw) => Self::nested(self.at(name), &raw).map(Some),
            None => Ok(None),
        }
    }

    /// The members that are left.
    pub(crate) fn rest(self) -> RawObject {
        self.object
    }
}

/// Reads each of `elements`, which are objects in the array at `path`, with `read`.
///
/// # Errors
/// [`RequestError`] when an element is no object, and those of `read`.
pub(crate) fn read_each<T>(
    path: &str,
    elements: &[Box<RawValue>],
    mut read: impl FnMut(MemberReader) -> Result<T, RequestError>,
) -> Result<Vec<T>, RequestError> {
    let elements = elements.iter().enumerate();
    elements
        .map(|(n, raw)| read(MemberReader::nested(format!("{path}[{n}]"), raw)?))
        .collect()
}

/// The elements of the array `raw` at `path`.
///
/// # Errors
/// [`RequestError`] when `raw` is no array.
pub(crate) fn list(path: &str, raw: &RawValue) -> Result<Vec<Box<RawValue>>, RequestError> {
    read(path, raw).map_err(|_| wrong_type(path, "an array is expected"))
}

/// Reads `raw` at `path` as `T`.
///
/// # Errors
/// [`RequestError`] says what is wrong and where.
pub(crate) fn read<'de, T: Deserialize<'de>>(path: &str, raw: &'de RawValue) -> Result<T, RequestError> {
    // Paths cost an allocation per member, so only a value with an error is read a second time for its path.
    serde_json::from_str(raw.get()).map_err(|error| {
        let mut json = serde_json::Deserializer::from_str(raw.get());
        let below = match serde_path_to_error::deserialize::<_, T>(&mut json) {
            Ok(_) => String::new(),
            Err(error) => error.path().to_string(),
        };
        let path = match below.as_str() {
            "" | "." => path.to_owned(),
            below => join(path, below),
        };
        let what = error.to_string();
        let what = what.split(" at line ").next().unwrap_or_default();
        wrong_type(path, what)
    })
}

/// The member at `path` has the wrong type.
pub(crate) fn wrong_type(path: impl Into<String>, what: &str) -> RequestError {
    field(path, "invalid_type", what)
}

/// The member at `path` asks for something that this gateway cannot do.
pub(crate) fn unsupported(path: impl Into<String>, what: impl Into<String>) -> RequestError {
    RequestError::Field {
        param: Some(path.into()),
        code: "unsupported_value",
        message: what.into(),
    }
}

fn join(path: &str, below: &str) -> String {
    if path.is_empty() || below.starts_with('[') {
        format!("{path}{below}")
    } else {
        format!("{path}.{below}")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn param(error: &RequestError) -> Option<&str> {
        match error {
            RequestError::Field { param, .. } => param.as_deref(),
            _ => None,
        }
    }

    #[test]
    fn members_are_taken_and_the_rest_stays_as_it_was() {
        let mut body = MemberReader::body(br#"{"a":1,"z":1.10,"b":null,"l":[1.0,"x"],"o":{"p":"q"}}"#).unwrap();
        assert_eq!(body.need::<u8>("a").unwrap(), 1);
        assert_eq!(body.take::<u8>("b").unwrap(), None);
        assert_eq!(body.take::<u8>("c").unwrap(), None);
        let list = body.list("l").unwrap().unwrap();
        assert_eq!(list.iter().map(|raw| raw.get()).collect::<Vec<_>>(), ["1.0", "\"x\""]);
        let mut object = body.object("o").unwrap().unwrap();
        assert_eq!(object.at("p"), "o.p");
        assert_eq!(object.need::<String>("p").unwrap(), "q");
        assert_eq!(body.rest().to_json().unwrap().get(), r#"{"z":1.10}"#);
    }

    #[test]
    fn what_is_wrong_is_said_with_its_path() {
        let mut body = MemberReader::body(br#"{"a":"x","l":7,"o":[],"m":{"k":1}}"#).unwrap();
        assert_eq!(param(&body.need::<u8>("a").unwrap_err()), Some("a"));
        assert_eq!(param(&body.need::<u8>("n").unwrap_err()), Some("n"));
        assert_eq!(param(&body.list("l").unwrap_err()), Some("l"));
        assert_eq!(param(&body.object("o").unwrap_err()), Some("o"));
        let wrong = body.take::<std::collections::HashMap<String, String>>("m").unwrap_err();
        assert_eq!(param(&wrong), Some("m.k"));
        assert!(!wrong.to_string().contains("line"), "{wrong}");
        let raw: Box<RawValue> = serde_json::from_str("[1]").unwrap();
        let wrong = read::<Vec<String>>("input[2].x", &raw).unwrap_err();
        assert_eq!(param(&wrong), Some("input[2].x[0]"));
        assert!(matches!(MemberReader::body(b"[]"), Err(RequestError::NotAnObject)));
    }
}
