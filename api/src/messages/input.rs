//! Translates messages and their content blocks to chat messages.

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use super::tools::{self, Change};
use crate::request::member_reader::{MemberReader, list, read_each, unsupported, wrong_type};
use crate::request::{RequestError, field, missing};
use crate::translation::conversation::{Conversation, File, Function, Part, ToolCall};

/// What the messages say.
#[derive(Debug, Default)]
pub(super) struct Prompt {
    pub(super) conversation: Conversation,
    /// What they say of the tools, in order.
    pub(super) changes: Vec<Change>,
}

impl Prompt {
    /// Adds the `system` of the request.
    ///
    /// # Errors
    /// [`RequestError`] when it is no text.
    pub(super) fn system(&mut self, raw: &RawValue) -> Result<(), RequestError> {
        let texts = texts("system", raw, &mut self.changes)?;
        let texts = texts.iter().filter_map(|text| without_billing(text));
        let text = texts.collect::<Vec<&str>>().join("\n");
        if !text.is_empty() {
            self.conversation.system(&text);
        }
        Ok(())
    }

    /// Adds `messages`.
    ///
    /// # Errors
    /// [`RequestError`] for a message that is malformed or has no counterpart in a chat.
    pub(super) fn messages(&mut self, messages: &[Box<RawValue>]) -> Result<(), RequestError> {
        read_each("messages", messages, |message| self.message(message)).map(drop)
    }

    fn message(&mut self, mut message: MemberReader) -> Result<(), RequestError> {
        let role: String = message.need("role")?;
        let (at, content) = (message.at("content"), message.need_raw("content")?);
        match role.as_str() {
            "user" => user(&at, &content, self),
            "assistant" => assistant(&at, &content, self),
            "system" => {
                let text = texts(&at, &content, &mut self.changes)?.join("\n");
                if !text.is_empty() {
                    self.conversation.system(&text);
                }
                Ok(())
            }
            _ => {
                let what = "'user', 'assistant' or 'system' is expected";
                Err(field(message.at("role"), "invalid_value", what))
            }
        }
    }
}

/// The line with which Claude Code begins its prompts. It changes with each request, so no engine could find the rest of
/// the prompt in its cache.
const BILLING: &str = "x-anthropic-billing-header:";

/// `text` without a billing line at its beginning; `None` if nothing is left.
fn without_billing(text: &str) -> Option<&str> {
    if !text.trim_start().starts_with(BILLING) {
        return Some(text);
    }
    let rest = text
        .trim_start()
        .split_once('\n')
        .map(|(_, rest)| rest.trim_start_matches(['\r', '\n']));
    rest.filter(|rest| !rest.is_empty())
}

/// The texts of a string or of text blocks.
fn texts(at: &str, raw: &RawValue, changes: &mut Vec<Change>) -> Result<Vec<String>, RequestError> {
    let parts = parts(at, raw, changes)?.into_iter();
    let texts: Option<Vec<String>> = parts
        .map(|part| match part {
            Part::Text { text } => Some(text),
            _ => None,
        })
        .collect();
    texts.ok_or_else(|| unsupported(at, format!("Invalid value for '{at}': text is expected")))
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
fn user(at: &str, raw: &RawValue, prompt: &mut Prompt) -> Result<(), RequestError> {
    let mut content = Vec::new();
    let mut silent = false;
    for mut block in blocks(at, raw)? {
        let kind: String = block.need("type")?;
        if kind == "tool_result" {
            silent = true;
            let id = block.need("tool_use_id")?;
            let result = match block.raw("content") {
                Some(content) => result(&block.at("content"), &content, &mut prompt.changes)?,
                None => Vec::new(),
            };
            prompt.conversation.result(id, result);
        } else {
            silent |= CHANGES.contains(&kind.as_str());
            content.extend(part_of(&kind, block, &mut prompt.changes)?);
        }
    }
    if !content.is_empty() || !silent {
        prompt.conversation.user(content);
    }
    Ok(())
}

fn assistant(at: &str, raw: &RawValue, prompt: &mut Prompt) -> Result<(), RequestError> {
    let conversation = &mut prompt.conversation;
    conversation.begin_assistant();
    for mut block in blocks(at, raw)? {
        let kind: String = block.need("type")?;
        match kind.as_str() {
            "text" => conversation.text_block(&block.need::<String>("text")?),
            "thinking" => conversation.reasoning(&block.need::<String>("thinking")?),
            // Encrypted: only Anthropic can read it.
            "redacted_thinking" => {}
            // The calls of Anthropic's servers have their results behind them.
            "tool_use" | "server_tool_use" | "mcp_tool_use" => {
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
            other if other.ends_with("_tool_result") => {
                let id = block.need("tool_use_id")?;
                let told = block
                    .raw("content")
                    .map(|content| hosted(&content, &mut prompt.changes));
                conversation.result(id, told.into_iter().flatten().collect());
            }
            // What the model need not know to go on.
            _ => {
                if let Some(text) = text_in(&mut block) {
                    conversation.text_block(&text);
                }
            }
        }
    }
    Ok(())
}

/// The parts of a tool's result. A block that nobody here knows stays as it is.
fn result(at: &str, raw: &RawValue, changes: &mut Vec<Change>) -> Result<Vec<Part>, RequestError> {
    let mut parts = Vec::new();
    for mut block in blocks(at, raw)? {
        let kind: String = block.need("type")?;
        if KNOWN.contains(&kind.as_str()) {
            parts.extend(part_of(&kind, block, changes)?);
        } else {
            parts.extend(unknown_part(block));
        }
    }
    Ok(parts)
}

/// The parts of a result that one of Anthropic's servers gave: a block or a list of blocks.
fn hosted(raw: &RawValue, changes: &mut Vec<Change>) -> Vec<Part> {
    let list = list("content", raw).unwrap_or_else(|_| vec![raw.to_owned()]);
    let mut parts = Vec::new();
    for raw in &list {
        let Ok(mut block) = MemberReader::nested("content", raw) else {
            parts.push(Part::text(raw.get()));
            continue;
        };
        for raw in block.list("tool_references").ok().flatten().unwrap_or_default() {
            if let Ok(mut reference) = MemberReader::nested("tool_references", &raw)
                && let Ok(name) = reference.need::<String>("tool_name")
            {
                parts.push(refer(name, changes));
            }
        }
        let _ = block.raw("encrypted_content");
        parts.extend(unknown_part(block));
    }
    parts
}

/// A block as text: its own text, else its members; `None` if there are none.
fn unknown_part(mut block: MemberReader) -> Option<Part> {
    if let Some(text) = text_in(&mut block) {
        return Some(Part::text(text));
    }
    let members = block.rest();
    let alone = members.is_empty() || members.iter().all(|(name, _)| name == "type");
    let json = members.to_json().ok().filter(|_| !alone)?;
    Some(Part::text(json.get()))
}

/// The text of a block of any type.
fn text_in(block: &mut MemberReader) -> Option<String> {
    let member = ["text", "content"].into_iter().find_map(|name| block.raw_text(name));
    member.filter(|text| !text.is_empty())
}

/// Blocks that say what tools there are.
const CHANGES: [&str; 2] = ["tool_addition", "tool_removal"];

/// Blocks that [`part_of`] knows.
const KNOWN: [&str; 7] = [
    "text",
    "image",
    "document",
    "search_result",
    "tool_reference",
    "tool_addition",
    "tool_removal",
];

/// The parts of all blocks of a content.
fn parts(at: &str, raw: &RawValue, changes: &mut Vec<Change>) -> Result<Vec<Part>, RequestError> {
    let mut parts = Vec::new();
    for mut block in blocks(at, raw)? {
        let kind: String = block.need("type")?;
        parts.extend(part_of(&kind, block, changes)?);
    }
    Ok(parts)
}

fn part_of(kind: &str, mut block: MemberReader, changes: &mut Vec<Change>) -> Result<Vec<Part>, RequestError> {
    match kind {
        "text" => Ok(vec![Part::text(block.need::<String>("text")?)]),
        "image" => image(&mut block).map(|part| vec![part]),
        "document" => document(&mut block, changes),
        "search_result" => {
            let title: String = block.need("title")?;
            let source: String = block.need("source")?;
            let content = texts(&block.at("content"), &block.need_raw("content")?, changes)?.join("\n");
            Ok(vec![Part::text(format!("{title}\n{source}\n{content}"))])
        }
        "tool_reference" => Ok(vec![refer(block.need("tool_name")?, changes)]),
        "tool_addition" | "tool_removal" => {
            changes.extend(change(kind, &mut block)?);
            Ok(Vec::new())
        }
        other => match text_in(&mut block) {
            Some(text) => Ok(vec![Part::text(text)]),
            None => Err(unknown(&block, other)),
        },
    }
}

/// A tool that is offered from here on, in words: the model sees that its search found something.
fn refer(name: String, changes: &mut Vec<Change>) -> Part {
    let part = Part::text(format!("The tool {name} is available now."));
    changes.push(Change::Refer(name));
    part
}

/// What a `tool_addition` or `tool_removal` says; `None` for the tools of a server that nobody here calls.
fn change(kind: &str, block: &mut MemberReader) -> Result<Option<Change>, RequestError> {
    let at = block.at("tool");
    let mut tool = block.object("tool")?.ok_or_else(|| missing(at))?;
    let target: String = tool.need("type")?;
    match target.as_str() {
        "tool_reference" => {
            let name = tool.need("name")?;
            let removed = kind == "tool_removal";
            Ok(Some(if removed {
                Change::Remove(name)
            } else {
                Change::Refer(name)
            }))
        }
        "tool_definition" => {
            let at = tool.at("definition");
            let definition = tool.object("definition")?.ok_or_else(|| missing(at))?;
            Ok(Some(Change::Define(Box::new(tools::own(definition)?))))
        }
        _ => Ok(None),
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

fn document(block: &mut MemberReader, changes: &mut Vec<Change>) -> Result<Vec<Part>, RequestError> {
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
            all.extend(parts(&source.at("content"), &content, changes)?);
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
