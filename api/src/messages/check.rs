//! Checks a request of the Messages API and translates it to a chat request.

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokenbus_protocol::RawObject;

use super::error::anthropic_envelope;
use super::input::Prompt;
use super::message::{MessageForm, Stops};
use super::thinking;
use super::tools::Tools;
use crate::answer::json::push;
use crate::chat::check_chat;
use crate::request::fields::{Integer, Number};
use crate::request::member_reader::{MemberReader, read, unsupported};
use crate::request::{self, Checked, RequestError, estimated_tokens, field, missing};
use crate::translation::chat_body::{ChatBody, json};
use crate::translation::count::Count;

/// The form of an answer with the number of tokens.
pub(crate) const COUNT: Count = Count {
    estimate: 0,
    answer: token_count,
    error: anthropic_envelope,
};

fn token_count(input_tokens: u64) -> Bytes {
    #[derive(Serialize)]
    struct TokenCount {
        input_tokens: u64,
    }
    let mut out = BytesMut::new();
    push(&mut out, &TokenCount { input_tokens });
    out.freeze()
}

/// Members that ask for something that only Anthropic's servers can do, and why it is not here.
const HOSTED: [(&str, &str); 2] = [
    ("container", "there are no containers here"),
    ("mcp_servers", "no MCP servers are called from here"),
];

/// Members that no engine needs.
const IGNORED: [&str; 9] = [
    "anthropic_beta",
    "cache_control",
    "context_management",
    "diagnostics",
    "inference_geo",
    "service_tier",
    "speed",
    "user_profile_id",
    "workspace_id",
];

/// Checks a request for a message.
///
/// # Errors
/// [`RequestError`] says what is wrong and where.
pub fn check_message(body: &[u8]) -> Result<Checked, RequestError> {
    let mut members = MemberReader::body(body)?;
    let mut chat = ChatBody::default();
    let (_, ignored) = prompt(&mut members, &mut chat)?;
    // Anthropic demands it, and some servers of its API do not: the engine has a bound of its own.
    if let Some(tokens) = members.checked::<Integer>("max_tokens")? {
        request::at_least_one("max_tokens", Some(read("max_tokens", &tokens)?))?;
        chat.set("max_tokens", &tokens)?;
    }
    let stream = members.take("stream")?.unwrap_or(false);
    chat.set("stream", &stream)?;
    for name in ["temperature", "top_p", "top_k"] {
        let number = members.checked::<Number>(name)?;
        chat.give(name, number.as_deref())?;
    }
    let stops: Vec<String> = members.take("stop_sequences")?.unwrap_or_default();
    if !stops.is_empty() {
        chat.set("stop", &stops)?;
    }
    let shown = thinking::thinking(&mut members, &mut chat)?;
    output(&mut members, &mut chat)?;
    if let Some(mut metadata) = members.object("metadata")? {
        let user: Option<String> = metadata.take("user_id")?;
        chat.give("user", json(user.as_ref())?.as_deref())?;
        if user.is_some() {
            chat.note_added("user");
        }
    }
    if members.take::<Integer>("n")?.is_some_and(|n| n != Integer(1.0)) {
        return Err(unsupported("n", "'n' is not supported: a message is one answer"));
    }
    for name in ["stream_options", "functions", "function_call"] {
        if members.raw(name).is_some() {
            let what = format!("'{name}' is not a parameter of the Messages API");
            return Err(unsupported(name, what));
        }
    }
    chat.pass(&members.rest())?;
    let body = chat.finish()?;
    let checked = check_chat(&body)?;
    Ok(Checked {
        form: Box::new(MessageForm::new(
            stream,
            estimated_tokens(&body),
            Stops::new(stops),
            shown,
        )),
        body: Some(body),
        ignored,
        ..checked
    })
}

/// Checks a request for the number of its tokens. Members that say how to generate are not read.
///
/// # Errors
/// [`RequestError`] says what is wrong and where.
pub fn check_message_count(body: &[u8]) -> Result<Checked, RequestError> {
    let mut members = MemberReader::body(body)?;
    let mut chat = ChatBody::default();
    let (model, ignored) = prompt(&mut members, &mut chat)?;
    thinking::template(&mut members, &mut chat)?;
    let body = chat.finish()?;
    Ok(Checked {
        ignored,
        body: Some(body.clone()),
        ..Checked::new(model, COUNT.of(&body))
    })
}

/// Translates the prompt: the model, the messages and the tools. Returns the model's name, and the names of the tools
/// that are left out.
fn prompt(members: &mut MemberReader, chat: &mut ChatBody) -> Result<(String, Vec<String>), RequestError> {
    let model = request::model(members.take("model")?)?;
    chat.set("model", &model)?;
    for (name, why) in HOSTED {
        let asked = members.raw(name).filter(|raw| raw.get() != "[]");
        if asked.is_some() {
            return Err(unsupported(name, format!("'{name}' is not supported: {why}")));
        }
    }
    for name in IGNORED {
        let _ = members.raw(name);
    }
    let mut prompt = Prompt::default();
    if let Some(system) = members.raw("system") {
        prompt.system(&system)?;
    }
    let messages = members.list("messages")?.ok_or_else(|| missing("messages"))?;
    if messages.is_empty() {
        return Err(field("messages", "empty_array", "at least one message is expected"));
    }
    prompt.messages(&messages)?;
    if messages.last().is_some_and(|last| is_begun(last)) {
        // A template that thinks does not take a begun answer. `thinking`, where given, takes precedence.
        thinking::off(chat)?;
    }
    chat.set("messages", &prompt.conversation.finish())?;
    let list = members.list("tools")?.unwrap_or_default();
    let tools = Tools::read(&list)?;
    let ignored = tools.hosted();
    let (offered, choice) = tools.offer(prompt.changes, members.object("tool_choice")?)?;
    // Engines refuse a choice without tools.
    if !offered.is_empty() {
        chat.set("tools", &offered)?;
        if let Some(choice) = choice {
            chat.set("tool_choice", &choice.choice)?;
            if choice.one_at_a_time {
                chat.set("parallel_tool_calls", &false)?;
            }
        }
    }
    Ok((model, ignored))
}

/// Whether a last message begins the answer.
fn is_begun(message: &RawValue) -> bool {
    #[derive(Deserialize)]
    struct Message<'a> {
        #[serde(borrow)]
        role: Cow<'a, str>,
    }
    serde_json::from_str::<Message<'_>>(message.get()).is_ok_and(|message| message.role == "assistant")
}

/// Translates the answer's format and the effort for it.
fn output(members: &mut MemberReader, chat: &mut ChatBody) -> Result<(), RequestError> {
    let mut config = members.object("output_config")?;
    if let Some(config) = &mut config {
        let effort: Option<String> = config.take("effort")?;
        // Engines agree on the efforts of chats only up to "high".
        let effort = effort.map(|effort| match effort.as_str() {
            "xhigh" | "max" => "high".to_owned(),
            _ => effort,
        });
        chat.give("reasoning_effort", json(effort.as_ref())?.as_deref())?;
        if effort.is_some() {
            chat.note_added("reasoning_effort");
        }
    }
    // `output_format` is the name of the API's beta version.
    let format = match config
        .as_mut()
        .map(|config| config.object("format"))
        .transpose()?
        .flatten()
    {
        Some(format) => Some(format),
        None => members.object("output_format")?,
    };
    let Some(mut format) = format else { return Ok(()) };
    let kind: String = format.need("type")?;
    if kind != "json_schema" {
        return Err(field(format.at("type"), "invalid_value", "'json_schema' is expected"));
    }
    let at = format.at("schema");
    let schema = format.need_raw("schema")?;
    read::<RawObject>(&at, &schema)?;
    let json_schema = JsonSchema {
        name: "output",
        schema,
        strict: true,
    };
    chat.set("response_format", &ResponseFormat::JsonSchema { json_schema })
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum ResponseFormat {
    JsonSchema { json_schema: JsonSchema },
}

#[derive(Serialize)]
struct JsonSchema {
    name: &'static str,
    schema: Box<RawValue>,
    strict: bool,
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "agent_tests.rs"]
mod agent_tests;
