//! A request of the Responses API, and the chat request that it becomes.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;
use tokenbus_protocol::RawObject;

use super::echo::Echo;
use super::ids::{REFERENCE, reference, response_of};
use super::input;
use super::item::Reasoning;
use super::kept::{ItemIndex, KnownResponses};
use super::response::ResponseForm;
use super::seal::{self, Seal, SealNeed};
use super::tools::Tools;
use crate::answer::openai_envelope;
use crate::chat::check_chat;
use crate::limits::{MAX_REFERENCES, MAX_REFERRED};
use crate::request::fields::{Integer, Number};
use crate::request::member_reader::{MemberReader, unsupported, wrong_type};
use crate::request::{self, Checked, RequestError, field, missing};
use crate::translation::chat_body::{ChatBody, json};
use crate::translation::conversation::Conversation;
use crate::translation::count::Count;

/// The form in which the number of tokens is told.
pub(crate) const COUNT: Count = Count {
    estimate: 0,
    answer: token_count,
    error: openai_envelope,
};

fn token_count(input_tokens: u64) -> Bytes {
    format!(r#"{{"object":"response.input_tokens","input_tokens":{input_tokens}}}"#).into()
}

/// A request as far as it must be known before what it refers to has been looked up.
#[derive(Debug)]
pub struct ResponseRequest {
    /// Whether the response is to be kept, where the client says so.
    pub store: Option<bool>,
    /// The response whose conversation is gone on with.
    pub previous: Option<String>,
    /// What seals and opens the reasoning that the client carries ([`ResponseRequest::sealing`]). At first, no key.
    pub seal: Seal,
    model: String,
    stream: bool,
    input: Vec<Box<RawValue>>,
    include: Vec<String>,
    members: MemberReader,
}

/// A request that is ready to be called.
#[derive(Debug)]
pub struct TranslatedRequest {
    /// The call.
    pub checked: Checked,
    /// The form of its answer, which is also in [`Checked`].
    pub shape: ResponseForm,
    /// All items of the conversation so far, to be kept with the response.
    pub items: Vec<Box<RawValue>>,
}

/// What other APIs have and this one does not, and what this one has in its place.
const MOVED: [(&str, &str); 7] = [
    ("messages", "input"),
    ("response_format", "text.format"),
    ("max_tokens", "max_output_tokens"),
    ("max_completion_tokens", "max_output_tokens"),
    ("reasoning_effort", "reasoning.effort"),
    ("functions", "tools"),
    ("function_call", "tool_choice"),
];

/// What only the servers of OpenAI can do, where it is asked for.
const HOSTED: [(&str, &str); 5] = [
    (
        "conversation",
        "conversations are not kept here; use 'previous_response_id'",
    ),
    ("prompt", "prompt templates are not kept here; send the prompt itself"),
    ("background", "responses are not generated in the background here"),
    ("moderation", "there is no moderation here"),
    ("context_management", "contexts are not compacted here"),
];

/// What `include` says of a client that carries the reasoning itself.
const CARRIED: &str = "reasoning.encrypted_content";

impl ResponseRequest {
    /// Reads a request.
    ///
    /// # Errors
    /// [`RequestError`] says what is wrong and where.
    pub fn read(body: &[u8]) -> Result<Self, RequestError> {
        let mut members = MemberReader::body(body)?;
        let model = request::model(members.take("model")?)?;
        for (name, place) in MOVED {
            if members.raw(name).is_some() {
                return Err(RequestError::Field {
                    param: Some(name.to_owned()),
                    code: "unsupported_parameter",
                    message: format!(
                        "Unsupported parameter: '{name}'. In the Responses API, this parameter has moved to '{place}'"
                    ),
                });
            }
        }
        for (name, why) in HOSTED {
            let asked = members.raw(name).filter(|raw| !matches!(raw.get(), "false" | "[]"));
            if asked.is_some() {
                return Err(unsupported(name, format!("'{name}' is not supported: {why}")));
            }
        }
        if members.take::<Integer>("n")?.is_some_and(|n| n != Integer(1.0)) {
            return Err(unsupported("n", "'n' is not supported: a response is one answer"));
        }
        let previous: Option<String> = members.take("previous_response_id")?;
        let input = match members.raw("input") {
            None if previous.is_some() => Vec::new(),
            None => return Err(missing("input")),
            Some(raw) => items(&raw)?,
        };
        Ok(Self {
            store: members.take("store")?,
            previous,
            seal: Seal::default(),
            include: members.take("include")?.unwrap_or_default(),
            model,
            stream: members.take("stream")?.unwrap_or(false),
            input,
            members,
        })
    }

    /// The responses that this request refers to, and with what.
    ///
    /// # Errors
    /// [`RequestError`] when there are too many of them, or an id is none.
    pub fn refers_to(&self) -> Result<HashSet<String>, RequestError> {
        let mut ids: HashSet<String> = self.previous.iter().cloned().collect();
        for (n, raw) in self.input.iter().enumerate() {
            if let Some(id) = reference(raw) {
                let at = format!("input[{n}].id");
                let response = response_of(&id).ok_or_else(|| no_item(&at, &id))?;
                ids.insert(response);
            }
        }
        if ids.len() > MAX_REFERENCES {
            let what = format!("items of more than {MAX_REFERENCES} responses are referred to");
            return Err(field("input", "array_above_max_length", &what));
        }
        Ok(ids)
    }

    /// What this request needs of the cluster's keys.
    pub fn sealing(&self) -> SealNeed {
        SealNeed {
            seals: self.include.iter().any(|what| what == CARRIED),
            opens: self.input.iter().filter_map(|item| seal::sealed_by(item)).collect(),
        }
    }

    /// Makes a call of it. `known` has the responses that it refers to, as far as they were found;
    /// `keep` is whether this one will be kept.
    ///
    /// # Errors
    /// [`RequestError`] says what is wrong and where.
    pub fn translate(self, known: &KnownResponses, keep: bool) -> Result<TranslatedRequest, RequestError> {
        let Self {
            previous,
            model,
            stream,
            input,
            seal,
            include,
            mut members,
            ..
        } = self;
        let mut echo = Echo::default();
        let mut body = ChatBody::default();
        body.set("model", &model)?;
        let list = members.list("tools")?.unwrap_or_default();
        let mut tools = Tools::read(&list)?;
        let (conversation, items) = converse(&mut members, &mut echo, (previous, input), known, (&tools, &seal))?;
        body.set("messages", &conversation.finish())?;
        body.set("stream", &stream)?;
        sampling(&mut members, &mut echo, &include, &mut body)?;
        let carried = include.iter().any(|what| what == CARRIED).then_some(seal);
        let summary = text(&mut members, &mut echo, &mut body)?;
        echo.tools(&list);
        calls(&mut members, &mut tools, &mut echo, &mut body)?;
        labels(&mut members, &mut echo, &mut body)?;
        body.pass(&members.rest())?;
        let body = body.finish()?;
        let checked = check_chat(&body)?;
        let shape = ResponseForm::new(
            stream,
            echo.finish(),
            keep,
            tools.origins(),
            Reasoning { summary, carried },
        );
        let checked = Checked {
            ignored: tools.hosted,
            form: Box::new(shape.clone()),
            body: Some(body),
            ..checked
        };
        Ok(TranslatedRequest { checked, shape, items })
    }
}

impl ResponseRequest {
    /// Makes a call of it that counts its tokens: what an engine does with them is not asked.
    ///
    /// # Errors
    /// [`RequestError`] says what is wrong and where.
    pub fn count(self, known: &KnownResponses) -> Result<Checked, RequestError> {
        let Self {
            previous,
            model,
            input,
            seal,
            mut members,
            ..
        } = self;
        let (mut echo, mut body) = (Echo::default(), ChatBody::default());
        body.set("model", &model)?;
        let mut tools = Tools::read(&members.list("tools")?.unwrap_or_default())?;
        let (conversation, _) = converse(&mut members, &mut echo, (previous, input), known, (&tools, &seal))?;
        body.set("messages", &conversation.finish())?;
        calls(&mut members, &mut tools, &mut echo, &mut body)?;
        let body = body.finish()?;
        Ok(Checked {
            body: Some(body.clone()),
            ignored: tools.hosted,
            ..Checked::new(model, COUNT.of(&body))
        })
    }
}

/// The items of `input`: a text is one of them.
fn items(raw: &RawValue) -> Result<Vec<Box<RawValue>>, RequestError> {
    if raw.get().starts_with('"') {
        let message = format!(r#"{{"type":"message","role":"user","content":{}}}"#, raw.get());
        // A JSON text within JSON is JSON.
        return Ok(RawValue::from_string(message).into_iter().collect());
    }
    crate::request::member_reader::list("input", raw)
        .map_err(|_| wrong_type("input", "a string or an array of items is expected"))
}

/// The messages, and all the items that they were made of.
fn converse(
    members: &mut MemberReader,
    echo: &mut Echo,
    (previous, input): (Option<String>, Vec<Box<RawValue>>),
    known: &KnownResponses,
    (tools, seal): (&Tools, &Seal),
) -> Result<(Conversation, Vec<Box<RawValue>>), RequestError> {
    let instructions: Option<String> = members.take("instructions")?;
    let mut conversation = Conversation::default();
    if let Some(instructions) = instructions.as_deref().filter(|text| !text.is_empty()) {
        conversation.system(instructions);
    }
    let mut all = Vec::new();
    if let Some(id) = &previous {
        let kept = known.get(id).ok_or_else(|| no_response(id))?;
        all.extend(kept.conversation());
        input::append(&all, "previous_response_id", (tools, seal), &mut conversation)?;
    }
    seal::verify(&input, seal)?;
    let input = resolve(input, known)?;
    if all.is_empty() && input.is_empty() {
        return Err(field("input", "empty_array", "at least one item is expected"));
    }
    input::append(&input, "input", (tools, seal), &mut conversation)?;
    all.extend(input);
    echo.text("instructions", instructions.as_deref());
    echo.text("previous_response_id", previous.as_deref());
    Ok((conversation, all))
}

/// Puts the items themselves in the place of references to them. Each stored response is read once, and all items
/// together are bounded: a request may refer to the same item many times.
fn resolve(input: Vec<Box<RawValue>>, known: &KnownResponses) -> Result<Vec<Box<RawValue>>, RequestError> {
    let mut indexes: HashMap<String, ItemIndex> = HashMap::new();
    let mut bytes = 0;
    let mut find = |n: usize, raw: Box<RawValue>| {
        let Some(id) = reference(&raw) else { return Ok(raw) };
        let at = || no_item(&format!("input[{n}].id"), &id);
        let response = response_of(&id).ok_or_else(at)?;
        let kept = known.get(&response).ok_or_else(at)?;
        let index = indexes.entry(response).or_insert_with(|| kept.index());
        let item = index.get(&id).ok_or_else(at)?;
        bytes += item.get().len();
        if bytes > MAX_REFERRED {
            return Err(RequestError::TooLarge(MAX_REFERRED));
        }
        Ok(item.clone())
    };
    input.into_iter().enumerate().map(|(n, raw)| find(n, raw)).collect()
}

fn no_response(id: &str) -> RequestError {
    RequestError::Field {
        param: Some("previous_response_id".to_owned()),
        code: "previous_response_not_found",
        message: format!("Previous response with id '{id}' not found"),
    }
}

fn no_item(at: &str, id: &str) -> RequestError {
    RequestError::Field {
        param: Some(at.to_owned()),
        code: "item_not_found",
        message: format!(
            "The item with id '{id}' of this '{REFERENCE}' was not found. Items of responses with 'store': false are not \
             kept; send the item itself"
        ),
    }
}

/// How tokens are chosen, and what is told of them.
fn sampling(
    members: &mut MemberReader,
    echo: &mut Echo,
    include: &[String],
    body: &mut ChatBody,
) -> Result<(), RequestError> {
    for name in ["temperature", "top_p"] {
        let number = members.checked::<Number>(name)?;
        echo.raw(name, number.as_deref());
        body.give(name, number.as_deref())?;
    }
    let tokens = members.checked::<Integer>("max_output_tokens")?;
    if let Some(raw) = &tokens {
        let given = crate::request::member_reader::read("max_output_tokens", raw)?;
        request::at_least_one("max_output_tokens", Some(given))?;
    }
    echo.raw("max_output_tokens", tokens.as_deref());
    // By the name that every engine knows.
    body.give("max_tokens", tokens.as_deref())?;
    let top = members.checked::<Integer>("top_logprobs")?;
    if top.is_some() || include.iter().any(|what| what == "message.output_text.logprobs") {
        body.set("logprobs", &true)?;
        body.give("top_logprobs", top.as_deref())?;
    }
    echo.json("top_logprobs", top.as_ref().map_or("0", |raw| raw.get()));
    Ok(())
}

/// How the text is to be, and how much is to be thought about it. Returns whether the reasoning is to be a summary.
fn text(members: &mut MemberReader, echo: &mut Echo, body: &mut ChatBody) -> Result<bool, RequestError> {
    let mut format = None;
    let mut verbosity: Option<String> = None;
    if let Some(mut text) = members.object("text")? {
        verbosity = text.take("verbosity")?;
        format = text.raw("format");
    }
    if let Some(raw) = &format {
        let mut asked = MemberReader::nested("text.format", raw)?;
        let kind: String = asked.need("type")?;
        match kind.as_str() {
            "text" => {}
            "json_object" => body.set("response_format", &HashMap::from([("type", "json_object")]))?,
            "json_schema" => {
                asked.need::<String>("name").map(drop)?;
                asked.need::<RawObject>("schema").map(drop)?;
                let mut schema = MemberReader::nested("text.format", raw)?.rest();
                let _ = schema.remove("type");
                body.set("response_format", &ResponseFormat::JsonSchema { json_schema: schema })?;
            }
            _ => {
                let what = "'text', 'json_object' or 'json_schema' is expected";
                return Err(field("text.format.type", "invalid_value", what));
            }
        }
    }
    body.give("verbosity", json(verbosity.as_ref())?.as_deref())?;
    if verbosity.is_some() {
        body.note_added("verbosity");
    }
    let format = format.as_ref().map_or(r#"{"type":"text"}"#, |raw| raw.get());
    let mut told = Echo::default();
    told.json("format", format);
    told.text("verbosity", verbosity.as_deref());
    echo.json("text", &format!("{{{}}}", told.finish()));

    let mut reasoning = members.object("reasoning")?;
    let mut asked = |name: &str| match &mut reasoning {
        Some(reasoning) => reasoning.take::<String>(name),
        None => Ok(None),
    };
    let effort = asked("effort")?;
    // The second is the member's older name.
    let summary = asked("summary")?.or(asked("generate_summary")?);
    body.give("reasoning_effort", json(effort.as_ref())?.as_deref())?;
    if effort.is_some() {
        body.note_added("reasoning_effort");
    }
    let mut told = Echo::default();
    told.text("effort", effort.as_deref());
    told.text("summary", summary.as_deref());
    echo.json("reasoning", &format!("{{{}}}", told.finish()));
    Ok(summary.is_some_and(|summary| summary != "none"))
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum ResponseFormat {
    JsonSchema { json_schema: RawObject },
}

/// The tools that are offered, and the choice among them.
fn calls(
    members: &mut MemberReader,
    tools: &mut Tools,
    echo: &mut Echo,
    body: &mut ChatBody,
) -> Result<(), RequestError> {
    let choice = members.raw("tool_choice");
    echo.json("tool_choice", choice.as_ref().map_or("\"auto\"", |raw| raw.get()));
    let choice = choice.map(|raw| tools.choose(&raw)).transpose()?;
    let parallel: Option<bool> = members.take("parallel_tool_calls")?;
    echo.json(
        "parallel_tool_calls",
        if parallel == Some(false) { "false" } else { "true" },
    );
    // Without tools there is nothing to choose, and engines say so.
    if !tools.offered.is_empty() {
        body.set("tools", &tools.offered)?;
        if let Some(choice) = choice {
            body.set("tool_choice", &choice)?;
        }
        if let Some(parallel) = parallel {
            body.set("parallel_tool_calls", &parallel)?;
        }
    }
    Ok(())
}

/// What says something of the request rather than of the answer.
fn labels(members: &mut MemberReader, echo: &mut Echo, body: &mut ChatBody) -> Result<(), RequestError> {
    let metadata = members.checked::<HashMap<String, String>>("metadata")?;
    echo.json("metadata", metadata.as_ref().map_or("{}", |raw| raw.get()));
    let user: Option<String> = members.take("user")?;
    echo.text("user", user.as_deref());
    body.give("user", json(user.as_ref())?.as_deref())?;
    for name in ["safety_identifier", "prompt_cache_key"] {
        let text: Option<String> = members.take(name)?;
        echo.text(name, text.as_deref());
    }
    let truncation: Option<String> = members.take("truncation")?;
    if !matches!(truncation.as_deref(), None | Some("auto" | "disabled")) {
        return Err(field("truncation", "invalid_value", "'auto' or 'disabled' is expected"));
    }
    // What is true of it: engines refuse what is too long for them, and nobody shortens it.
    echo.json("truncation", "\"disabled\"");
    echo.json("background", "false");
    echo.json("service_tier", "\"default\"");
    let limit = members.checked::<Integer>("max_tool_calls")?;
    echo.raw("max_tool_calls", limit.as_deref());
    for name in [
        "stream_options",
        "client_metadata",
        "prompt_cache_options",
        "prompt_cache_retention",
        "background_options",
        "access_programs",
        "image",
    ] {
        let _ = members.raw(name);
    }
    Ok(())
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
