//! How answers of text completions are written: OpenAI's older forms.

use std::borrow::Cow;

use bytes::BytesMut;
use serde::Serialize;
use tokenbus_protocol::{DeltaExtra, RawJson};

use super::logprobs::in_text_form;
use crate::answer::json::{push_members, push_number, push_optional, push_string};
use crate::generation::Style;
use crate::generation::collector::Choice;
use crate::generation::merge::Members;
use crate::generation::style::RichDelta;
use crate::limits::MAX_TEXT_CHOICES;

/// OpenAI's text completions.
#[derive(Debug)]
pub(crate) struct TextStyle;

#[derive(Serialize)]
struct BlankChoice {
    text: &'static str,
    index: u32,
    logprobs: (),
    finish_reason: (),
}

#[derive(Serialize)]
struct WholeChoice<'a> {
    text: &'a str,
    index: u32,
    #[serde(flatten)]
    message: &'a Members,
    logprobs: Option<&'a Members>,
    finish_reason: Option<&'a str>,
    #[serde(flatten)]
    members: &'a Members,
}

impl Style for TextStyle {
    const CHUNK: &'static str = "text_completion";
    const ANSWER: &'static str = "text_completion";
    const MAX_CHOICES: u32 = MAX_TEXT_CHOICES;
    const COUNTS_CHARACTERS: bool = true;
    // Text that does not pass the encoder would be missing from its count of characters.
    const GIVES_TEMPLATE: bool = false;

    fn opening(_: u32) -> Option<impl Serialize> {
        None::<()>
    }

    fn blank() -> impl Serialize {
        BlankChoice {
            text: "",
            index: 0,
            logprobs: (),
            finish_reason: (),
        }
    }

    fn push_before_text(_: u32, out: &mut BytesMut) {
        out.extend_from_slice(b"{\"text\":\"");
    }

    fn push_after_text(index: u32, out: &mut BytesMut) {
        push_number(
            out,
            format_args!("\",\"index\":{index},\"logprobs\":null,\"finish_reason\":null}}]"),
        );
    }

    fn is_silent(piece: &RichDelta<'_>) -> bool {
        piece.text.is_empty() && piece.reason.is_none() && *piece.extra == DeltaExtra::default()
    }

    fn push_choice(piece: &RichDelta<'_>, out: &mut BytesMut) {
        out.extend_from_slice(b"{\"text\":");
        push_string(out, piece.text);
        push_number(out, format_args!(",\"index\":{},\"logprobs\":", piece.index));
        let logprobs = in_text_form(piece.extra.logprobs.as_ref(), piece.characters);
        out.extend_from_slice(logprobs.as_ref().map_or("null", |json| json.get()).as_bytes());
        out.extend_from_slice(b",\"finish_reason\":");
        push_optional(out, piece.reason);
        push_members(out, piece.delta);
        push_members(out, piece.choice);
        out.extend_from_slice(b"}]");
    }

    fn logprobs(logprobs: Option<&RawJson>, characters: usize) -> Option<Cow<'_, RawJson>> {
        in_text_form(logprobs, characters)
    }

    fn whole(choice: &Choice) -> impl Serialize {
        WholeChoice {
            text: &choice.text,
            index: choice.index,
            message: &choice.message,
            logprobs: choice.logprobs(),
            finish_reason: choice.finish_reason.as_deref(),
            members: &choice.members,
        }
    }
}

#[cfg(test)]
#[path = "text_encoder_tests.rs"]
mod tests;
