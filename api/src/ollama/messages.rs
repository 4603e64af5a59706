//! The messages of a chat: Ollama's become those of a chat completion.
//!
//! Ollama's tool calls have objects as arguments and often no ids. A tool's result names its call by id, by the tool's
//! name, or only by its place.

use std::collections::VecDeque;

use serde_json::value::RawValue;

use crate::request::member_reader::{MemberReader, read_each};
use crate::request::{RequestError, field};
use crate::translation::conversation::{Conversation, Function, Message, Part, ToolCall};

/// A tool call without a result.
struct Pending {
    id: String,
    name: String,
}

/// Translates `list`, the member `messages`.
pub(super) fn messages(list: &[Box<RawValue>]) -> Result<Vec<Message>, RequestError> {
    let mut talk = Talk::default();
    read_each("messages", list, |message| talk.message(message))?;
    Ok(talk.conversation.finish())
}

/// The messages of a generation: perhaps the system's, and the prompt.
pub(super) fn prompt(system: &str, text: String, images: &[String]) -> Vec<Message> {
    let mut conversation = Conversation::default();
    if !system.is_empty() {
        conversation.system(system);
    }
    conversation.user(parts(text, images));
    conversation.finish()
}

#[derive(Default)]
struct Talk {
    conversation: Conversation,
    /// Tool calls so far.
    calls: usize,
    pending: VecDeque<Pending>,
}

impl Talk {
    fn message(&mut self, mut message: MemberReader) -> Result<(), RequestError> {
        let role: String = message.need("role")?;
        let text: String = message.take("content")?.unwrap_or_default();
        let images: Vec<String> = message.take("images")?.unwrap_or_default();
        match role.to_ascii_lowercase().as_str() {
            "system" | "developer" => self.conversation.system(&text),
            "user" => self.conversation.user(parts(text, &images)),
            "assistant" => return self.assistant(message, &text),
            "tool" => {
                let id = message.take("tool_call_id")?;
                let name: Option<String> = match message.take("tool_name")? {
                    Some(name) => Some(name),
                    None => message.take("name")?,
                };
                let id = self.answered(id, name.as_deref());
                self.conversation.result(id, parts(text, &images));
            }
            _ => {
                let what = "'system', 'user', 'assistant' or 'tool' is expected";
                return Err(field(message.at("role"), "invalid_value", what));
            }
        }
        Ok(())
    }

    fn assistant(&mut self, mut message: MemberReader, text: &str) -> Result<(), RequestError> {
        self.conversation.begin_assistant();
        let thinking: String = message.take("thinking")?.unwrap_or_default();
        if !thinking.is_empty() {
            self.conversation.reasoning(&thinking);
        }
        let calls = message.list("tool_calls")?.unwrap_or_default();
        if !text.is_empty() || calls.is_empty() {
            self.conversation.text_block(text);
        }
        read_each(&message.at("tool_calls"), &calls, |call| self.call(call))?;
        Ok(())
    }

    fn call(&mut self, mut call: MemberReader) -> Result<(), RequestError> {
        let id: Option<String> = call.take("id")?;
        let at = call.at("function");
        let mut function = MemberReader::nested(at, &call.need_raw("function")?)?;
        let name: String = function.need("name")?;
        let arguments = function.raw("arguments");
        let arguments = arguments.map_or_else(|| "{}".to_owned(), |raw| argument_text(&raw));
        let id = id.filter(|id| !id.is_empty()).unwrap_or_else(|| self.fresh());
        self.pending.push_back(Pending {
            id: id.clone(),
            name: name.clone(),
        });
        let function = Function { name, arguments };
        self.conversation.call(ToolCall { id, function });
        Ok(())
    }

    /// The id of the call of which this is the result.
    fn answered(&mut self, id: Option<String>, name: Option<&str>) -> String {
        let id = id.filter(|id| !id.is_empty());
        let at = match (&id, name) {
            (Some(id), _) => self.pending.iter().position(|call| call.id == *id),
            (None, Some(name)) => self.pending.iter().position(|call| call.name == name),
            (None, None) => None,
        };
        // A name that no call has is no reason to lose the result: results come in the order of their calls.
        let at = at.or((id.is_none() && !self.pending.is_empty()).then_some(0));
        let call = at.and_then(|at| self.pending.remove(at));
        id.or(call.map(|call| call.id)).unwrap_or_else(|| self.fresh())
    }

    fn fresh(&mut self) -> String {
        self.calls += 1;
        format!("call_{}", self.calls)
    }
}

fn parts(text: String, images: &[String]) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::with_capacity(images.len() + 1);
    if !text.is_empty() || images.is_empty() {
        parts.push(Part::text(text));
    }
    parts.extend(images.iter().map(|image| Part::image(image_url(image), None)));
    parts
}

/// Ollama's images are plain base64; engines want a data URL.
fn image_url(image: &str) -> String {
    if ["data:", "http://", "https://"]
        .iter()
        .any(|scheme| image.starts_with(scheme))
    {
        return image.to_owned();
    }
    // The first bytes of a file name its type, and so do the first characters of its base64.
    let kinds = [("/9j/", "jpeg"), ("R0lGOD", "gif"), ("UklGR", "webp"), ("Qk", "bmp")];
    let kind = kinds.iter().find(|(start, _)| image.starts_with(start));
    let kind = kind.map_or("png", |(_, kind)| kind);
    format!("data:image/{kind};base64,{image}")
}

/// The arguments as text. Ollama's clients send an object, others the text of one.
fn argument_text(raw: &RawValue) -> String {
    match serde_json::from_str::<Option<String>>(raw.get()) {
        Ok(text) => text.unwrap_or_default(),
        Err(_) => raw.get().to_owned(),
    }
}
