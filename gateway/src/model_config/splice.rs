//! Adds defaults to a request's body, and leaves its other members byte for byte as the client sent them; pure.

use bytes::Bytes;
use serde_json::value::RawValue;
use tokenbus_protocol::{RawJsonError, RawObject};

/// Two names of one member. A request that sets either does not get the other.
const SAME: [&str; 2] = ["max_tokens", "max_completion_tokens"];

/// The members to add.
#[derive(Debug, Clone, Default)]
pub struct Defaults {
    members: Vec<(String, Box<RawValue>)>,
}

impl PartialEq for Defaults {
    fn eq(&self, other: &Self) -> bool {
        let texts = |defaults: &Self| -> Vec<(String, String)> {
            let members = defaults.members.iter();
            members
                .map(|(name, value)| (name.clone(), value.get().to_owned()))
                .collect()
        };
        texts(self) == texts(other)
    }
}

impl Defaults {
    /// Adds a default.
    ///
    /// # Errors
    /// Why it is invalid.
    pub(super) fn add(&mut self, name: &str, value: &serde_json::Value) -> Result<(), String> {
        let raw = serde_json::value::to_raw_value(value).map_err(|error| error.to_string())?;
        if SAME.contains(&name) && self.members.iter().any(|(known, _)| SAME.contains(&known.as_str())) {
            return Err(format!("{} and {} are one member", SAME[0], SAME[1]));
        }
        self.members.push((name.to_owned(), raw));
        Ok(())
    }

    /// These defaults, completed by those of `other`.
    #[must_use]
    pub(super) fn or(&self, other: &Self) -> Self {
        let mut both = self.clone();
        for (name, value) in &other.members {
            if !self.members.iter().any(|(known, _)| is_same(known, name)) {
                both.members.push((name.clone(), value.clone()));
            }
        }
        both
    }

    /// Whether there are no defaults.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// `body` for `model`, with the defaults added where it has no value or null.
    ///
    /// # Errors
    /// [`RawJsonError`] if it is not an object, although it was checked to be one.
    pub fn fill(&self, body: &[u8], model: &str) -> Result<Bytes, RawJsonError> {
        let mut object = RawObject::parse(body)?;
        object.set("model", model)?;
        for (name, value) in &self.members {
            let said = |name: &str| object.get(name).is_some_and(|value| value.get() != "null");
            let names: &[&str] = if SAME.contains(&name.as_str()) { &SAME } else { &[name] };
            if !names.iter().any(|name| said(name)) {
                object.set(name, value)?;
            }
        }
        Ok(Bytes::from(object.to_json()?.get().to_owned()))
    }
}

fn is_same(one: &str, other: &str) -> bool {
    one == other || SAME.contains(&one) && SAME.contains(&other)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    fn defaults(members: &serde_json::Value) -> Defaults {
        let mut defaults = Defaults::default();
        for (name, value) in members.as_object().unwrap() {
            defaults.add(name, value).unwrap();
        }
        defaults
    }

    fn filled(members: &serde_json::Value, body: &str) -> String {
        let filled = defaults(members).fill(body.as_bytes(), "real").unwrap();
        String::from_utf8(filled.to_vec()).unwrap()
    }

    #[test]
    fn only_what_is_missing_is_filled_in_and_the_rest_is_as_it_was() {
        let members = json!({"temperature": 0.5, "top_k": 4, "stop": ["a"]});
        assert_eq!(
            filled(
                &members,
                r#"{"model":"m", "temperature":1.0, "top_k":null, "x":{ "y":1e400 }, "seed":0.10}"#
            ),
            r#"{"model":"real","temperature":1.0,"top_k":4,"x":{ "y":1e400 },"seed":0.10,"stop":["a"]}"#
        );
        assert_eq!(filled(&json!({}), r#"{"model":"m"}"#), r#"{"model":"real"}"#);
    }

    #[test]
    fn the_two_names_of_the_bound_are_one() {
        let members = json!({"max_tokens": 5});
        for body in [
            r#"{"model":"real","max_completion_tokens":9}"#,
            r#"{"model":"real","max_tokens":9}"#,
        ] {
            assert_eq!(filled(&members, body), body);
        }
        let members = json!({"max_completion_tokens": 5});
        let body = r#"{"model":"real","max_tokens":9}"#;
        assert_eq!(filled(&members, body), body);
        let mut both = defaults(&members);
        assert!(both.add("max_tokens", &json!(3)).is_err());
        assert_eq!(both.or(&defaults(&json!({"max_tokens": 3}))), both);
    }

    #[test]
    fn outer_defaults_win_over_inner_ones() {
        let outer = defaults(&json!({"temperature": 1}));
        let inner = defaults(&json!({"temperature": 0, "top_k": 3}));
        assert_eq!(outer.or(&inner), defaults(&json!({"temperature": 1, "top_k": 3})));
    }
}
