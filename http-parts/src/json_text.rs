//! JSON strings whose text is cut in odd places. JSON writes a character beyond U+FFFF as two escapes, and engines that
//! cut their text between them send one in each chunk. Alone, neither is text: parsers refuse it, or lose it. Pure.

use std::borrow::Cow;

/// Stands for half a character whose other half never comes.
const UNKNOWN: char = char::REPLACEMENT_CHARACTER;

/// Takes the escapes out of a JSON string that comes in pieces. Half a character at the end of a piece waits for its
/// other half, so texts that come as one JSON string after another can be read with one of these, too.
#[derive(Debug, Default)]
pub struct Unescape {
    /// The beginning of an escape: what has come behind its backslash.
    escape: Option<String>,
    /// The first half of a pair of surrogates.
    high: Option<u16>,
}

impl Unescape {
    /// Appends the text in `piece` and returns whether a quotation mark has ended the string in it.
    pub fn feed(&mut self, piece: &str, out: &mut String) -> bool {
        for c in piece.chars() {
            match &mut self.escape {
                Some(escape) => {
                    escape.push(c);
                    self.escaped(out);
                }
                None if c == '\\' => self.escape = Some(String::new()),
                None => {
                    self.settle(out);
                    if c == '"' {
                        return true;
                    }
                    out.push(c);
                }
            }
        }
        false
    }

    /// Appends the text of `json`, a whole JSON string with its quotation marks.
    pub fn feed_string(&mut self, json: &str, out: &mut String) {
        if !self.waits()
            && let Ok(text) = serde_json::from_str::<Cow<'_, str>>(json)
        {
            out.push_str(&text);
            return;
        }
        let inner = json.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        self.feed(inner.unwrap_or_default(), out);
    }

    /// Whether half a character waits for its other half.
    #[must_use]
    pub fn waits(&self) -> bool {
        self.high.is_some()
    }

    /// Nothing follows: half a character becomes U+FFFD, an escape that was cut is no text.
    pub fn finish(&mut self, out: &mut String) {
        self.escape = None;
        self.settle(out);
    }

    /// Half a pair without its other half is no character.
    fn settle(&mut self, out: &mut String) {
        if self.high.take().is_some() {
            out.push(UNKNOWN);
        }
    }

    /// Writes the escape if it is complete.
    fn escaped(&mut self, out: &mut String) {
        let Some(escape) = &self.escape else { return };
        let simple = match escape.as_str() {
            "n" => '\n',
            "t" => '\t',
            "r" => '\r',
            "b" => '\u{8}',
            "f" => '\u{c}',
            "\"" => '"',
            "\\" => '\\',
            "/" => '/',
            code if is_begun(code) => return,
            code => {
                let unit = code
                    .strip_prefix('u')
                    .and_then(|code| u16::from_str_radix(code, 16).ok());
                let code = code.to_owned();
                self.escape = None;
                match unit {
                    Some(unit) => self.unit(unit, out),
                    // No escape of JSON: models forget to escape a backslash.
                    None => {
                        self.settle(out);
                        out.push('\\');
                        out.push_str(&code);
                    }
                }
                return;
            }
        };
        self.escape = None;
        self.settle(out);
        out.push(simple);
    }

    /// Writes a unit of UTF-16, or keeps it until its other half has come.
    fn unit(&mut self, unit: u16, out: &mut String) {
        let pair = self.high.take();
        if let Some(high) = pair {
            if let Some(Ok(c)) = char::decode_utf16([high, unit]).next() {
                out.push(c);
                return;
            }
            out.push(UNKNOWN);
        }
        match char::from_u32(u32::from(unit)) {
            Some(c) => out.push(c),
            None if (0xd800..0xdc00).contains(&unit) => self.high = Some(unit),
            None => out.push(UNKNOWN),
        }
    }
}

/// Whether `code` is the beginning of an escape of a code unit.
fn is_begun(code: &str) -> bool {
    let digits = code.strip_prefix('u');
    digits.is_some_and(|digits| digits.len() < 4 && digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
}

/// `json`, any value, with U+FFFD for each escaped half of a character without its other half beside it. JSON allows
/// such halves, but no text can hold them, and all that stands beside them would be lost.
#[must_use]
pub fn whole_characters(json: &str) -> Cow<'_, str> {
    let mut whole = String::new();
    // Where what was not copied begins, and where to look on.
    let (mut from, mut at) = (0, 0);
    while let Some(found) = json.get(at..).and_then(|rest| rest.find('\\')) {
        let escape = at + found;
        at = match (code_unit(json, escape), code_unit(json, escape + 6)) {
            (Some(0xD800..=0xDBFF), Some(0xDC00..=0xDFFF)) => escape + 12,
            (Some(0xD800..=0xDFFF), _) => {
                whole.push_str(json.get(from..escape).unwrap_or_default());
                whole.push_str("\\ufffd");
                from = escape + 6;
                from
            }
            (Some(_), _) => escape + 6,
            (None, _) => escape + 2,
        };
    }
    if from == 0 {
        return Cow::Borrowed(json);
    }
    whole.push_str(json.get(from..).unwrap_or_default());
    Cow::Owned(whole)
}

/// The UTF-16 unit of the escape `\uXXXX` at byte `at`.
#[must_use]
pub fn code_unit(json: &str, at: usize) -> Option<u16> {
    let digits = json.get(at..at + 6)?.strip_prefix("\\u")?;
    u16::from_str_radix(digits, 16).ok()
}

/// Whether `json` has an escape that may be half of a character.
#[must_use]
pub fn may_have_halves(json: &str) -> bool {
    json.match_indices("\\u").any(|(at, _)| {
        let digits = json.as_bytes().get(at + 2..at + 4);
        matches!(digits, Some([b'd' | b'D', b'8' | b'9' | b'a'..=b'f' | b'A'..=b'F']))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(pieces: &[&str]) -> String {
        let (mut unescape, mut text) = (Unescape::default(), String::new());
        for piece in pieces {
            unescape.feed_string(piece, &mut text);
        }
        unescape.finish(&mut text);
        text
    }

    #[test]
    fn halves_in_two_pieces_are_one_character() {
        assert_eq!(told(&[r#""ok \ud83d""#, r#""\ude00 done""#]), "ok 😀 done");
        assert_eq!(told(&[r#""ok \uD83D""#, r#""""#, r#""\uDE00""#]), "ok 😀");
        assert_eq!(told(&[r#""a\n\"\\\u00e9\ud83d\ude00é""#]), "a\n\"\\é😀é");
    }

    #[test]
    fn a_half_alone_is_replaced_and_nothing_beside_it_is_lost() {
        assert_eq!(told(&[r#""a \ud83d""#, r#""b\t""#]), "a \u{fffd}b\t");
        assert_eq!(told(&[r#""\ude00 x\ud83d\ud83d""#]), "\u{fffd} x\u{fffd}\u{fffd}");
        assert_eq!(told(&[r#""\ud83d\u0041""#]), "\u{fffd}A");
    }

    #[test]
    fn halves_in_any_value_are_replaced_and_pairs_stay() {
        let table = [
            (r#""ok \ud83d""#, r#""ok \ufffd""#),
            (r#""\ude00 done""#, r#""\ufffd done""#),
            (r#""\ud83d\ud83d\ude00\uDE00""#, r#""\ufffd\ud83d\ude00\ufffd""#),
            (r#""\\ud83d\n\u00e9""#, r#""\\ud83d\n\u00e9""#),
            (r#""\ud83dx\ude00""#, r#""\ufffdx\ufffd""#),
            (r#""\ud83d\"\u00e9\"""#, r#""\ufffd\"\u00e9\"""#),
            (
                r#"[{"a":"\ud83d x \\ud83d \ud83d\ude00 \n"}]"#,
                r#"[{"a":"\ufffd x \\ud83d \ud83d\ude00 \n"}]"#,
            ),
        ];
        for (json, wanted) in table {
            assert_eq!(whole_characters(json), wanted);
            assert!(serde_json::from_str::<serde_json::Value>(wanted).is_ok());
        }
        assert!(matches!(whole_characters(r#""plain é""#), Cow::Borrowed(_)));
        assert!(matches!(whole_characters(r#""a\\""#), Cow::Borrowed(_)));
        assert!(matches!(whole_characters("\"ä\\"), Cow::Borrowed(_)), "cut short");
    }

    #[test]
    fn halves_are_looked_for_only_where_they_may_be() {
        for (json, may) in [
            (r#""\ud83d""#, true),
            (r#""\uDFff""#, true),
            (r#""\ud7ff""#, false),
            (r#""é\n""#, false),
        ] {
            assert_eq!(may_have_halves(json), may, "{json}");
        }
    }
}
