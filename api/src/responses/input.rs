//! The input of a response: items that become chat messages.

use serde_json::value::RawValue;

use super::free_text;
use super::hosted;
use super::seal::Seal;
use super::tools::Tools;
use crate::request::member_reader::{MemberReader, list, read, unsupported, wrong_type};
use crate::request::{RequestError, field, missing};
use crate::translation::conversation::{Conversation, File, Function, Part, ToolCall, plain};

/// Appends what `items` say. `path` is where they stand: `input`. Calls get the names by which an engine knows the
/// tools.
///
/// # Errors
/// [`RequestError`] for one that is malformed, or has no counterpart in a chat.
pub(super) fn append(
    items: &[Box<RawValue>],
    path: &str,
    (tools, seal): (&Tools, &Seal),
    conversation: &mut Conversation,
) -> Result<(), RequestError> {
    for (n, raw) in items.iter().enumerate() {
        let reader = MemberReader::nested(format!("{path}[{n}]"), raw)?;
        item(reader, (tools, seal), conversation)?;
    }
    Ok(())
}

fn item(
    mut item: MemberReader,
    (tools, seal): (&Tools, &Seal),
    conversation: &mut Conversation,
) -> Result<(), RequestError> {
    let kind: Option<String> = item.take("type")?;
    match kind.as_deref() {
        None | Some("message") => message(item, conversation),
        Some(kind @ ("function_call" | "custom_tool_call")) => {
            let id = item.need("call_id")?;
            let namespace: Option<String> = item.take("namespace")?;
            let name = tools.engine_name(namespace.as_deref(), item.need("name")?);
            let arguments = match kind {
                "function_call" => item.need("arguments")?,
                _ => free_text::arguments(&item.need::<String>("input")?)?,
            };
            call(conversation, id, name, arguments);
            Ok(())
        }
        Some("function_call_output" | "custom_tool_call_output") => {
            let id = item.need("call_id")?;
            let at = item.at("output");
            let output = item.raw("output").ok_or_else(|| missing(at.as_str()))?;
            conversation.result(id, parts(&at, &output)?);
            Ok(())
        }
        Some("reasoning") => reasoning(item, seal, conversation),
        Some(kind) if hosted::is_told(kind) => hosted::append(kind, item, conversation),
        Some(other) => Err(unsupported(
            item.at("type"),
            format!("Items of type '{other}' are not supported here: only the servers of OpenAI have what they are of"),
        )),
    }
}

pub(super) fn call(conversation: &mut Conversation, id: String, name: String, arguments: String) {
    let function = Function { name, arguments };
    conversation.call(ToolCall { id, function });
}

fn message(mut item: MemberReader, conversation: &mut Conversation) -> Result<(), RequestError> {
    let role: String = item.need("role")?;
    let at = item.at("content");
    let content = item.raw("content").ok_or_else(|| missing(at.as_str()))?;
    let parts = parts(&at, &content)?;
    match role.as_str() {
        "user" => conversation.user(parts),
        "assistant" => conversation.assistant_item(&text_only(&parts, &at, "")?),
        // Chat templates know the system's role under its old name.
        "system" | "developer" => conversation.system(&text_only(&parts, &at, "\n")?),
        _ => {
            let what = "'user', 'assistant', 'system' or 'developer' is expected";
            return Err(field(item.at("role"), "invalid_value", what));
        }
    }
    Ok(())
}

fn text_only(parts: &[Part], at: &str, between: &str) -> Result<String, RequestError> {
    match plain(parts, between) {
        Some(text) => Ok(text.into_owned()),
        None => Err(unsupported(
            at,
            format!("Invalid value for '{at}': a message of this role is text"),
        )),
    }
}

fn reasoning(mut item: MemberReader, seal: &Seal, conversation: &mut Conversation) -> Result<(), RequestError> {
    // The text itself where it is there, else what was told of it. Stored items may have a content that no key opens
    // any more; that of a client was verified.
    let content = texts(&mut item, "content")?;
    let carried: Option<String> = item.take("encrypted_content")?;
    let summary = texts(&mut item, "summary")?;
    let carried = carried.and_then(|content| seal.unpack(&content));
    if let Some(text) = content.or(carried).or(summary) {
        conversation.reasoning(&text);
    }
    Ok(())
}

/// The texts of a list of parts; `None` if there are none.
fn texts(item: &mut MemberReader, name: &str) -> Result<Option<String>, RequestError> {
    let mut texts = Vec::new();
    for (n, raw) in item.list(name)?.unwrap_or_default().iter().enumerate() {
        let mut part = MemberReader::nested(format!("{}[{n}]", item.at(name)), raw)?;
        texts.push(part.need::<String>("text")?);
    }
    Ok((!texts.is_empty()).then(|| texts.join("\n")))
}

/// A content or an output: a text or a list of parts.
pub(super) fn parts(at: &str, raw: &RawValue) -> Result<Vec<Part>, RequestError> {
    if raw.get().starts_with('"') {
        return Ok(vec![Part::text(read::<String>(at, raw)?)]);
    }
    let parts = list(at, raw).map_err(|_| wrong_type(at, "a string or an array of content parts is expected"))?;
    parts
        .iter()
        .enumerate()
        .map(|(n, raw)| part(MemberReader::nested(format!("{at}[{n}]"), raw)?))
        .collect()
}

fn part(mut part: MemberReader) -> Result<Part, RequestError> {
    let kind: String = part.need("type")?;
    match kind.as_str() {
        "input_text" | "output_text" | "text" => Ok(Part::text(part.need::<String>("text")?)),
        "refusal" => Ok(Part::text(part.need::<String>("refusal")?)),
        "input_image" => {
            no_file_id(&mut part)?;
            Ok(Part::image(part.need::<String>("image_url")?, part.take("detail")?))
        }
        "input_file" => {
            no_file_id(&mut part)?;
            if part.raw("file_url").is_some() {
                let what = "Files are not fetched here: send the file itself in 'file_data'";
                return Err(unsupported(part.at("file_url"), what));
            }
            Ok(Part::File {
                file: File {
                    file_data: part.need("file_data")?,
                    filename: part.take("filename")?,
                },
            })
        }
        "input_audio" => match part.raw("input_audio") {
            Some(input_audio) => Ok(Part::InputAudio { input_audio }),
            None => Err(missing(part.at("input_audio"))),
        },
        other => Err(unsupported(
            part.at("type"),
            format!("Content parts of type '{other}' are not supported"),
        )),
    }
}

fn no_file_id(part: &mut MemberReader) -> Result<(), RequestError> {
    match part.raw("file_id") {
        None => Ok(()),
        Some(_) => Err(unsupported(
            part.at("file_id"),
            "No files are kept here: send the content itself instead of a 'file_id'",
        )),
    }
}
