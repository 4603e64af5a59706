//! Messages and their content blocks, which become chat messages.

use serde_json::value::RawValue;

use crate::request::member_reader::{Taken, list, unsupported, wrong_type};
use crate::request::{RequestError, field, missing};
use crate::translation::conversation::{Conversation, File, Function, Part, ToolCall, plain};

/// Appends what `messages` say.
///
/// # Errors
/// [`RequestError`] for one that is malformed, or has no counterpart in a chat.
pub(super) fn append(messages: &[Box<RawValue>], conversation: &mut Conversation) -> Result<(), RequestError> {
    for (n, raw) in messages.iter().enumerate() {
        let mut message = Taken::nested(format!("messages[{n}]"), raw)?;
        let role: String = message.need("role")?;
        let at = message.at("content");
        let content = message.raw("content").ok_or_else(|| missing(at.as_str()))?;
        match role.as_str() {
            "user" => user(&at, &content, conversation)?,
            "assistant" => assistant(&at, &content, conversation)?,
            "system" => conversation.system(&text(&at, &content)?),
            _ => {
                let what = "'user' or 'assistant' is expected";
                return Err(field(message.at("role"), "invalid_value", what));
            }
        }
    }
    Ok(())
}

/// A text, or blocks that are text.
///
/// # Errors
/// [`RequestError`] for anything else.
pub(super) fn text(at: &str, raw: &RawValue) -> Result<String, RequestError> {
    let mut parts = Vec::new();
    for block in blocks(at, raw)? {
        parts.extend(part(block)?);
    }
    match plain(&parts, "\n") {
        Some(text) => Ok(text.into_owned()),
        None => Err(unsupported(at, format!("Invalid value for '{at}': text is expected"))),
    }
}

/// The blocks of a content; a text is one of them.
fn blocks(at: &str, raw: &RawValue) -> Result<Vec<Taken>, RequestError> {
    if raw.get().starts_with('"') {
        let block = format!(r#"{{"type":"text","text":{}}}"#, raw.get());
        // A JSON text within JSON is JSON.
        let block = RawValue::from_string(block).map_err(|_| wrong_type(at, "a string is expected"))?;
        return Ok(vec![Taken::nested(at, &block)?]);
    }
    let list = list(at, raw).map_err(|_| wrong_type(at, "a string or an array of content blocks is expected"))?;
    list.iter()
        .enumerate()
        .map(|(n, raw)| Taken::nested(format!("{at}[{n}]"), raw))
        .collect()
}

/// What the user said, and what came of the calls before: chat has the second in messages of their
/// own, which come first.
fn user(at: &str, raw: &RawValue, conversation: &mut Conversation) -> Result<(), RequestError> {
    let mut said = Vec::new();
    let mut results = false;
    for mut block in blocks(at, raw)? {
        let kind: String = block.need("type")?;
        if kind == "tool_result" {
            results = true;
            let id = block.need("tool_use_id")?;
            let at = block.at("content");
            let mut parts = Vec::new();
            if let Some(content) = block.raw("content") {
                for block in blocks(&at, &content)? {
                    parts.extend(part(block)?);
                }
            }
            conversation.result(id, parts);
        } else {
            said.extend(part_of(&kind, block)?);
        }
    }
    if !said.is_empty() || !results {
        conversation.user(said);
    }
    Ok(())
}

fn assistant(at: &str, raw: &RawValue, conversation: &mut Conversation) -> Result<(), RequestError> {
    conversation.begin_assistant();
    for mut block in blocks(at, raw)? {
        let kind: String = block.need("type")?;
        match kind.as_str() {
            "text" => conversation.text_block(&block.need::<String>("text")?),
            "thinking" => conversation.reasoning(&block.need::<String>("thinking")?),
            // Only its maker can read it.
            "redacted_thinking" => {}
            "tool_use" => {
                let at = block.at("input");
                let input = block.raw("input").ok_or_else(|| missing(at.as_str()))?;
                if !input.get().starts_with('{') {
                    return Err(wrong_type(at, "an object is expected"));
                }
                conversation.call(ToolCall::Function {
                    id: block.need("id")?,
                    function: Function {
                        name: block.need("name")?,
                        arguments: input.get().to_owned(),
                    },
                });
            }
            other => return Err(unknown(&block, other)),
        }
    }
    Ok(())
}

fn part(mut block: Taken) -> Result<Vec<Part>, RequestError> {
    let kind: String = block.need("type")?;
    part_of(&kind, block)
}

fn part_of(kind: &str, mut block: Taken) -> Result<Vec<Part>, RequestError> {
    match kind {
        "text" => Ok(vec![Part::text(block.need::<String>("text")?)]),
        "image" => image(&mut block).map(|part| vec![part]),
        "document" => document(&mut block),
        "search_result" => {
            let title: String = block.need("title")?;
            let source: String = block.need("source")?;
            let at = block.at("content");
            let content = block.raw("content").ok_or_else(|| missing(at.as_str()))?;
            Ok(vec![Part::text(format!("{title}\n{source}\n{}", text(&at, &content)?))])
        }
        other => Err(unknown(&block, other)),
    }
}

fn image(block: &mut Taken) -> Result<Part, RequestError> {
    let mut source = source(block)?;
    let kind: String = source.need("type")?;
    match kind.as_str() {
        "base64" => {
            let media: String = source.need("media_type")?;
            let data: String = source.need("data")?;
            Ok(Part::image(format!("data:{media};base64,{data}"), None))
        }
        "url" => Ok(Part::image(source.need::<String>("url")?, None)),
        other => Err(no_source(&source, other)),
    }
}

fn document(block: &mut Taken) -> Result<Vec<Part>, RequestError> {
    let title: Option<String> = block.take("title")?;
    let context: Option<String> = block.take("context")?;
    let mut source = source(block)?;
    let kind: String = source.need("type")?;
    let mut parts: Vec<Part> = Vec::new();
    match kind.as_str() {
        "text" => {
            let head = [title, context].into_iter().flatten().map(|line| line + "\n");
            let text = head.collect::<String>() + &source.need::<String>("data")?;
            parts.push(Part::text(text));
        }
        "base64" => {
            let media: String = source.need("media_type")?;
            let data: String = source.need("data")?;
            parts.extend(context.map(Part::text));
            parts.push(Part::File {
                file: File {
                    file_data: format!("data:{media};base64,{data}"),
                    filename: Some(title.unwrap_or_else(|| "document.pdf".to_owned())),
                },
            });
        }
        "content" => {
            parts.extend(title.into_iter().chain(context).map(Part::text));
            let at = source.at("content");
            let content = source.raw("content").ok_or_else(|| missing(at.as_str()))?;
            for block in blocks(&at, &content)? {
                parts.extend(part(block)?);
            }
        }
        other => return Err(no_source(&source, other)),
    }
    Ok(parts)
}

fn source(block: &mut Taken) -> Result<Taken, RequestError> {
    let at = block.at("source");
    block.object("source")?.ok_or_else(|| missing(at))
}

fn no_source(source: &Taken, kind: &str) -> RequestError {
    unsupported(
        source.at("type"),
        format!(
            "A source of type '{kind}' is not supported here: no files are kept and none are fetched; send the content itself"
        ),
    )
}

fn unknown(block: &Taken, kind: &str) -> RequestError {
    unsupported(
        block.at("type"),
        format!("Content blocks of type '{kind}' are not supported here"),
    )
}
