//! Translates messages and their content blocks to chat messages.

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use crate::request::member_reader::{MemberReader, list, read_each, unsupported, wrong_type};
use crate::request::{RequestError, field, missing};
use crate::translation::conversation::{Conversation, File, Function, Part, ToolCall, plain};

/// Appends `messages` to the conversation.
///
/// # Errors
/// [`RequestError`] for a message that is malformed or has no counterpart in a chat.
pub(super) fn append(messages: &[Box<RawValue>], conversation: &mut Conversation) -> Result<(), RequestError> {
    read_each("messages", messages, |message| append_message(message, conversation)).map(drop)
}

fn append_message(mut message: MemberReader, conversation: &mut Conversation) -> Result<(), RequestError> {
    let role: String = message.need("role")?;
    let (at, content) = (message.at("content"), message.need_raw("content")?);
    match role.as_str() {
        "user" => user(&at, &content, conversation),
        "assistant" => assistant(&at, &content, conversation),
        "system" => {
            conversation.system(&text(&at, &content)?);
            Ok(())
        }
        _ => {
            let what = "'user' or 'assistant' is expected";
            Err(field(message.at("role"), "invalid_value", what))
        }
    }
}

/// The text of a string or of text blocks.
///
/// # Errors
/// [`RequestError`] when `raw` is anything else.
pub(super) fn text(at: &str, raw: &RawValue) -> Result<String, RequestError> {
    let parts = parts(at, raw)?;
    match plain(&parts, "\n") {
        Some(text) => Ok(text.into_owned()),
        None => Err(unsupported(at, format!("Invalid value for '{at}': text is expected"))),
    }
}

/// The blocks of a content. A string becomes a text block.
fn blocks(at: &str, raw: &RawValue) -> Result<Vec<MemberReader>, RequestError> {
    if raw.get().starts_with('"') {
        let block = TextBlock {
            r#type: "text",
            text: raw,
        };
        // A struct of strings is always JSON.
        let block = to_raw_value(&block).map_err(|_| wrong_type(at, "a string is expected"))?;
        return Ok(vec![MemberReader::nested(at, &block)?]);
    }
    let list = list(at, raw).map_err(|_| wrong_type(at, "a string or an array of content blocks is expected"))?;
    read_each(at, &list, Ok)
}

#[derive(Serialize)]
struct TextBlock<'a> {
    r#type: &'static str,
    text: &'a RawValue,
}

/// Appends a message of the user. Chat has the results of calls in messages of their own, which come first.
fn user(at: &str, raw: &RawValue, conversation: &mut Conversation) -> Result<(), RequestError> {
    let mut content = Vec::new();
    let mut results = false;
    for mut block in blocks(at, raw)? {
        let kind: String = block.need("type")?;
        if kind == "tool_result" {
            results = true;
            let id = block.need("tool_use_id")?;
            let result = match block.raw("content") {
                Some(content) => parts(&block.at("content"), &content)?,
                None => Vec::new(),
            };
            conversation.result(id, result);
        } else {
            content.extend(part_of(&kind, block)?);
        }
    }
    if !content.is_empty() || !results {
        conversation.user(content);
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
            // Encrypted: only Anthropic can read it.
            "redacted_thinking" => {}
            "tool_use" => {
                let input = block.need_raw("input")?;
                if !input.get().starts_with('{') {
                    return Err(wrong_type(block.at("input"), "an object is expected"));
                }
                conversation.call(ToolCall {
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

/// The parts of all blocks of a content.
fn parts(at: &str, raw: &RawValue) -> Result<Vec<Part>, RequestError> {
    let mut parts = Vec::new();
    for mut block in blocks(at, raw)? {
        let kind: String = block.need("type")?;
        parts.extend(part_of(&kind, block)?);
    }
    Ok(parts)
}

fn part_of(kind: &str, mut block: MemberReader) -> Result<Vec<Part>, RequestError> {
    match kind {
        "text" => Ok(vec![Part::text(block.need::<String>("text")?)]),
        "image" => image(&mut block).map(|part| vec![part]),
        "document" => document(&mut block),
        "search_result" => {
            let title: String = block.need("title")?;
            let source: String = block.need("source")?;
            let content = text(&block.at("content"), &block.need_raw("content")?)?;
            Ok(vec![Part::text(format!("{title}\n{source}\n{content}"))])
        }
        other => Err(unknown(&block, other)),
    }
}

fn image(block: &mut MemberReader) -> Result<Part, RequestError> {
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

fn document(block: &mut MemberReader) -> Result<Vec<Part>, RequestError> {
    let title: Option<String> = block.take("title")?;
    let context: Option<String> = block.take("context")?;
    let mut source = source(block)?;
    let kind: String = source.need("type")?;
    let mut all: Vec<Part> = Vec::new();
    match kind.as_str() {
        "text" => {
            let head = [title, context].into_iter().flatten().map(|line| line + "\n");
            let text = head.collect::<String>() + &source.need::<String>("data")?;
            all.push(Part::text(text));
        }
        "base64" => {
            let media: String = source.need("media_type")?;
            let data: String = source.need("data")?;
            all.extend(context.map(Part::text));
            all.push(Part::File {
                file: File {
                    file_data: format!("data:{media};base64,{data}"),
                    filename: Some(title.unwrap_or_else(|| "document.pdf".to_owned())),
                },
            });
        }
        "content" => {
            let content = source.need_raw("content")?;
            all.extend(title.into_iter().chain(context).map(Part::text));
            all.extend(parts(&source.at("content"), &content)?);
        }
        other => return Err(no_source(&source, other)),
    }
    Ok(all)
}

fn source(block: &mut MemberReader) -> Result<MemberReader, RequestError> {
    let at = block.at("source");
    block.object("source")?.ok_or_else(|| missing(at))
}

fn no_source(source: &MemberReader, kind: &str) -> RequestError {
    unsupported(
        source.at("type"),
        format!(
            "A source of type '{kind}' is not supported here: no files are kept and none are fetched; send the content itself"
        ),
    )
}

fn unknown(block: &MemberReader, kind: &str) -> RequestError {
    unsupported(
        block.at("type"),
        format!("Content blocks of type '{kind}' are not supported here"),
    )
}
