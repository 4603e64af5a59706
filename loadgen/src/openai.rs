//! The parts of OpenAI's JSON that the load generator checks, borrowed from the bytes received.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::{IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// A string, borrowed unless it holds escapes. (serde borrows a bare `Cow` only as a field of its own.)
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub(crate) struct Text<'a>(#[serde(borrow)] pub(crate) Cow<'a, str>);

impl Text<'_> {
    /// The text of an optional field; empty if it is absent or null.
    pub(crate) fn of<'t>(text: &'t Option<Text<'_>>) -> &'t str {
        text.as_ref().map_or("", |t| t.0.as_ref())
    }
}

/// The checked parts of a `chat.completion.chunk` or a `chat.completion`.
#[derive(Debug, Deserialize)]
pub(crate) struct ParsedChunk<'a> {
    /// The answer's id.
    #[serde(borrow, default)]
    pub(crate) id: Option<Text<'a>>,
    /// Type of the object.
    #[serde(borrow, default)]
    pub(crate) object: Option<Text<'a>>,
    /// The choices.
    #[serde(borrow, default)]
    pub(crate) choices: Option<Choices<'a>>,
    /// Token counts, in the last chunk.
    #[serde(default)]
    pub(crate) usage: Option<Usage>,
    /// An error in the middle of a stream.
    #[serde(borrow, default)]
    pub(crate) error: Option<&'a RawValue>,
}

/// The choices of a chunk: the first, and the number of the others. A request asks for one choice, so the others are
/// only counted and no list is allocated for each token.
#[derive(Debug, Default)]
pub(crate) struct Choices<'a> {
    /// The first choice.
    pub(crate) first: Option<Choice<'a>>,
    /// Number of choices after it.
    pub(crate) more: usize,
}

impl<'de: 'a, 'a> Deserialize<'de> for Choices<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Items;
        impl<'de> Visitor<'de> for Items {
            type Value = Choices<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a list of choices")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Choices<'de>, A::Error> {
                let first = items.next_element()?;
                let mut more = 0;
                while items.next_element::<IgnoredAny>()?.is_some() {
                    more += 1;
                }
                Ok(Choices { first, more })
            }
        }
        deserializer.deserialize_seq(Items)
    }
}

/// One choice.
#[derive(Debug, Deserialize)]
pub(crate) struct Choice<'a> {
    /// Its number.
    #[serde(default)]
    pub(crate) index: u64,
    /// The delta, in a stream.
    #[serde(borrow, default)]
    pub(crate) delta: Option<Message<'a>>,
    /// The whole message, without a stream.
    #[serde(borrow, default)]
    pub(crate) message: Option<Message<'a>>,
    /// The finish reason.
    #[serde(borrow, default)]
    pub(crate) finish_reason: Option<Text<'a>>,
}

/// A delta or a message.
#[derive(Debug, Deserialize)]
pub(crate) struct Message<'a> {
    /// The role.
    #[serde(borrow, default)]
    pub(crate) role: Option<Text<'a>>,
    /// The text.
    #[serde(borrow, default)]
    pub(crate) content: Option<Text<'a>>,
    /// The text of the reasoning, as vLLM, SGLang and DeepSeek name it.
    #[serde(borrow, default)]
    pub(crate) reasoning_content: Option<Text<'a>>,
    /// The text of the reasoning, as newer vLLM and OpenRouter name it.
    #[serde(borrow, default)]
    pub(crate) reasoning: Option<&'a RawValue>,
    /// Pieces of tool calls.
    #[serde(borrow, default)]
    pub(crate) tool_calls: Option<&'a RawValue>,
}

impl Message<'_> {
    /// Whether it carries output of the model of any sort.
    pub(crate) fn has_output(&self) -> bool {
        let holds = |raw: &Option<&RawValue>| raw.is_some_and(|r| !matches!(r.get(), "[]" | "\"\"" | "null"));
        !Text::of(&self.content).is_empty()
            || !Text::of(&self.reasoning_content).is_empty()
            || holds(&self.reasoning)
            || holds(&self.tool_calls)
    }
}

/// Token counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(crate) struct Usage {
    /// Tokens generated.
    pub(crate) completion_tokens: u64,
}

/// The code and the message of an OpenAI error object, or of the value in its place.
pub(crate) fn error_parts(raw: &RawValue) -> (String, String) {
    let value: serde_json::Value = serde_json::from_str(raw.get()).unwrap_or_default();
    let text = |key: &str| match value.get(key) {
        Some(serde_json::Value::String(s)) => Some(s.clone()),
        Some(serde_json::Value::Number(n)) => Some(n.to_string()),
        _ => None,
    };
    let code = text("code").or_else(|| text("type")).unwrap_or_default();
    let message = text("message").or_else(|| value.as_str().map(str::to_owned));
    (code, message.unwrap_or_else(|| raw.get().to_owned()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use super::*;

    fn chunk(content: &str) -> String {
        serde_json::json!({"id": "c-1", "choices": [{"index": 0, "delta": {"content": content},
            "finish_reason": null}], "usage": null})
        .to_string()
    }

    #[test]
    fn borrows_what_it_reads() {
        let data = chunk("héllo ");
        let parsed: ParsedChunk<'_> = serde_json::from_slice(data.as_bytes()).unwrap();
        let content = parsed.choices.unwrap().first.unwrap().delta.unwrap().content.unwrap();
        assert!(matches!(content.0, Cow::Borrowed("héllo ")));
        assert!(matches!(parsed.id.unwrap().0, Cow::Borrowed("c-1")));
    }

    #[test]
    fn knows_output_of_every_sort() {
        let has = |json: &str| serde_json::from_str::<Message<'_>>(json).unwrap().has_output();
        for yes in [
            r#"{"content":"a"}"#,
            r#"{"reasoning_content":"a"}"#,
            r#"{"reasoning":"a"}"#,
            r#"{"tool_calls":[{"index":0}]}"#,
        ] {
            assert!(has(yes), "{yes}");
        }
        for no in [
            r#"{"role":"assistant","content":""}"#,
            r#"{"tool_calls":[],"reasoning":null}"#,
            "{}",
        ] {
            assert!(!has(no), "{no}");
        }
    }

    #[test]
    fn reads_the_errors_of_many_servers() {
        let parts = |json: &str| error_parts(&serde_json::from_str::<Box<RawValue>>(json).unwrap());
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(
            parts(r#"{"code":"worker_lost","message":"gone"}"#),
            pair("worker_lost", "gone")
        );
        assert_eq!(parts(r#"{"code":503,"message":"gone"}"#), pair("503", "gone"));
        assert_eq!(parts(r#"{"code":null,"type":"api_error"}"#).0, "api_error");
        assert_eq!(parts(r#""gone""#), pair("", "gone"));
    }
}
