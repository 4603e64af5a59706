//! A JSON value, kept as the text of its sender.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::value::RawValue;

/// Valid JSON on one line. Numbers keep their digits, and objects their order and duplicates: the client gets what
/// the engine sent. On the bus it is a MessagePack text; in a JSON document it is inserted as it is.
#[derive(Clone, PartialEq, Eq)]
pub struct RawJson(Box<str>);

/// The text is not JSON.
#[derive(Debug, thiserror::Error)]
#[error("not JSON: {0}")]
pub struct RawJsonError(#[from] serde_json::Error);

impl RawJson {
    /// Keeps `text` if it is JSON. Line breaks between tokens become blanks, because an event stream sends the
    /// value in one line.
    ///
    /// # Errors
    /// [`RawJsonError`] when it is not exactly one JSON value.
    pub fn new(text: impl Into<String>) -> Result<Self, RawJsonError> {
        let text: String = text.into();
        let _: &RawValue = serde_json::from_str(&text)?;
        Ok(Self::one_line(text))
    }

    /// Encodes `value`.
    ///
    /// # Errors
    /// [`RawJsonError`] when serde cannot express it as JSON.
    pub fn from_serialize<T: Serialize + ?Sized>(value: &T) -> Result<Self, RawJsonError> {
        Ok(Self::one_line(serde_json::to_string(value)?))
    }

    /// The JSON text.
    pub fn get(&self) -> &str {
        &self.0
    }

    /// Reads it as `T`.
    ///
    /// # Errors
    /// [`RawJsonError`] when it is not a `T`.
    pub fn parse<'a, T: Deserialize<'a>>(&'a self) -> Result<T, RawJsonError> {
        Ok(serde_json::from_str(&self.0)?)
    }

    // Raw line breaks occur only between tokens: JSON demands escapes in strings.
    fn one_line(text: String) -> Self {
        let trimmed = text.trim_ascii();
        let line = if trimmed.contains(['\n', '\r']) {
            trimmed.replace(['\n', '\r'], " ")
        } else if trimmed.len() == text.len() {
            text
        } else {
            trimmed.to_owned()
        };
        Self(line.into_boxed_str())
    }
}

impl From<&RawValue> for RawJson {
    fn from(value: &RawValue) -> Self {
        Self::one_line(value.get().to_owned())
    }
}

impl fmt::Debug for RawJson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for RawJson {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        if s.is_human_readable() {
            serde_json::from_str::<&RawValue>(&self.0)
                .map_err(serde::ser::Error::custom)?
                .serialize(s)
        } else {
            s.serialize_str(&self.0)
        }
    }
}

impl<'de> Deserialize<'de> for RawJson {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        if d.is_human_readable() {
            return Box::<RawValue>::deserialize(d).map(|raw| Self::one_line(String::from(Box::<str>::from(raw))));
        }
        let text = Cow::<'de, str>::deserialize(d)?;
        Self::new(text).map_err(de::Error::custom)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_stays_written() {
        let text = r#"{"b":1.000000000000000000001,"a":12345678901234567890123,"b":"\n"}"#;
        assert_eq!(RawJson::new(text).unwrap().get(), text);
    }

    #[test]
    fn pretty_json_is_put_on_one_line() {
        let json = RawJson::new("{\r\n  \"a\": [1,\n 2]\n}\n").unwrap();
        assert!(!json.get().contains(['\n', '\r']));
        assert_eq!(
            json.parse::<serde_json::Value>().unwrap(),
            serde_json::json!({"a": [1, 2]})
        );
    }

    #[test]
    fn no_json_is_refused_also_from_the_bus() {
        for bad in ["", "{", "{}{}", "nope", "\"a\nb\""] {
            assert!(RawJson::new(bad).is_err(), "{bad:?}");
            let bytes = crate::encode(bad).unwrap();
            assert!(crate::decode::<RawJson>(&bytes).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn it_is_spliced_into_json_and_read_out_of_it() {
        #[derive(Serialize, Deserialize)]
        struct Holder {
            inner: RawJson,
        }
        let holder: Holder = serde_json::from_str(r#"{"inner": {"z": 1e400} }"#).unwrap();
        assert_eq!(serde_json::to_string(&holder).unwrap(), r#"{"inner":{"z": 1e400}}"#);
    }
}
