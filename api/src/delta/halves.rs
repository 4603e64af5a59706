//! Characters that come in halves. JSON writes a character beyond U+FFFF as two escapes, and an engine that cuts its
//! text between them sends one in each chunk. Alone, neither is text: parsers refuse it, or lose it.

/// Stands for a half whose other half never comes.
const UNKNOWN: char = char::REPLACEMENT_CHARACTER;

/// Reads a text that comes as one JSON string after another. Keeps a first half until the second comes.
#[derive(Debug, Default)]
pub(super) struct Halves(Option<u16>);

impl Halves {
    /// Whether a first half waits for its second.
    pub(super) fn waits(&self) -> bool {
        self.0.is_some()
    }

    /// The text of `json`, a JSON string with its quotes.
    pub(super) fn read(&mut self, json: &str) -> String {
        if self.0.is_none()
            && let Ok(text) = serde_json::from_str(json)
        {
            return text;
        }
        let inner = json.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        let mut text = String::with_capacity(json.len());
        let mut chars = inner.unwrap_or_default().chars();
        while let Some(c) = chars.next() {
            if c != '\\' {
                self.push(c, &mut text);
                continue;
            }
            match chars.next() {
                Some('u') => {
                    let rest = chars.as_str();
                    let (digits, rest) = rest.split_at_checked(4).unwrap_or((rest, ""));
                    chars = rest.chars();
                    self.unit(u16::from_str_radix(digits, 16).unwrap_or(0xfffd), &mut text);
                }
                Some(escaped) => self.push(plain(escaped), &mut text),
                None => {}
            }
        }
        text
    }

    /// Gives up a half that still waits: appends what stands for it.
    pub(super) fn end(&mut self, text: &mut String) {
        if self.0.take().is_some() {
            text.push(UNKNOWN);
        }
    }

    fn push(&mut self, c: char, text: &mut String) {
        self.end(text);
        text.push(c);
    }

    fn unit(&mut self, unit: u16, text: &mut String) {
        match (self.0, unit) {
            (_, 0xd800..=0xdbff) => {
                self.end(text);
                self.0 = Some(unit);
            }
            (Some(first), 0xdc00..=0xdfff) => {
                self.0 = None;
                text.extend(char::decode_utf16([first, unit]).map(|c| c.unwrap_or(UNKNOWN)));
            }
            _ => self.push(char::from_u32(u32::from(unit)).unwrap_or(UNKNOWN), text),
        }
    }
}

/// The character that JSON escapes as `\` and `escaped`.
fn plain(escaped: char) -> char {
    match escaped {
        'b' => '\u{8}',
        'f' => '\u{c}',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        other => other,
    }
}

/// Whether `json` has an escape that may be half of a character.
pub(super) fn may_have(json: &str) -> bool {
    json.match_indices("\\u").any(|(at, _)| {
        let digits = json.as_bytes().get(at + 2..at + 4);
        matches!(digits, Some([b'd' | b'D', b'8' | b'9' | b'a'..=b'f' | b'A'..=b'F']))
    })
}

/// `json`, any value, with U+FFFD for each half of a character whose other half is not beside it.
pub(super) fn mended(json: &str) -> String {
    let mut whole = String::with_capacity(json.len());
    let mut rest = json;
    while let Some((before, escape)) = rest.find('\\').and_then(|at| rest.split_at_checked(at)) {
        whole.push_str(before);
        let (taken, kept) = match (unit(escape), escape.get(6..).and_then(unit)) {
            (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => (12, true),
            (Some(0xd800..=0xdfff), _) => (6, false),
            // A backslash and what it escapes, which may be a backslash.
            _ => (1 + escape.chars().nth(1).map_or(0, char::len_utf8), true),
        };
        let (escape, tail) = escape.split_at_checked(taken).unwrap_or((escape, ""));
        whole.push_str(if kept { escape } else { "\\ufffd" });
        rest = tail;
    }
    whole.push_str(rest);
    whole
}

/// The UTF-16 unit that an escape at the beginning of `text` stands for.
fn unit(text: &str) -> Option<u16> {
    let digits = text.strip_prefix("\\u")?.get(..4)?;
    u16::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(pieces: &[&str]) -> String {
        let mut halves = Halves::default();
        let mut text: String = pieces.iter().map(|piece| halves.read(piece)).collect();
        halves.end(&mut text);
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
    fn any_value_is_mended() {
        assert_eq!(
            mended(r#"[{"a":"\ud83d x \\ud83d \ud83d\ude00 \n"}]"#),
            r#"[{"a":"\ufffd x \\ud83d \ud83d\ude00 \n"}]"#
        );
        assert_eq!(mended(r#""\ud83d\"\u00e9\"""#), r#""\ufffd\"\u00e9\"""#);
        assert_eq!(mended(r#""plain é""#), r#""plain é""#);
    }

    #[test]
    fn halves_are_looked_for_only_where_they_may_be() {
        for (json, may) in [
            (r#""\ud83d""#, true),
            (r#""\uDFff""#, true),
            (r#""\ud7ff""#, false),
            (r#""é\n""#, false),
        ] {
            assert_eq!(may_have(json), may, "{json}");
        }
    }
}
