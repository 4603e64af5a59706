//! The shape of a chunk that says nothing but text. Engines send hundreds of them that differ in the
//! text alone, so the next one is matched against it before it is parsed.

use std::borrow::Cow;

use serde_json::value::RawValue;

/// Everything of a chunk but the text of its only choice.
#[derive(Debug, Default)]
pub(super) struct Pattern {
    /// The choice, as the client knows it.
    pub(super) choice: u32,
    before: String,
    after: String,
}

impl Pattern {
    /// Takes the shape of `data`, in which `content` is the text.
    pub(super) fn learn(&mut self, data: &str, content: &RawValue, choice: u32) {
        self.before.clear();
        self.after.clear();
        let content = content.get();
        let at = content.as_ptr().addr().checked_sub(data.as_ptr().addr());
        let parts = at.and_then(|at| Some((data.get(..at)?, data.get(at..)?.strip_prefix(content)?)));
        // Only a `content` that is no part of `data` has no place in it.
        if let Some((before, after)) = parts {
            self.choice = choice;
            self.before.push_str(before);
            self.after.push_str(after);
        }
    }

    /// The text of `data`, if it is of this shape and has one.
    pub(super) fn text<'d>(&self, data: &'d str) -> Option<Cow<'d, str>> {
        if self.before.is_empty() {
            return None;
        }
        let literal = data
            .strip_prefix(self.before.as_str())?
            .strip_suffix(self.after.as_str())?;
        let inner = literal.strip_prefix('"')?.strip_suffix('"')?;
        let plain = inner.bytes().all(|byte| byte != b'"' && byte != b'\\' && byte >= b' ');
        let text = if plain {
            Cow::Borrowed(inner)
        } else {
            // Also what ends the string, begins another member and ends just as the chunk before did.
            Cow::Owned(serde_json::from_str::<String>(literal).ok()?)
        };
        (!text.is_empty()).then_some(text)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize)]
    struct Chunk<'a> {
        #[serde(borrow)]
        text: &'a RawValue,
    }

    fn learned(data: &str) -> Pattern {
        let chunk: Chunk<'_> = serde_json::from_str(data).unwrap();
        let mut pattern = Pattern::default();
        pattern.learn(data, chunk.text, 3);
        pattern
    }

    #[test]
    fn a_chunk_of_the_same_shape_gives_its_text() {
        let pattern = learned(r#"{"id":"a","text":"a","b":null}"#);
        assert_eq!(pattern.choice, 3);
        for (data, text) in [
            (r#"{"id":"a","text":"b","b":null}"#, Some("b")),
            (r#"{"id":"a","text":"\u00e9\n \"}","b":null}"#, Some("\u{e9}\n \"}")),
            (r#"{"id":"a","text":"","b":null}"#, None),
            (r#"{"id":"a","text":null,"b":null}"#, None),
            (r#"{"id":"b","text":"b","b":null}"#, None),
            (r#"{"id":"a","text":"b","b":nul}"#, None),
            (r#"{"id":"a","text":"b","c":"d","b":null}"#, None),
            ("{\"id\":\"a\",\"text\":\"\n\",\"b\":null}", None),
            (r#"{"id":"a","text":","b":null}"#, None),
            (r#"{"id":"a","text":"\","b":null}"#, None),
        ] {
            assert_eq!(pattern.text(data).as_deref(), text, "{data}");
        }
    }

    #[test]
    fn what_was_not_learned_matches_nothing() {
        assert_eq!(Pattern::default().text("\"a\""), None);
        let mut pattern = learned(r#"{"text":"a"}"#);
        let elsewhere = RawValue::from_string("\"a\"".to_owned()).unwrap();
        pattern.learn(r#"{"text":"a"}"#, &elsewhere, 0);
        assert_eq!(pattern.text(r#"{"text":"a"}"#), None);
    }
}
