//! How answers of chats are written.

use std::borrow::Cow;

use bytes::{BufMut as _, BytesMut};
use serde::Serialize;
use tokenbus_protocol::{RawJson, RawObject};

use crate::answer::json::{push_escaped, push_members, push_number, push_optional};
use crate::generation::Style;
use crate::generation::collector::Choice;
use crate::generation::merge::Members;
use crate::generation::style::RichDelta;
use crate::limits::MAX_CHOICES;

/// OpenAI's chat completions.
#[derive(Debug)]
pub(crate) struct ChatStyle;

#[derive(Serialize)]
struct ChunkChoice {
    index: u32,
    delta: ChunkDelta,
    logprobs: (),
    finish_reason: (),
}

#[derive(Serialize)]
struct ChunkDelta {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<&'static str>,
}

#[derive(Serialize)]
struct WholeChoice<'a> {
    index: u32,
    message: Message<'a>,
    logprobs: Option<&'a Members>,
    finish_reason: Option<&'a str>,
    #[serde(flatten)]
    members: &'a Members,
}

#[derive(Serialize)]
struct Message<'a> {
    role: &'static str,
    content: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refusal: Option<()>,
    #[serde(flatten)]
    members: &'a Members,
    /// Reasoning that the engine has under the other name.
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning: Option<&'a str>,
}

/// The names of reasoning. Engines use either, and clients look for one of them: both get it under both, so that it
/// does not come and go with the engine that answers.
const REASONING: [&str; 2] = ["reasoning_content", "reasoning"];

/// Appends the reasoning of `delta` under the name that it does not have.
fn push_other_reasoning(delta: Option<&RawJson>, out: &mut BytesMut) {
    let Some(delta) = delta.filter(|json| json.get().contains("\"reasoning")) else {
        return;
    };
    let Ok(object) = RawObject::parse(delta.get().as_bytes()) else {
        return;
    };
    let (other, told) = match REASONING.map(|name| object.get(name)) {
        [Some(told), None] => ("reasoning", told),
        [None, Some(told)] => ("reasoning_content", told),
        _ => return,
    };
    if told.get().starts_with('"') {
        out.extend_from_slice(b",\"");
        out.extend_from_slice(other.as_bytes());
        out.extend_from_slice(b"\":");
        out.extend_from_slice(told.get().as_bytes());
    }
}

fn chunk_choice(index: u32, role: Option<&'static str>, content: Option<&'static str>) -> ChunkChoice {
    ChunkChoice {
        index,
        delta: ChunkDelta { role, content },
        logprobs: (),
        finish_reason: (),
    }
}

fn push_index(index: u32, out: &mut BytesMut) {
    if index == 0 {
        out.extend_from_slice(b"{\"index\":0,\"delta\":{");
    } else {
        push_number(out, format_args!("{{\"index\":{index},\"delta\":{{"));
    }
}

impl Style for ChatStyle {
    const CHUNK: &'static str = "chat.completion.chunk";
    const ANSWER: &'static str = "chat.completion";
    const MAX_CHOICES: u32 = MAX_CHOICES;
    const COUNTS_CHARACTERS: bool = false;
    const GIVES_TEMPLATE: bool = true;

    fn opening(index: u32) -> Option<impl Serialize> {
        Some(chunk_choice(index, Some("assistant"), Some("")))
    }

    fn blank() -> impl Serialize {
        chunk_choice(0, None, None)
    }

    fn push_before_text(index: u32, out: &mut BytesMut) {
        push_index(index, out);
        out.extend_from_slice(b"\"content\":\"");
    }

    fn push_after_text(_: u32, out: &mut BytesMut) {
        out.extend_from_slice(b"\"},\"logprobs\":null,\"finish_reason\":null}]");
    }

    fn is_silent(piece: &RichDelta<'_>) -> bool {
        piece.text.is_empty()
            && piece.delta.is_empty()
            && piece.choice.is_empty()
            && piece.chunk.is_empty()
            && piece.extra.logprobs.is_none()
            && piece.reason.is_none()
    }

    fn push_choice(piece: &RichDelta<'_>, out: &mut BytesMut) {
        push_index(piece.index, out);
        if !piece.text.is_empty() {
            out.extend_from_slice(b"\"content\":\"");
            push_escaped(out, piece.text);
            out.put_u8(b'"');
            if !piece.delta.is_empty() {
                out.put_u8(b',');
            }
        }
        out.extend_from_slice(piece.delta.as_bytes());
        push_other_reasoning(piece.extra.delta.as_ref(), out);
        out.extend_from_slice(b"},\"logprobs\":");
        let logprobs = piece.extra.logprobs.as_ref().map_or("null", |json| json.get());
        out.extend_from_slice(logprobs.as_bytes());
        out.extend_from_slice(b",\"finish_reason\":");
        push_optional(out, piece.reason);
        push_members(out, piece.choice);
        out.extend_from_slice(b"}]");
    }

    fn logprobs(logprobs: Option<&RawJson>, _: usize) -> Option<Cow<'_, RawJson>> {
        logprobs.map(Cow::Borrowed)
    }

    fn whole(choice: &Choice) -> impl Serialize {
        // OpenAI's content is null where the message is something other than text.
        let others = ["tool_calls", "function_call", "refusal"];
        let is_other = choice.text.is_empty() && others.iter().any(|name| choice.message.has(name));
        let other = |[absent, there]: [&str; 2]| {
            let text = choice.message.text(there);
            text.filter(|_| !choice.message.contains(absent))
        };
        WholeChoice {
            index: choice.index,
            message: Message {
                role: "assistant",
                content: (!is_other).then_some(&choice.text),
                refusal: (!choice.message.contains("refusal")).then_some(()),
                members: &choice.message,
                reasoning_content: other(REASONING),
                reasoning: other(["reasoning", "reasoning_content"]),
            },
            logprobs: choice.logprobs(),
            finish_reason: choice.finish_reason.as_deref(),
            members: &choice.members,
        }
    }
}

#[cfg(test)]
#[path = "chunk_encoder_tests.rs"]
mod tests;
