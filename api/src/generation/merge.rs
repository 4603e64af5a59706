//! Joins the pieces of a streamed message into the members of a whole one.

use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use tokenbus_protocol::{RawJson, RawObject};

use crate::limits::{MAX_MEMBERS, MAX_TOOL_CALLS};

/// The kind of object that is merged. It decides what a second value of a member means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A choice's delta: strings and arrays grow, tool calls are merged by index.
    Message,
    /// A choice's log probabilities: arrays grow.
    Logprobs,
    /// One tool call: its id and type come once.
    ToolCall,
    /// A tool call's `function` or `custom`: arguments grow, the name comes once.
    Function,
    /// Members of a choice or of a chunk: the newest value counts, but token ids grow with the text.
    Newest,
}

enum Policy {
    Grow,
    First,
    Newest,
    Nested(Kind),
    Calls,
    Skip,
}

impl Kind {
    fn policy(self, name: &str) -> Policy {
        match (self, name) {
            (Self::Message, "tool_calls") => Policy::Calls,
            (Self::Message, "function_call") | (Self::ToolCall, "function" | "custom") => {
                Policy::Nested(Self::Function)
            }
            (Self::Message | Self::Logprobs, _)
            | (Self::Function, "arguments" | "input")
            | (Self::Newest, "token_ids") => Policy::Grow,
            (Self::ToolCall, "id" | "type") | (Self::Function, "name") => Policy::First,
            // Pieces are numbered; whole calls stand in order.
            (Self::ToolCall, "index") => Policy::Skip,
            (Self::ToolCall | Self::Function | Self::Newest, _) => Policy::Newest,
        }
    }
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Value {
    Text(String),
    List(Vec<Box<RawValue>>),
    Object(Members),
    Calls(Vec<PartialCall>),
    Raw(Box<RawValue>),
}

#[derive(Debug, Serialize)]
#[serde(transparent)]
struct PartialCall {
    #[serde(skip)]
    index: Option<u64>,
    members: Members,
}

/// The members of an object that comes in pieces, in the order in which each came first.
#[derive(Debug)]
pub(crate) struct Members {
    kind: Kind,
    members: Vec<(String, Value)>,
}

impl Members {
    pub(crate) fn new(kind: Kind) -> Self {
        Self {
            kind,
            members: Vec::new(),
        }
    }

    /// Adds a piece. A piece that is no object is ignored.
    pub(crate) fn absorb(&mut self, piece: Option<&RawJson>) {
        if let Some(object) = piece.and_then(|json| RawObject::parse(json.get().as_bytes()).ok()) {
            self.merge(&object);
        }
    }

    /// Whether the member is there and is not null.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.members
            .iter()
            .any(|(key, value)| key == name && !matches!(value, Value::Raw(raw) if raw.get() == "null"))
    }

    /// The member's text, where it is one.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.members.iter().find_map(|(key, value)| match value {
            Value::Text(text) if key == name => Some(text.as_str()),
            _ => None,
        })
    }

    pub(crate) fn contains(&self, name: &str) -> bool {
        self.members.iter().any(|(key, _)| key == name)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    fn merge(&mut self, object: &RawObject) {
        for (name, raw) in object.iter() {
            let policy = self.kind.policy(name);
            if matches!(policy, Policy::Skip) {
                continue;
            }
            if let Some((_, value)) = self.members.iter_mut().find(|(key, _)| key == name) {
                value.add(raw, &policy);
            } else if self.members.len() < MAX_MEMBERS {
                self.members.push((name.to_owned(), Value::first(raw, &policy)));
            }
        }
    }
}

impl Serialize for Members {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_map(self.members.iter().map(|(name, value)| (name, value)))
    }
}

fn parse<T: for<'de> serde::Deserialize<'de>>(raw: &RawValue) -> Option<T> {
    serde_json::from_str(raw.get()).ok()
}

impl Value {
    fn first(raw: &RawValue, policy: &Policy) -> Self {
        let read = match policy {
            Policy::Grow if raw.get().starts_with('"') => parse(raw).map(Self::Text),
            Policy::Grow if raw.get().starts_with('[') => parse(raw).map(Self::List),
            Policy::Nested(kind) => parse::<RawObject>(raw).map(|object| {
                let mut members = Members::new(*kind);
                members.merge(&object);
                Self::Object(members)
            }),
            Policy::Calls => parse::<Vec<RawObject>>(raw).map(|pieces| {
                let mut calls = Vec::new();
                merge_calls(&mut calls, &pieces);
                Self::Calls(calls)
            }),
            _ => None,
        };
        read.unwrap_or_else(|| Self::Raw(raw.to_owned()))
    }

    fn add(&mut self, raw: &RawValue, policy: &Policy) {
        // A null adds nothing: engines send nulls beside the member that a chunk carries.
        if raw.get() == "null" {
            return;
        }
        let kept = matches!(policy, Policy::First) && !self.is_blank();
        if kept {
            return;
        }
        match (&mut *self, Self::first(raw, policy)) {
            (Self::Text(text), Self::Text(more)) => text.push_str(&more),
            (Self::List(list), Self::List(more)) => list.extend(more),
            (Self::Object(members), Self::Object(_)) => {
                if let Some(object) = parse::<RawObject>(raw) {
                    members.merge(&object);
                }
            }
            (Self::Calls(calls), Self::Calls(_)) => {
                if let Some(pieces) = parse::<Vec<RawObject>>(raw) {
                    merge_calls(calls, &pieces);
                }
            }
            (value, newer) => *value = newer,
        }
    }

    fn is_blank(&self) -> bool {
        matches!(self, Self::Raw(raw) if matches!(raw.get(), "null" | "\"\""))
    }
}

fn merge_calls(calls: &mut Vec<PartialCall>, pieces: &[RawObject]) {
    for piece in pieces {
        let index: Option<u64> = piece.get("index").and_then(parse);
        if let Some(call) = calls.iter_mut().find(|call| call.index == index) {
            call.members.merge(piece);
        } else if calls.len() < MAX_TOOL_CALLS {
            let mut members = Members::new(Kind::ToolCall);
            members.merge(piece);
            calls.push(PartialCall { index, members });
        }
    }
    calls.sort_by_key(|call| call.index.unwrap_or(u64::MAX));
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn merged(kind: Kind, pieces: &[&str]) -> String {
        let mut members = Members::new(kind);
        for piece in pieces {
            members.absorb(Some(&RawJson::new(*piece).unwrap()));
        }
        serde_json::to_string(&members).unwrap()
    }

    #[test]
    fn strings_and_arrays_of_a_message_grow_others_are_replaced() {
        let pieces = [
            r#"{"reasoning_content":"a","reasoning":null,"images":[1],"x":1.0}"#,
            r#"{"reasoning_content":"b\n","reasoning":"r","images":[2.50],"x":{"y":2}}"#,
            r#"{"reasoning_content":null,"x":null}"#,
        ];
        assert_eq!(
            merged(Kind::Message, &pieces),
            r#"{"reasoning_content":"ab\n","reasoning":"r","images":[1,2.50],"x":{"y":2}}"#
        );
        assert_eq!(merged(Kind::Message, &[]), "{}");
        assert_eq!(merged(Kind::Message, &["[1]", "3"]), "{}");
    }

    #[test]
    fn tool_calls_are_merged_by_index() {
        let pieces = [
            r#"{"tool_calls":[{"index":1,"id":"c1","type":"function","function":{"name":"g","arguments":""}}]}"#,
            r#"{"tool_calls":[{"index":0,"id":"c0","type":"function","function":{"name":"f","arguments":"{\"a\""}}]}"#,
            r#"{"tool_calls":[{"index":0,"function":{"arguments":":1}"}},{"index":1,"function":{"arguments":"{}"}}]}"#,
            r#"{"tool_calls":[{"index":1,"id":"other","type":null,"function":{"name":"again"},"extra":[7]}]}"#,
        ];
        let want = concat!(
            r#"{"tool_calls":[{"id":"c0","type":"function","function":{"name":"f","arguments":"{\"a\":1}"}},"#,
            r#"{"id":"c1","type":"function","function":{"name":"g","arguments":"{}"},"extra":[7]}]}"#
        );
        assert_eq!(merged(Kind::Message, &pieces), want);
    }

    #[test]
    fn the_first_id_and_name_that_are_not_blank_count() {
        let pieces = [
            r#"{"tool_calls":[{"index":0,"id":"","type":null,"function":{"name":"","arguments":null}}]}"#,
            r#"{"tool_calls":[{"index":0,"id":"c","type":"function","function":{"name":"f","arguments":"{}"}}]}"#,
        ];
        assert_eq!(
            merged(Kind::Message, &pieces),
            r#"{"tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":"{}"}}]}"#
        );
    }

    #[test]
    fn custom_tools_and_the_old_function_call_grow_too() {
        assert_eq!(
            merged(
                Kind::Message,
                &[
                    r#"{"function_call":{"name":"f","arguments":"a"}}"#,
                    r#"{"function_call":{"name":"f","arguments":"b"}}"#,
                ]
            ),
            r#"{"function_call":{"name":"f","arguments":"ab"}}"#
        );
        assert_eq!(
            merged(
                Kind::Message,
                &[
                    r#"{"tool_calls":[{"index":0,"type":"custom","custom":{"name":"f","input":"a"}}]}"#,
                    r#"{"tool_calls":[{"index":0,"custom":{"input":"b"}}]}"#,
                ]
            ),
            r#"{"tool_calls":[{"type":"custom","custom":{"name":"f","input":"ab"}}]}"#
        );
    }

    #[test]
    fn odd_shapes_are_kept_as_they_are() {
        assert_eq!(
            merged(Kind::Message, &[r#"{"tool_calls":"none","function_call":7}"#]),
            r#"{"tool_calls":"none","function_call":7}"#
        );
        assert_eq!(
            merged(Kind::Message, &[r#"{"x":"text"}"#, r#"{"x":[1]}"#]),
            r#"{"x":[1]}"#
        );
        assert_eq!(merged(Kind::Newest, &[r#"{"x":"a"}"#, r#"{"x":"b"}"#]), r#"{"x":"b"}"#);
        assert_eq!(
            merged(
                Kind::Logprobs,
                &[r#"{"content":[1],"refusal":null}"#, r#"{"content":[2],"refusal":null}"#]
            ),
            r#"{"content":[1,2],"refusal":null}"#
        );
    }

    #[test]
    fn hostile_numbers_of_members_and_calls_are_bounded() {
        let mut members = Members::new(Kind::Message);
        for n in 0..(MAX_MEMBERS + 50) {
            members.absorb(Some(&RawJson::new(format!(r#"{{"m{n}":1}}"#)).unwrap()));
        }
        assert_eq!(members.members.len(), MAX_MEMBERS);
        let mut calls = Vec::new();
        for n in 0..(MAX_TOOL_CALLS + 50) {
            let piece = RawObject::parse(format!(r#"{{"index":{n}}}"#).as_bytes()).unwrap();
            merge_calls(&mut calls, &[piece]);
        }
        assert_eq!(calls.len(), MAX_TOOL_CALLS);
    }
}
