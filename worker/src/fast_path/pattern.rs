//! The shape of a chunk that says nothing but text. Engines send hundreds of them that differ in the
//! text and its count alone, so the next one is matched against it before it is parsed.

use std::borrow::Cow;

use serde_json::value::RawValue;

/// Everything of a chunk but the text of its only choice, and the object that counts its tokens.
#[derive(Debug, Default)]
pub(crate) struct Pattern {
    /// The choice, as the client knows it.
    pub(crate) choice: u32,
    before: String,
    /// Between the text and the counter, where there is one.
    between: Option<String>,
    after: String,
}

impl Pattern {
    /// Takes the shape of `data`, in which `content` is the text and `counter` stands somewhere behind it.
    pub(crate) fn learn(&mut self, data: &str, content: &RawValue, counter: Option<&RawValue>, choice: u32) {
        *self = Self::default();
        // Only what is a part of `data` has a place in it.
        let Some((before, mut after)) = around(data, content) else {
            return;
        };
        if let Some(counter) = counter {
            let Some((between, end)) = around(after, counter) else {
                return;
            };
            self.between = Some(between.to_owned());
            after = end;
        }
        self.choice = choice;
        self.before.push_str(before);
        self.after.push_str(after);
    }

    /// The text of `data`, if it is of this shape and has one, and what counts its tokens.
    pub(crate) fn read<'d>(&self, data: &'d str) -> Option<(Cow<'d, str>, Option<&'d str>)> {
        if self.before.is_empty() {
            return None;
        }
        let rest = data
            .strip_prefix(self.before.as_str())?
            .strip_suffix(self.after.as_str())?;
        let (literal, counter) = match &self.between {
            None => (rest, None),
            // A quote within the text is escaped, so what stands between does not stand within it.
            Some(between) => {
                let (literal, counter) = rest.rsplit_once(between.as_str())?;
                (literal, Some(counter))
            }
        };
        let inner = literal.strip_prefix('"')?.strip_suffix('"')?;
        let plain = inner.bytes().all(|byte| byte != b'"' && byte != b'\\' && byte >= b' ');
        let text = if plain {
            Cow::Borrowed(inner)
        } else {
            // Also what ends the string, begins another member and ends just as the chunk before did.
            Cow::Owned(serde_json::from_str::<String>(literal).ok()?)
        };
        (!text.is_empty()).then_some((text, counter))
    }
}

/// What stands before and behind `part`, which was read from `data`.
fn around<'d>(data: &'d str, part: &RawValue) -> Option<(&'d str, &'d str)> {
    let at = part.get().as_ptr().addr().checked_sub(data.as_ptr().addr())?;
    Some((data.get(..at)?, data.get(at..)?.strip_prefix(part.get())?))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize)]
    struct Chunk<'a> {
        #[serde(borrow)]
        text: &'a RawValue,
        #[serde(borrow, default)]
        usage: Option<&'a RawValue>,
    }

    fn learned(data: &str) -> Pattern {
        let chunk: Chunk<'_> = serde_json::from_str(data).unwrap();
        let mut pattern = Pattern::default();
        pattern.learn(data, chunk.text, chunk.usage, 3);
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
            assert_eq!(pattern.read(data), text.map(|text| (text.into(), None)), "{data}");
        }
    }

    #[test]
    fn what_was_not_learned_matches_nothing() {
        assert_eq!(Pattern::default().read("\"a\""), None);
        let mut pattern = learned(r#"{"text":"a"}"#);
        let elsewhere = RawValue::from_string("\"a\"".to_owned()).unwrap();
        pattern.learn(r#"{"text":"a"}"#, &elsewhere, None, 0);
        assert_eq!(pattern.read(r#"{"text":"a"}"#), None);
        let before = learned(r#"{"usage":{"n":1},"text":"a"}"#);
        assert_eq!(
            before.read(r#"{"usage":{"n":1},"text":"a"}"#),
            None,
            "a counter before the text"
        );
    }

    #[test]
    fn a_counter_behind_the_text_may_differ() {
        let pattern = learned(r#"{"text":"a","b":null,"usage":{"n":1},"c":2}"#);
        for (data, found) in [
            (
                r#"{"text":"b","b":null,"usage":{"n":22},"c":2}"#,
                Some(("b", r#"{"n":22}"#)),
            ),
            (
                r#"{"text":"\",\"b\":null,\"usage\":","b":null,"usage":{},"c":2}"#,
                Some((r#"","b":null,"usage":"#, "{}")),
            ),
            (r#"{"text":"b","b":null,"c":2}"#, None),
            (r#"{"text":"b","b":1,"usage":{"n":2},"c":2}"#, None),
            (r#"{"text":"b","b":null,"usage":{"n":2},"c":3}"#, None),
            (
                r#"{"text":"b","b":null,"usage":{"n":2},"b":null,"usage":{"n":2},"c":2}"#,
                None,
            ),
        ] {
            let found = found.map(|(text, counter)| (Cow::Borrowed(text), Some(counter)));
            assert_eq!(pattern.read(data), found, "{data}");
        }
    }
}
