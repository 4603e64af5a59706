//! One chunk of an OpenAI stream, read without copying; what we do not know stays raw JSON.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde::ser::{Serialize, SerializeMap as _, Serializer};
use serde_json::value::RawValue;
use tokenbus_protocol::{RawJson, RawJsonError};

/// `{"id": …, "choices": […], …}` of chat and text completions.
#[derive(Debug, Default)]
pub(crate) struct Chunk<'a> {
    /// What belongs to a choice; empty in the chunk that carries the usage.
    pub(crate) choices: Vec<Choice<'a>>,
    /// Whether there is a member `choices`, or a usage: it is surely a chunk.
    pub(crate) has_choices: bool,
    /// The usage, where it is more than `null`.
    pub(crate) usage: Option<&'a RawValue>,
    /// `timings` of llama-server, where they are more than `null`; stays in `rest` too.
    pub(crate) timings: Option<&'a RawValue>,
    /// An error in place of output, where it says something: some proxies put an empty one into every chunk.
    pub(crate) error: Option<&'a RawValue>,
    /// Whether `object` is `error`: the flat form of older vLLMs.
    pub(crate) is_error: bool,
    /// `system_fingerprint`.
    pub(crate) fingerprint: Option<Cow<'a, str>>,
    /// All members that have no field here and are not the gateway's own (`id`, `model`, …).
    pub(crate) rest: Members<'a>,
}

/// One element of `choices`.
#[derive(Debug, Default)]
pub(crate) struct Choice<'a> {
    /// `index`; 0 where it is absent.
    pub(crate) index: u32,
    /// `delta.content` of a chat (`message.content` in one piece), `text` of a completion.
    pub(crate) content: Option<&'a RawValue>,
    /// Members of `delta` beside `content` and `role`.
    pub(crate) delta: Members<'a>,
    /// `logprobs`, where they are more than `null`.
    pub(crate) logprobs: Option<&'a RawValue>,
    /// `finish_reason`, where it is a text with something in it.
    pub(crate) finish_reason: Option<Cow<'a, str>>,
    /// `token_ids`, as vLLM sends them on demand; stays in `rest` too.
    pub(crate) token_ids: Option<&'a RawValue>,
    /// All other members.
    pub(crate) rest: Members<'a>,
}

/// Members of an object in their order, names and texts as sent.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Members<'a>(Vec<(Cow<'a, str>, Raw<'a>)>);

/// A raw value that compares by its text.
#[derive(Debug, Clone, Copy)]
struct Raw<'a>(&'a RawValue);

impl PartialEq for Raw<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.0.get() == other.0.get()
    }
}
impl Eq for Raw<'_> {}

impl<'a> Members<'a> {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether one of `names` has something in it: `null`, an empty text and an empty list have not.
    pub(crate) fn say(&self, names: &[&str]) -> bool {
        let empty = |raw: &RawValue| matches!(raw.get(), "null" | "\"\"" | "[]" | "{}");
        let mut members = self.0.iter();
        members.any(|(name, value)| names.contains(&name.as_ref()) && !empty(value.0))
    }

    /// The names, in order.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_ref())
    }

    /// One object, or `None` when there is no member.
    pub(crate) fn to_json(&self) -> Result<Option<RawJson>, RawJsonError> {
        if self.is_empty() {
            Ok(None)
        } else {
            RawJson::from_serialize(self).map(Some)
        }
    }

    /// The value of the member `name`.
    pub(crate) fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, raw)| raw.0)
    }

    /// Leaves out the member `name`.
    pub(crate) fn remove(&mut self, name: &str) {
        self.0.retain(|(known, _)| known != name);
    }

    fn push(&mut self, name: Cow<'a, str>, value: &'a RawValue) {
        self.0.push((name, Raw(value)));
    }
}

impl Serialize for Members<'_> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut map = s.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value.0)?;
        }
        map.end()
    }
}

/// Text of a JSON string, without a copy where nothing is escaped; `None` for any other value.
pub(crate) fn text_of(raw: &RawValue) -> Option<Cow<'_, str>> {
    let inner = raw.get().strip_prefix('"')?.strip_suffix('"')?;
    if inner.as_bytes().contains(&b'\\') {
        return serde_json::from_str(raw.get()).ok().map(Cow::Owned);
    }
    Some(Cow::Borrowed(inner))
}

/// A finish reason: a text, or the `type` of an object (SGLang's own form). An empty one says nothing.
fn finish_reason(raw: &RawValue) -> Option<Cow<'_, str>> {
    #[derive(serde::Deserialize)]
    struct Typed<'a> {
        #[serde(borrow, rename = "type")]
        kind: Cow<'a, str>,
    }
    let said = match raw.get().starts_with('{') {
        true => serde_json::from_str::<Typed<'_>>(raw.get())
            .ok()
            .map(|typed| typed.kind),
        false => text_of(raw),
    };
    said.filter(|text| !text.is_empty())
}

/// The value, unless it is `null`.
fn present(raw: &RawValue) -> Option<&RawValue> {
    (raw.get() != "null").then_some(raw)
}

/// Whether a value is there for its name alone.
pub(crate) fn is_nothing(raw: &RawValue) -> bool {
    matches!(raw.get(), "null" | "false" | "\"\"" | "[]" | "{}")
}

#[derive(serde::Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

/// Known members whose `null` says no more than their absence; servers put them into each chunk.
fn null_means_absent(name: &str) -> bool {
    matches!(
        name,
        "audio"
            | "function_call"
            | "hidden_states"
            | "matched_stop"
            | "prompt_token_ids"
            | "reasoning"
            | "reasoning_content"
            | "refusal"
            | "service_tier"
            | "stop_reason"
            | "token_ids"
            | "tool_calls"
    )
}

impl<'de: 'a, 'a> Deserialize<'de> for Chunk<'a> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct ChunkVisitor;
        impl<'de> Visitor<'de> for ChunkVisitor {
            type Value = Chunk<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a completion chunk")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut chunk = Chunk::default();
                while let Some(Key(key)) = map.next_key()? {
                    match key.as_ref() {
                        "choices" => {
                            chunk.has_choices = true;
                            chunk.choices = map.next_value::<Option<Vec<_>>>()?.unwrap_or_default();
                        }
                        "usage" => {
                            chunk.usage = present(map.next_value()?);
                            chunk.has_choices |= chunk.usage.is_some();
                        }
                        "error" => chunk.error = present(map.next_value()?).filter(|raw| !is_nothing(raw)),
                        "object" => {
                            chunk.is_error = text_of(map.next_value()?).is_some_and(|object| object == "error");
                        }
                        "system_fingerprint" => {
                            chunk.fingerprint = text_of(map.next_value()?).filter(|text| !text.is_empty());
                        }
                        "id" | "created" | "model" => drop(map.next_value::<IgnoredAny>()?),
                        name => {
                            let value: &RawValue = map.next_value()?;
                            if name == "timings" {
                                chunk.timings = present(value);
                            }
                            if value.get() != "null" || !null_means_absent(name) {
                                chunk.rest.push(key, value);
                            }
                        }
                    }
                }
                Ok(chunk)
            }
        }
        d.deserialize_map(ChunkVisitor)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Choice<'a> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct ChoiceVisitor;
        impl<'de> Visitor<'de> for ChoiceVisitor {
            type Value = Choice<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a choice")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut choice = Choice::default();
                while let Some(Key(key)) = map.next_key()? {
                    match key.as_ref() {
                        "index" => choice.index = map.next_value::<Option<_>>()?.unwrap_or_default(),
                        // The second is that of an answer in one piece.
                        "delta" | "message" => {
                            if let Some(DeltaMembers { content, rest }) = map.next_value()? {
                                choice.content = content;
                                choice.delta = rest;
                            }
                        }
                        "text" => choice.content = present(map.next_value()?),
                        "logprobs" => choice.logprobs = present(map.next_value()?),
                        "finish_reason" => {
                            choice.finish_reason = finish_reason(map.next_value()?);
                        }
                        name => {
                            let value: &RawValue = map.next_value()?;
                            if name == "token_ids" {
                                choice.token_ids = present(value);
                            }
                            if value.get() != "null" || !null_means_absent(name) {
                                choice.rest.push(key, value);
                            }
                        }
                    }
                }
                Ok(choice)
            }
        }
        d.deserialize_map(ChoiceVisitor)
    }
}

struct DeltaMembers<'a> {
    content: Option<&'a RawValue>,
    rest: Members<'a>,
}

impl<'de: 'a, 'a> Deserialize<'de> for DeltaMembers<'a> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct DeltaVisitor;
        impl<'de> Visitor<'de> for DeltaVisitor {
            type Value = DeltaMembers<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a delta")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut delta = DeltaMembers {
                    content: None,
                    rest: Members::default(),
                };
                while let Some(Key(key)) = map.next_key()? {
                    match key.as_ref() {
                        "role" => drop(map.next_value::<IgnoredAny>()?),
                        "content" => {
                            let value: &RawValue = map.next_value()?;
                            match present(value) {
                                // Content in parts (some providers): no text of ours, but theirs.
                                Some(other) if !other.get().starts_with('"') => delta.rest.push(key, other),
                                text => delta.content = text,
                            }
                        }
                        name => {
                            let value: &RawValue = map.next_value()?;
                            if value.get() != "null" || !null_means_absent(name) {
                                delta.rest.push(key, value);
                            }
                        }
                    }
                }
                Ok(delta)
            }
        }
        d.deserialize_map(DeltaVisitor)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Chunk<'_> {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn text_without_escapes_is_borrowed() {
        let json = r#"{"id":"x","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":2,"delta":{"content":"Grüße"},"finish_reason":null,"logprobs":null}],"usage":null}"#;
        let chunk = parse(json);
        let choice = &chunk.choices[0];
        assert_eq!(choice.index, 2);
        assert!(matches!(text_of(choice.content.unwrap()), Some(Cow::Borrowed("Grüße"))));
        assert!(chunk.rest.is_empty() && choice.rest.is_empty() && choice.delta.is_empty());
        assert!(chunk.usage.is_none() && choice.logprobs.is_none() && choice.finish_reason.is_none());
    }

    #[test]
    fn escapes_are_resolved() {
        let chunk = parse(r#"{"choices":[{"delta":{"content":"a\n\"b\" \ud83d\ude00"}}]}"#);
        assert_eq!(text_of(chunk.choices[0].content.unwrap()).unwrap(), "a\n\"b\" 😀");
    }

    #[test]
    fn a_completions_text_is_content() {
        let chunk = parse(
            r#"{"object":"text_completion","choices":[{"text":" a","index":0,"logprobs":null,"finish_reason":"length"}]}"#,
        );
        assert_eq!(text_of(chunk.choices[0].content.unwrap()).unwrap(), " a");
        assert_eq!(chunk.choices[0].finish_reason.as_deref(), Some("length"));
    }

    #[test]
    fn unknown_members_stay_as_sent_at_each_level() {
        let chunk = parse(
            r#"{"x_chunk":{"b":1.50, "a":null},"timings":null,"choices":[{"index":0,"x_choice":[1, 2],"matched_stop":null,"delta":{"role":"assistant","reasoning_content":"hm","x_delta":null,"tool_calls":null}}]}"#,
        );
        let json = |members: &Members<'_>| members.to_json().unwrap().unwrap().get().to_owned();
        assert_eq!(json(&chunk.rest), r#"{"x_chunk":{"b":1.50, "a":null},"timings":null}"#);
        assert_eq!(json(&chunk.choices[0].rest), r#"{"x_choice":[1, 2]}"#);
        assert_eq!(
            json(&chunk.choices[0].delta),
            r#"{"reasoning_content":"hm","x_delta":null}"#
        );
    }

    #[test]
    fn content_in_parts_is_handed_on_raw() {
        let chunk = parse(r#"{"choices":[{"delta":{"content":[{"type":"text","text":"a"}]}}]}"#);
        assert!(chunk.choices[0].content.is_none());
        assert_eq!(
            chunk.choices[0].delta.to_json().unwrap().unwrap().get(),
            r#"{"content":[{"type":"text","text":"a"}]}"#
        );
    }

    #[test]
    fn errors_in_both_forms_are_seen() {
        assert!(parse(r#"{"error":{"message":"no"}}"#).error.is_some());
        assert!(parse(r#"{"error":null,"choices":[]}"#).error.is_none());
        assert!(parse(r#"{"object":"error","message":"no","code":400}"#).is_error);
    }

    #[test]
    fn nulls_and_absences_are_taken() {
        let chunk = parse(r#"{"choices":null}"#);
        assert!(chunk.choices.is_empty());
        for error in ["null", "false", r#""""#, "{}", "[]"] {
            let json = format!(r#"{{"error":{error},"choices":[{{"index":null,"delta":{{"content":"a"}}}}]}}"#);
            let chunk = parse(&json);
            assert!(chunk.error.is_none() && chunk.choices[0].index == 0, "{json}");
        }
        let chunk = parse(r#"{"choices":[{"delta":null,"finish_reason":""}]}"#);
        assert!(chunk.choices[0].finish_reason.is_none());
        assert!(serde_json::from_str::<Chunk<'_>>(r#"{"choices":[7]}"#).is_err());
        assert!(serde_json::from_str::<Chunk<'_>>("[]").is_err());
    }

    #[test]
    fn escaped_names_are_known_too() {
        let chunk = parse(r#"{"choi\u0063es":[{"index":3,"delta":{"cont\u0065nt":"x"}}]}"#);
        assert_eq!(chunk.choices[0].index, 3);
        assert_eq!(text_of(chunk.choices[0].content.unwrap()).unwrap(), "x");
    }

    #[test]
    fn token_ids_are_read_and_kept() {
        let chunk = parse(r#"{"choices":[{"index":0,"delta":{"content":"x"},"token_ids":[1,2]}]}"#);
        assert_eq!(chunk.choices[0].token_ids.unwrap().get(), "[1,2]");
        assert_eq!(chunk.choices[0].rest.names().collect::<Vec<_>>(), ["token_ids"]);
    }
}
