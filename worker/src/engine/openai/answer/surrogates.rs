//! Halves of characters in an event's JSON. Pure.

use std::borrow::Cow;

/// `json` with U+FFFD for each escaped half of a character without its other half. Some servers cut an emoji
/// in two. JSON allows such halves, but no text can hold them, and all the rest of the event would be lost.
pub(super) fn whole_characters(json: &str) -> Cow<'_, str> {
    let mut whole = String::new();
    // Where what was not copied begins, and where to look on.
    let (mut from, mut at) = (0, 0);
    while let Some(found) = json.get(at..).and_then(|rest| rest.find('\\')) {
        let escape = at + found;
        at = match (unit(json, escape), unit(json, escape + 6)) {
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

/// The code unit of the escape `\uXXXX` at `at`.
pub(super) fn unit(json: &str, at: usize) -> Option<u16> {
    let digits = json.get(at..at + 6)?.strip_prefix("\\u")?;
    u16::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_replaced_and_pairs_stay() {
        let table = [
            (r#""ok \ud83d""#, r#""ok \ufffd""#),
            (r#""\ude00 done""#, r#""\ufffd done""#),
            (r#""\ud83d\ud83d\ude00\uDE00""#, r#""\ufffd\ud83d\ude00\ufffd""#),
            (r#""\\ud83d\n\u00e9""#, r#""\\ud83d\n\u00e9""#),
            (r#""\ud83dx\ude00""#, r#""\ufffdx\ufffd""#),
        ];
        for (json, wanted) in table {
            assert_eq!(whole_characters(json), wanted);
            assert!(serde_json::from_str::<String>(wanted).is_ok());
        }
        assert!(matches!(whole_characters(r#""a\\""#), Cow::Borrowed(_)));
        assert!(matches!(whole_characters("\"ä\\"), Cow::Borrowed(_)), "cut short");
    }
}
