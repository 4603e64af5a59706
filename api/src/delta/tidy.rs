//! Brings the members of deltas into the documented form.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::value::RawValue;
use tokenbus_http_parts::{Unescape, may_have_halves, whole_characters};
use tokenbus_protocol::{RawJson, RawJsonError, RawObject};

use super::calls::Calls;

const CALLS: &str = "tool_calls";

/// The deltas of one answer so far, as far as later ones depend on them.
#[derive(Debug, Default)]
pub(crate) struct Tidy(BTreeMap<u32, Choice>);

#[derive(Debug, Default)]
struct Choice {
    calls: Calls,
    /// Members whose text so far ends with half of a character.
    halves: Vec<(String, Unescape)>,
}

impl Tidy {
    /// The members of a delta of `choice`, in the documented form. Members that are in it already are not touched.
    /// With `last`, no delta of the choice follows.
    pub(crate) fn delta<'a>(
        &mut self,
        choice: u32,
        members: Option<&'a RawJson>,
        last: bool,
    ) -> Option<Cow<'a, RawJson>> {
        let json = members.map_or("{}", |json| json.get());
        let odd = json.contains("\"tool_calls\"") || may_have_halves(json);
        let waits = |known: &Choice| !known.halves.is_empty() || (last && known.calls.wait());
        if !odd && !self.0.get(&choice).is_some_and(waits) {
            return members.map(Cow::Borrowed);
        }
        let known = self.0.entry(choice).or_default();
        match known.tidy(json, last) {
            Ok(Some(tidied)) => Some(Cow::Owned(tidied)),
            Ok(None) | Err(_) => members.map(Cow::Borrowed),
        }
    }
}

impl Choice {
    /// The members in the documented form; `None` if they are in it already.
    fn tidy(&mut self, json: &str, last: bool) -> Result<Option<RawJson>, RawJsonError> {
        let object = RawObject::parse(json.as_bytes())?;
        let mut tidied = RawObject::default();
        let mut changed = false;
        let earlier = std::mem::take(&mut self.halves);
        for (name, _) in earlier.iter().filter(|(name, _)| object.get(name).is_none()) {
            // The other half did not come with the next delta, and so never comes.
            tidied.set(name, "\u{fffd}")?;
            changed = true;
        }
        let mut earlier: BTreeMap<String, Unescape> = earlier.into_iter().collect();
        for (name, raw) in object.iter() {
            if name == CALLS {
                match self.calls.tidy(raw)? {
                    Some(calls) => {
                        changed = true;
                        tidied.set(name, &calls)?;
                    }
                    None => tidied.set(name, raw)?,
                }
                continue;
            }
            let before = earlier.remove(name);
            match self.value(name, raw, before, last)? {
                Some(value) => {
                    changed = true;
                    tidied.set(name, &value)?;
                }
                None => tidied.set(name, raw)?,
            }
        }
        if last && let Some(rest) = self.calls.end(tidied.get(CALLS))? {
            changed = true;
            tidied.set(CALLS, &rest)?;
        }
        changed.then(|| tidied.to_json()).transpose()
    }

    /// A member other than the tool calls; `None` if it is text as it is.
    fn value(
        &mut self,
        name: &str,
        raw: &RawValue,
        before: Option<Unescape>,
        last: bool,
    ) -> Result<Option<Box<RawValue>>, RawJsonError> {
        let json = raw.get();
        let is_text = json.starts_with('"');
        if before.is_none() && !may_have_halves(json) {
            return Ok(None);
        }
        if !is_text {
            let mut value = whole_characters(json).into_owned();
            if before.is_some() && json == "null" {
                value = "\"\u{fffd}\"".to_owned();
            }
            return Ok(Some(RawValue::from_string(value)?));
        }
        let mut halves = before.unwrap_or_default();
        let mut text = String::with_capacity(json.len());
        halves.feed_string(json, &mut text);
        if last {
            halves.finish(&mut text);
        } else if halves.waits() {
            self.halves.push((name.to_owned(), halves));
        }
        Ok(Some(serde_json::value::to_raw_value(&text)?))
    }
}

#[cfg(test)]
#[path = "tidy_tests.rs"]
mod tests;
