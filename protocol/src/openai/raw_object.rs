//! A JSON object whose members keep their order and their text.

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{RawJson, RawJsonError};

/// The members of a JSON object in their original order and text. Of several members with one name the last counts,
/// as in every common JSON library.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RawObject {
    // A hash map, because a hostile body may have a million members.
    members: IndexMap<String, Box<RawValue>>,
}

impl RawObject {
    /// Reads an object.
    ///
    /// # Errors
    /// [`RawJsonError`] when `json` is not a JSON object.
    pub fn parse(json: &[u8]) -> Result<Self, RawJsonError> {
        Ok(serde_json::from_slice(json)?)
    }

    /// The text of the member `name`.
    pub fn get(&self, name: &str) -> Option<&RawValue> {
        self.members.get(name).map(|value| &**value)
    }

    /// Sets a member: in its old place if it exists, otherwise at the end.
    ///
    /// # Errors
    /// [`RawJsonError`] when serde cannot express `value` as JSON.
    pub fn set<T: Serialize + ?Sized>(&mut self, name: &str, value: &T) -> Result<(), RawJsonError> {
        self.members
            .insert(name.to_owned(), serde_json::value::to_raw_value(value)?);
        Ok(())
    }

    /// Removes a member and returns it.
    pub fn remove(&mut self, name: &str) -> Option<Box<RawValue>> {
        self.members.shift_remove(name)
    }

    /// Whether it has no members.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Names and texts, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &RawValue)> {
        self.members.iter().map(|(key, value)| (key.as_str(), &**value))
    }

    /// The object as one line of JSON.
    ///
    /// # Errors
    /// [`RawJsonError`]; never for members that were parsed or set.
    pub fn to_json(&self) -> Result<RawJson, RawJsonError> {
        RawJson::from_serialize(self)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn members_keep_order_and_text() {
        let mut object = RawObject::parse(br#"{"z": 1.10, "model":"a", "x":{"y" : null}, "z": 2.50}"#).unwrap();
        object.set("model", "b").unwrap();
        object.set("stream", &true).unwrap();
        assert!(object.remove("nothing").is_none());
        assert_eq!(
            object.to_json().unwrap().get(),
            r#"{"z":2.50,"model":"b","x":{"y" : null},"stream":true}"#
        );
    }

    #[test]
    fn other_json_is_refused() {
        for bad in ["[]", "1", "{\"a\":}", ""] {
            assert!(RawObject::parse(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }
}
