//! Writing JSON straight into a buffer: strings are escaped on the way, no value tree is built.

use std::fmt::Write as _;

use bytes::{BufMut as _, BytesMut};
use tokenbus_protocol::RawJson;

/// Appends `text` as a JSON string, quotes included.
pub(crate) fn push_string(out: &mut BytesMut, text: &str) {
    out.put_u8(b'"');
    push_escaped(out, text);
    out.put_u8(b'"');
}

/// Appends `text` as the inside of a JSON string.
///
/// Beside what JSON demands, U+0085, U+2028 and U+2029 are escaped: they are legal in JSON and in
/// event streams, but line readers of several languages (Python's `str.splitlines`, which httpx's
/// `iter_lines` is made of) end a line at them and would tear the event apart.
pub(crate) fn push_escaped(out: &mut BytesMut, text: &str) {
    let mut rest = text;
    while let Some(at) = rest.bytes().position(may_need_escape) {
        let Some((plain, tail)) = rest.split_at_checked(at) else {
            break;
        };
        out.extend_from_slice(plain.as_bytes());
        let mut chars = tail.chars();
        if let Some(c) = chars.next() {
            push_char(out, c);
        }
        rest = chars.as_str();
    }
    out.extend_from_slice(rest.as_bytes());
}

// First bytes of the characters that are escaped: 0xC2 begins U+0085, 0xE2 U+2028 and U+2029.
fn may_need_escape(byte: u8) -> bool {
    matches!(byte, 0..=0x1f | b'"' | b'\\' | 0xC2 | 0xE2)
}

fn push_char(out: &mut BytesMut, c: char) {
    let short: &[u8] = match c {
        '"' => b"\\\"",
        '\\' => b"\\\\",
        '\n' => b"\\n",
        '\r' => b"\\r",
        '\t' => b"\\t",
        '\u{8}' => b"\\b",
        '\u{c}' => b"\\f",
        '\0'..='\u{1f}' | '\u{85}' | '\u{2028}' | '\u{2029}' => {
            push_number(out, format_args!("\\u{:04x}", u32::from(c)));
            return;
        }
        _ => {
            let mut utf8 = [0; 4];
            out.extend_from_slice(c.encode_utf8(&mut utf8).as_bytes());
            return;
        }
    };
    out.extend_from_slice(short);
}

/// Appends what `text` formats to, unescaped: numbers and the like.
pub(crate) fn push_number(out: &mut BytesMut, text: impl std::fmt::Display) {
    // Writing into a growing buffer does not fail.
    let _ = write!(out, "{text}");
}

/// The inside of a JSON object, without its braces: what can be spliced in among other members.
/// Empty when `json` is an empty object or no object.
pub(crate) fn members(json: &RawJson) -> &str {
    json.get()
        .strip_prefix('{')
        .and_then(|text| text.strip_suffix('}'))
        .map_or("", str::trim_ascii)
}

/// Appends `,` and the members of `json`, or nothing when it has none.
pub(crate) fn push_members(out: &mut BytesMut, json: Option<&RawJson>) {
    let members = json.map_or("", members);
    if !members.is_empty() {
        out.put_u8(b',');
        out.extend_from_slice(members.as_bytes());
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn escaped(text: &str) -> String {
        let mut out = BytesMut::new();
        push_string(&mut out, text);
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn plain_text_passes_as_it_is() {
        assert_eq!(
            escaped("hello, wörld — 漢字 🦀 \u{7f}"),
            "\"hello, wörld — 漢字 🦀 \u{7f}\""
        );
        assert_eq!(escaped(""), "\"\"");
    }

    #[test]
    fn json_specials_are_escaped() {
        assert_eq!(escaped("a\"b\\c/d"), r#""a\"b\\c/d""#);
        assert_eq!(escaped("\n\r\t\u{8}\u{c}\0\u{1f}"), r#""\n\r\t\b\f\u0000\u001f""#);
    }

    #[test]
    fn line_ends_of_other_languages_are_escaped() {
        assert_eq!(escaped("a\u{2028}b\u{2029}c\u{85}d"), r#""a\u2028b\u2029c\u0085d""#);
        // Neighbours with the same first bytes are not.
        assert_eq!(
            escaped("\u{2027}\u{202a}\u{84}\u{86}é"),
            "\"\u{2027}\u{202a}\u{84}\u{86}é\""
        );
    }

    #[test]
    fn every_character_comes_back() {
        for c in ('\0'..=char::MAX)
            .step_by(7)
            .chain('\0'..'\u{800}')
            .chain('\u{2000}'..'\u{2100}')
        {
            let text = format!("<{c}>");
            assert_eq!(serde_json::from_str::<String>(&escaped(&text)).unwrap(), text, "{c:?}");
        }
    }

    #[test]
    fn members_are_what_is_between_the_braces() {
        let of = |text: &str| members(&RawJson::new(text).unwrap()).to_owned();
        assert_eq!(of(r#"{ "a": {"b": 1} , "c":"}" }"#), r#""a": {"b": 1} , "c":"}""#);
        for none in ["{}", "{  }", "[1]", "\"{}\"", "null", "7"] {
            assert_eq!(of(none), "", "{none}");
        }
    }
}
