//! The pattern of completion chunks that carry nothing but text. Engines send hundreds of chunks that differ only in
//! the text and its token count. The next chunk is matched against the pattern before it is parsed.

use std::borrow::Cow;

use memchr::memmem::FinderRev;

/// A chunk without the text of its only choice and without the object that counts its tokens.
#[derive(Debug, Default)]
pub struct CompletionPattern {
    /// Everything before the text, with the opening quote.
    before: Vec<u8>,
    /// What stands between the text's closing quote and the counter, where there is a counter.
    between: Option<FinderRev<'static>>,
    /// Everything after the text, or after the counter.
    after: Vec<u8>,
}

/// What a matching chunk says.
#[derive(Debug, PartialEq, Eq)]
pub struct PatternMatch<'d> {
    /// The text, never empty.
    pub text: Cow<'d, str>,
    /// The object that counts the tokens, where the pattern has one.
    pub counter: Option<&'d str>,
}

impl CompletionPattern {
    /// Forgets the pattern, and keeps the memory.
    pub fn clear(&mut self) {
        self.before.clear();
        self.between = None;
        self.after.clear();
    }

    /// Learns the pattern of `data`. `text` is the part of `data` between the quotes of the text, escapes as sent.
    /// `counter` is a later part of `data`. Parts that do not lie in `data` leave no pattern.
    pub fn learn(&mut self, data: &[u8], text: &str, counter: Option<&str>) {
        self.clear();
        let Some((before, mut after)) = around(data, text) else {
            return;
        };
        if !before.ends_with(b"\"") || !after.starts_with(b"\"") {
            return;
        }
        if let Some(counter) = counter {
            let Some((quoted, end)) = around(after, counter) else {
                return;
            };
            // Without the closing quote, so that the last occurrence is found even if another member repeats it.
            let between = quoted.strip_prefix(b"\"").unwrap_or(quoted);
            self.between = Some(FinderRev::new(between).into_owned());
            after = end;
        }
        self.before.extend_from_slice(before);
        self.after.extend_from_slice(after);
    }

    /// Reads `data` if it has this pattern and a text that is not empty.
    pub fn read<'d>(&self, data: &'d [u8]) -> Option<PatternMatch<'d>> {
        if self.before.is_empty() {
            return None;
        }
        let rest = data
            .strip_prefix(self.before.as_slice())?
            .strip_suffix(self.after.as_slice())?;
        let (inner, counter) = match &self.between {
            None => (rest, None),
            // A quote within the text is escaped, so the text cannot contain what stands between.
            Some(between) => {
                let at = between.rfind(rest)?;
                let counter = rest.get(at + between.needle().len()..)?;
                (
                    rest.get(..at)?.strip_suffix(b"\"")?,
                    Some(std::str::from_utf8(counter).ok()?),
                )
            }
        };
        if inner.is_empty() {
            return None;
        }
        let is_plain = inner
            .iter()
            .all(|byte| *byte != b'"' && *byte != b'\\' && *byte >= b' ');
        let text = if is_plain {
            Cow::Borrowed(std::str::from_utf8(inner).ok()?)
        } else {
            // The parser refuses bytes that end the string early and begin another member.
            let start = self.before.len();
            let literal = data.get(start - 1..=start + inner.len())?;
            Cow::Owned(serde_json::from_slice::<String>(literal).ok()?)
        };
        Some(PatternMatch { text, counter })
    }
}

/// What stands before and after `part`, which is a part of `data`.
fn around<'d>(data: &'d [u8], part: &str) -> Option<(&'d [u8], &'d [u8])> {
    let at = part.as_ptr().addr().checked_sub(data.as_ptr().addr())?;
    let (before, rest) = data.split_at_checked(at)?;
    Some((before, rest.strip_prefix(part.as_bytes())?))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;
    use serde_json::value::RawValue;

    use super::*;

    #[derive(serde::Deserialize)]
    struct Completion<'a> {
        #[serde(borrow)]
        text: &'a RawValue,
        #[serde(borrow, default)]
        usage: Option<&'a RawValue>,
    }

    fn inner(literal: &RawValue) -> &str {
        literal.get().strip_prefix('"').unwrap().strip_suffix('"').unwrap()
    }

    fn learned(data: &str) -> CompletionPattern {
        let chunk: Completion<'_> = serde_json::from_str(data).unwrap();
        let mut pattern = CompletionPattern::default();
        pattern.learn(data.as_bytes(), inner(chunk.text), chunk.usage.map(RawValue::get));
        pattern
    }

    /// The text and the counter of `data`.
    fn read<'d>(pattern: &CompletionPattern, data: &'d str) -> Option<(Cow<'d, str>, Option<&'d str>)> {
        let found = pattern.read(data.as_bytes())?;
        Some((found.text, found.counter))
    }

    #[test]
    fn a_chunk_of_the_same_shape_gives_its_text() {
        let pattern = learned(r#"{"id":"a","text":"a","b":null}"#);
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
            assert_eq!(read(&pattern, data), text.map(|text| (text.into(), None)), "{data}");
        }
    }

    #[test]
    fn what_was_not_learned_matches_nothing() {
        assert_eq!(CompletionPattern::default().read(b"\"a\""), None);
        let mut pattern = learned(r#"{"text":"a"}"#);
        let elsewhere = RawValue::from_string("\"a\"".to_owned()).unwrap();
        pattern.learn(br#"{"text":"a"}"#, inner(&elsewhere), None);
        assert_eq!(pattern.read(br#"{"text":"a"}"#), None);
        let before = learned(r#"{"usage":{"n":1},"text":"a"}"#);
        assert_eq!(
            before.read(br#"{"usage":{"n":1},"text":"a"}"#),
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
            assert_eq!(read(&pattern, data), found, "{data}");
        }
    }

    proptest! {
        #[test]
        fn a_match_says_what_a_parser_says(first in "[a-z]{1,4}", text in ".{0,12}", raw in "[\\\\\"ntu0-9a-z ]{0,8}") {
            let chunk = |text: &str| serde_json::json!({"a": 1, "text": text, "usage": {"n": 3}, "z": null}).to_string();
            let one = chunk(&first);
            let pattern = learned(&one);
            prop_assert_eq!(read(&pattern, &one), Some((Cow::Borrowed(first.as_str()), Some(r#"{"n":3}"#))));
            if let Some((fast, _)) = read(&pattern, &chunk(&text)) {
                prop_assert_eq!(&fast, &text);
            }
            // Bytes put between the quotation marks as they are, valid JSON or not.
            let other = one.replacen(&format!("\"text\":\"{first}\""), &format!("\"text\":\"{raw}\""), 1);
            if let Some((fast, _)) = read(&pattern, &other) {
                let parsed: Completion<'_> = serde_json::from_str(&other).unwrap();
                prop_assert_eq!(fast.as_ref(), serde_json::from_str::<String>(parsed.text.get()).unwrap());
            }
        }
    }
}
