//! Reading a JSON object member by member: each is taken out, and what is wrong with one is said
//! with its path. What is left over can be passed on as it came.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use tokenbus_protocol::RawObject;

use crate::request::{RequestError, missing, parse};

/// An object whose members are taken out one by one. A null is as good as absent, as everywhere in
/// these APIs.
#[derive(Debug)]
pub(crate) struct Taken {
    path: String,
    object: RawObject,
}

impl Taken {
    /// A request's body.
    ///
    /// # Errors
    /// [`RequestError`] when it is no JSON object.
    pub(crate) fn body(body: &[u8]) -> Result<Self, RequestError> {
        Ok(Self {
            path: String::new(),
            object: parse(body)?,
        })
    }

    /// The object `raw`, which stands at `path`.
    ///
    /// # Errors
    /// [`RequestError`] when it is none.
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

    /// Takes a member out as `T`.
    ///
    /// # Errors
    /// [`RequestError`] when it is no `T`.
    pub(crate) fn take<T: DeserializeOwned>(&mut self, name: &str) -> Result<Option<T>, RequestError> {
        match self.raw(name) {
            Some(raw) => read(&self.at(name), &raw).map(Some),
            None => Ok(None),
        }
    }

    /// Takes a member out that must be there.
    ///
    /// # Errors
    /// [`RequestError`] when it is not, or is no `T`.
    pub(crate) fn need<T: DeserializeOwned>(&mut self, name: &str) -> Result<T, RequestError> {
        self.take(name)?.ok_or_else(|| missing(self.at(name)))
    }

    /// Takes a member out as it was written, when it is a `T`.
    ///
    /// # Errors
    /// [`RequestError`] when it is none.
    pub(crate) fn checked<T: DeserializeOwned>(&mut self, name: &str) -> Result<Option<Box<RawValue>>, RequestError> {
        let raw = self.raw(name);
        if let Some(raw) = &raw {
            read::<T>(&self.at(name), raw)?;
        }
        Ok(raw)
    }

    /// Takes a member out as it was written; `None` where it is null or not there.
    pub(crate) fn raw(&mut self, name: &str) -> Option<Box<RawValue>> {
        self.object.remove(name).filter(|raw| raw.get() != "null")
    }

    /// Takes an array out, element by element.
    ///
    /// # Errors
    /// [`RequestError`] when it is none.
    pub(crate) fn list(&mut self, name: &str) -> Result<Option<Vec<Box<RawValue>>>, RequestError> {
        match self.raw(name) {
            Some(raw) => list(&self.at(name), &raw).map(Some),
            None => Ok(None),
        }
    }

    /// Takes an object out.
    ///
    /// # Errors
    /// [`RequestError`] when it is none.
    pub(crate) fn object(&mut self, name: &str) -> Result<Option<Self>, RequestError> {
        match self.raw(name) {
            Some(raw) => Self::nested(self.at(name), &raw).map(Some),
            None => Ok(None),
        }
    }

    /// What has not been taken.
    pub(crate) fn rest(self) -> RawObject {
        self.object
    }
}

/// The elements of the array `raw`, which stands at `path`.
///
/// # Errors
/// [`RequestError`] when it is none.
pub(crate) fn list(path: &str, raw: &RawValue) -> Result<Vec<Box<RawValue>>, RequestError> {
    read(path, raw).map_err(|_| wrong_type(path, "an array is expected"))
}

/// `raw`, which stands at `path`, as `T`.
///
/// # Errors
/// [`RequestError`] says what is wrong and where.
pub(crate) fn read<'de, T: Deserialize<'de>>(path: &str, raw: &'de RawValue) -> Result<T, RequestError> {
    // Paths cost an allocation per member, so they are looked for only when there is an error.
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

/// The member at `path` has another type than it must have.
pub(crate) fn wrong_type(path: impl Into<String>, what: &str) -> RequestError {
    super::field(path, "invalid_type", what)
}

/// What this gateway cannot do for a client, with the member that asks for it.
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
        let mut body = Taken::body(br#"{"a":1,"z":1.10,"b":null,"l":[1.0,"x"],"o":{"p":"q"}}"#).unwrap();
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
        let mut body = Taken::body(br#"{"a":"x","l":7,"o":[],"m":{"k":1}}"#).unwrap();
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
        assert!(matches!(Taken::body(b"[]"), Err(RequestError::NotAnObject)));
    }
}
