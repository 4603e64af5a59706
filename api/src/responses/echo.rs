//! The members of a response that repeat its request.

use serde::{Serialize, Serializer};
use serde_json::value::{RawValue, to_raw_value};
use tokenbus_protocol::openai::RawObject;

/// Members of the response object, collected while the request is read.
#[derive(Debug, Default)]
pub(super) struct Echo(Vec<(&'static str, Box<RawValue>)>);

impl Echo {
    /// A constant or a value made of the request.
    pub(super) fn value(&mut self, name: &'static str, value: &(impl Serialize + ?Sized)) {
        let raw = to_raw_value(value).unwrap_or_else(|_| RawValue::NULL.to_owned());
        self.raw(name, Some(&raw));
    }

    /// A member as the client sent it, or `null`.
    pub(super) fn raw(&mut self, name: &'static str, raw: Option<&RawValue>) {
        self.0.push((name, one_line(raw.unwrap_or(RawValue::NULL))));
    }

    /// The tools as the client sent them, with the members that the SDKs' types require.
    pub(super) fn tools(&mut self, tools: &[Box<RawValue>]) {
        let tools: Vec<Box<RawValue>> = tools.iter().map(|raw| completed_tool(raw)).collect();
        self.value("tools", &tools);
    }
}

impl Serialize for Echo {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

/// `raw` without line breaks, because an event is one line. A line break can stand only between tokens, where a space
/// means the same.
fn one_line(raw: &RawValue) -> Box<RawValue> {
    let line = raw.get().replace(['\n', '\r'], " ");
    RawValue::from_string(line).unwrap_or_else(|_| raw.to_owned())
}

fn completed_tool(raw: &RawValue) -> Box<RawValue> {
    let Ok(mut tool) = RawObject::parse(raw.get().as_bytes()) else {
        return raw.to_owned();
    };
    if tool.get("type").is_some_and(|kind| kind.get() == "\"function\"") {
        for name in ["description", "parameters", "strict"] {
            if tool.get(name).is_none() && tool.set(name, &()).is_err() {
                return raw.to_owned();
            }
        }
    }
    to_raw_value(&tool).unwrap_or_else(|_| raw.to_owned())
}
