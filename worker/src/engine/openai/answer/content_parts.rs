//! What a choice says: its text, and the members of its delta. Content in parts, as Mistral's reasoning models send it,
//! becomes text and reasoning, which every client reads. Pure.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;
use tokenbus_protocol::{EngineError, RawJson, RawObject};

use super::streamed::raw;
use crate::engine::openai::error;
use crate::engine::openai::wire::completion_chunk::{Choice, text_of};

/// A part. Others are handed on as they came.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Part {
    Text { text: String },
    Thinking { thinking: Thinking },
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Thinking {
    Whole(String),
    Parts(Vec<Piece>),
}

#[derive(Deserialize)]
struct Piece {
    text: String,
}

/// The text of `choice`, and the other members of its delta.
///
/// # Errors
/// The members are no JSON.
pub(super) fn said<'c>(choice: &'c Choice<'_>) -> Result<(Cow<'c, str>, Option<RawJson>), EngineError> {
    let members = raw(&choice.delta)?;
    let parts = choice.delta.get("content").and_then(parts);
    let (Some((text, reasoning)), Some(members)) = (parts, &members) else {
        return Ok((choice.content.and_then(text_of).unwrap_or_default(), members));
    };
    let wrong = |_| error::nonsense("the engine sent an event that cannot be handed on");
    let mut rest: RawObject = members
        .parse()
        .map_err(|_| error::nonsense("the engine sent a delta that is none"))?;
    let _ = rest.remove("content");
    if !reasoning.is_empty() {
        rest.set("reasoning_content", &reasoning).map_err(wrong)?;
    }
    let members = match rest.iter().next() {
        Some(_) => Some(rest.to_json().map_err(wrong)?),
        None => None,
    };
    Ok((Cow::Owned(text), members))
}

/// Text and reasoning of a list of parts; `None` for anything else.
fn parts(content: &RawValue) -> Option<(String, String)> {
    let parts: Vec<Part> = serde_json::from_str(content.get()).ok()?;
    let (mut text, mut reasoning) = (String::new(), String::new());
    for part in parts {
        match part {
            Part::Text { text: more } => text.push_str(&more),
            Part::Thinking {
                thinking: Thinking::Whole(more),
            } => reasoning.push_str(&more),
            Part::Thinking {
                thinking: Thinking::Parts(pieces),
            } => pieces.iter().for_each(|piece| reasoning.push_str(&piece.text)),
        }
    }
    Some((text, reasoning))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::engine::openai::wire::completion_chunk::Chunk;

    #[test]
    fn parts_become_text_and_reasoning_and_unknown_ones_stay() {
        for (delta, text, members) in [
            (r#"{"content":"a"}"#, "a", None),
            (
                r#"{"content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]}"#,
                "ab",
                None,
            ),
            (
                r#"{"content":[{"type":"thinking","thinking":[{"type":"text","text":"h"},{"type":"text","text":"m"}]}]}"#,
                "",
                Some(r#"{"reasoning_content":"hm"}"#),
            ),
            (
                r#"{"content":[{"type":"thinking","thinking":"hm"},{"type":"text","text":"a"}],"x":1}"#,
                "a",
                Some(r#"{"x":1,"reasoning_content":"hm"}"#),
            ),
            (
                r#"{"content":[{"type":"image"}]}"#,
                "",
                Some(r#"{"content":[{"type":"image"}]}"#),
            ),
            (r#"{"content":[]}"#, "", None),
        ] {
            let json = format!(r#"{{"choices":[{{"index":0,"delta":{delta}}}]}}"#);
            let chunk: Chunk<'_> = serde_json::from_str(&json).unwrap();
            let (told, rest) = said(&chunk.choices[0]).unwrap();
            assert_eq!(told, text, "{delta}");
            assert_eq!(rest.as_ref().map(|rest| rest.get()), members, "{delta}");
        }
    }
}
