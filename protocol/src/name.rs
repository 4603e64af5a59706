//! Names that are one token of a subject: namespaces, gateway ids, worker ids.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::limits::MAX_NAME;

/// A name that is safe in subjects: 1 to [`MAX_NAME`] characters of `A–Z a–z 0–9 - _`. It does not start with `-`,
/// which marks a reply subject. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Arc<str>);

/// Why a text is not a [`Name`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// It is empty, or longer than [`MAX_NAME`].
    #[error("a name has 1 to {MAX_NAME} characters, this one has {0}")]
    Length(usize),
    /// It contains a character that a name may not have.
    #[error("a name has letters, digits, '-' and '_' only and does not start with '-': {0:?}")]
    Character(String),
}

impl Name {
    /// Makes a name of a legal `text`.
    ///
    /// # Errors
    /// [`NameError`] when `text` is empty, too long or contains an illegal character.
    pub fn new(text: &str) -> Result<Self, NameError> {
        if text.is_empty() || text.len() > MAX_NAME {
            return Err(NameError::Length(text.len()));
        }
        let legal = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        if text.starts_with('-') || !text.bytes().all(legal) {
            return Err(NameError::Character(text.to_owned()));
        }
        Ok(Self(text.into()))
    }

    /// Makes a name of any text: replaces illegal characters by `-` and cuts it to length. If nothing legal is
    /// left, returns `fallback`. Host names become worker ids this way.
    pub fn sanitized(text: &str, fallback: &Name) -> Self {
        let mapped: String = text
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' })
            .take(MAX_NAME)
            .collect();
        Self::new(mapped.trim_start_matches('-')).unwrap_or_else(|_| fallback.clone())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::str::FromStr for Name {
    type Err = NameError;
    fn from_str(s: &str) -> Result<Self, NameError> {
        Self::new(s)
    }
}

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
        Self::new(&text).map_err(de::Error::custom)
    }
}
