//! Free text comes out of arguments however they are cut.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

/// What comes of `arguments` in one piece, character by character, and in pieces of three characters.
fn text(arguments: &str) -> String {
    let chars: Vec<char> = arguments.chars().collect();
    let mut told: Vec<String> = [1, 3, chars.len().max(1)]
        .iter()
        .map(|size| {
            let mut reader = FreeText::default();
            let mut out = String::new();
            for piece in chars.chunks(*size) {
                out.push_str(&reader.feed(&piece.iter().collect::<String>()));
            }
            out.push_str(&reader.finish());
            out
        })
        .collect();
    told.dedup();
    assert_eq!(told.len(), 1, "{arguments}: {told:?}");
    told.remove(0)
}

#[test]
fn the_text_is_read_out_of_the_arguments() {
    for (arguments, want) in [
        (r#"{"input":"a\nb \"c\" \\ \/ \u00e9\t"}"#, "a\nb \"c\" \\ / é\t"),
        (r#" { "input" : "x" } "#, "x"),
        (r#"{"input":""}"#, ""),
        (r#"{"why":"\"input\":","deep":{"input":"no"},"input":"yes"}"#, "yes"),
        (r#"{"input":"\ud83d\ude00!"}"#, "😀!"),
        (r#"{"input":"\ud83d!\ude00"}"#, "\u{fffd}!\u{fffd}"),
        // Not as the schema says, but clear.
        (r#"{"patch":"*** Begin"}"#, "*** Begin"),
        (r#""just\ntext""#, "just\ntext"),
        ("*** Begin Patch\n", "*** Begin Patch\n"),
        (r#"{"input":{"a":1}}"#, r#"{"a":1}"#),
        (r#"{"a":"x","b":"y"}"#, r#"{"a":"x","b":"y"}"#),
        ("{\"input\":\"line\nbreak\"}", "line\nbreak"),
        (r#"{"input":"\d+ \uZZ"}"#, r"\d+ \uZZ"),
        // Cut off.
        (r#"{"input":"half\"#, "half"),
        (r#"{"input":"half \ud83d"#, "half \u{fffd}"),
        ("", ""),
        ("  ", ""),
    ] {
        assert_eq!(text(arguments), want, "{arguments}");
    }
}

proptest! {
    /// Whatever the text, it comes back out of its arguments however they are cut.
    #[test]
    fn every_text_comes_back(input in any::<String>()) {
        prop_assert_eq!(text(&arguments(&input).unwrap()), input);
    }

    /// Whatever comes, the cut makes no difference.
    #[test]
    fn the_cut_makes_no_difference(arguments in r#"[ {}\[\]":,\\undinpt0-9e]{0,40}"#) {
        let _ = text(&arguments);
    }
}
