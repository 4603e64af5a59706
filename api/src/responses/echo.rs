//! What a response says of its request.

use bytes::{BufMut as _, BytesMut};
use serde_json::value::RawValue;
use tokenbus_protocol::RawObject;

use crate::answer::json::{push_number, push_string};

/// Members of the response object, gathered as they are read from the request.
#[derive(Debug, Default)]
pub(super) struct Echo(BytesMut);

impl Echo {
    fn name(&mut self, name: &str) {
        if !self.0.is_empty() {
            self.0.put_u8(b',');
        }
        push_string(&mut self.0, name);
        self.0.put_u8(b':');
    }

    /// A member whose JSON is known.
    pub(super) fn json(&mut self, name: &str, json: &str) {
        self.name(name);
        // An event is a line: a break can only stand between tokens, where a blank does as well.
        push_number(&mut self.0, json.replace(['\n', '\r'], " "));
    }

    /// A member as it was sent, or `null`.
    pub(super) fn raw(&mut self, name: &str, raw: Option<&RawValue>) {
        self.json(name, raw.map_or("null", RawValue::get));
    }

    /// A text, or `null`.
    pub(super) fn text(&mut self, name: &str, text: Option<&str>) {
        self.name(name);
        match text {
            Some(text) => push_string(&mut self.0, text),
            None => self.0.extend_from_slice(b"null"),
        }
    }

    /// The tools as they were sent, with the members that the SDKs' types demand.
    pub(super) fn tools(&mut self, tools: &[Box<RawValue>]) {
        let tools: Vec<String> = tools.iter().map(|raw| whole_tool(raw)).collect();
        self.json("tools", &format!("[{}]", tools.join(",")));
    }

    /// The members, with commas between them.
    pub(super) fn finish(self) -> String {
        // What was put in is JSON texts.
        String::from_utf8_lossy(&self.0).into_owned()
    }
}

fn whole_tool(raw: &RawValue) -> String {
    let Ok(mut tool) = RawObject::parse(raw.get().as_bytes()) else {
        return raw.get().to_owned();
    };
    if tool.get("type").is_some_and(|kind| kind.get() == "\"function\"") {
        for name in ["description", "parameters", "strict"] {
            if tool.get(name).is_none() && tool.set(name, &()).is_err() {
                return raw.get().to_owned();
            }
        }
    }
    tool.to_json()
        .map_or_else(|_| raw.get().to_owned(), |json| json.get().to_owned())
}
