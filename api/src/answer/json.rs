//! JSON written straight into a buffer, without a value tree.
//!
//! Beside the escapes that JSON demands, U+0085, U+2028 and U+2029 are escaped. They are legal in JSON and in event
//! streams, but line readers of several languages (Python's `str.splitlines`, on which httpx's `iter_lines` is built)
//! end a line at them and would tear the event apart.

use std::fmt::Write as _;
use std::io;

use bytes::{BufMut as _, BytesMut};
use serde::Serialize;
use serde_json::ser::Formatter;
use tokenbus_protocol::RawJson;

/// Appends `value` as JSON on one line.
pub(crate) fn push(out: &mut BytesMut, value: &(impl Serialize + ?Sized)) {
    let mut serializer = serde_json::Serializer::with_formatter(out.writer(), OneLine);
    // A growing buffer takes every write, and no type of ours refuses to be serialized.
    let _ = value.serialize(&mut serializer);
}

/// Appends `value`, which is an object, with the members of `more` at its end as their sender wrote them.
pub(crate) fn push_object(out: &mut BytesMut, value: &impl Serialize, more: Option<&RawJson>) {
    push(out, value);
    let more = more.map_or("", members);
    if !more.is_empty() {
        reopen(out);
        push_members(out, more);
        out.put_u8(b'}');
    }
}

/// Removes the brace that closes the object at the end of `out`, so that more members can follow.
pub(crate) fn reopen(out: &mut BytesMut) {
    out.truncate(out.len().saturating_sub(1));
}

/// Escapes what [`push_escaped`] escapes beyond serde's own rules.
struct OneLine;

impl Formatter for OneLine {
    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let mut rest = fragment;
        while let Some((plain, tail)) = rest.find(ends_a_line).and_then(|at| rest.split_at_checked(at)) {
            writer.write_all(plain.as_bytes())?;
            let mut chars = tail.chars();
            if let Some(c) = chars.next() {
                write!(writer, "\\u{:04x}", u32::from(c))?;
            }
            rest = chars.as_str();
        }
        writer.write_all(rest.as_bytes())
    }
}

fn ends_a_line(c: char) -> bool {
    matches!(c, '\u{85}' | '\u{2028}' | '\u{2029}')
}

/// Appends `text` as a JSON string, quotes included.
pub(crate) fn push_string(out: &mut BytesMut, text: &str) {
    out.put_u8(b'"');
    push_escaped(out, text);
    out.put_u8(b'"');
}

/// Appends `text` as a JSON string, or `null`.
pub(crate) fn push_optional(out: &mut BytesMut, text: Option<&str>) {
    match text {
        Some(text) => push_string(out, text),
        None => out.extend_from_slice(b"null"),
    }
}

/// Appends `text` as the inside of a JSON string.
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

// The first bytes of all characters that are escaped: 0xC2 begins U+0085, 0xE2 begins U+2028 and U+2029.
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

/// Appends `text` as it formats, without escapes: for numbers and the like.
pub(crate) fn push_number(out: &mut BytesMut, text: impl std::fmt::Display) {
    // A growing buffer takes every write.
    let _ = write!(out, "{text}");
}

/// The inside of a JSON object, without its braces, so that it can be placed among other members. Empty when `json`
/// is an empty object or no object.
pub(crate) fn members(json: &RawJson) -> &str {
    json.get()
        .strip_prefix('{')
        .and_then(|text| text.strip_suffix('}'))
        .map_or("", str::trim_ascii)
}

/// Appends `,` and `members`, or nothing when there are none.
pub(crate) fn push_members(out: &mut BytesMut, members: &str) {
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
    fn serialized_values_are_escaped_like_strings() {
        for text in [
            "",
            "a\"b\\c/d",
            "\n\r\t\u{8}\u{c}\0\u{1f}\u{7f}",
            "\u{85}\u{2028}b\u{2029}",
            "漢🦀\u{2027}é",
        ] {
            let mut out = BytesMut::new();
            push(&mut out, text);
            assert_eq!(out, escaped(text), "{text:?}");
        }
    }

    #[test]
    fn more_members_follow_as_they_were_written() {
        let with = |more: &str| {
            let mut out = BytesMut::new();
            let object = std::collections::BTreeMap::from([("a", 1)]);
            push_object(&mut out, &object, Some(&RawJson::new(more).unwrap()));
            String::from_utf8(out.to_vec()).unwrap()
        };
        assert_eq!(with(r#"{ "b" : 1.50 }"#), r#"{"a":1,"b" : 1.50}"#);
        assert_eq!(with("{ }"), r#"{"a":1}"#);
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
