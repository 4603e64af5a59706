//! Checks a chat completion request. The engine gets the client's own bytes; the check only looks at them.
//!
//! It refuses what every engine would refuse, so that the client hears it at once and with the field's name. Bounds on
//! which engines differ (temperatures, lengths of `stop`, a `max_tokens` of -1, roles) are left to the engines, and
//! unknown fields are ignored.

use std::fmt;

use serde::de::{IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use tokenbus_protocol::{Feature, Features};

use super::style::ChatStyle;
use crate::generation::members::generation_request;
use crate::generation::view::GenerationView;
use crate::request::content::Content;
use crate::request::fields::{Integer, Text, TextOrObject, TypedObjects};
use crate::request::{self, Checked, RequestError, field, missing};

generation_request! {
    struct ChatRequest {
        messages: Option<Messages>,
        #[serde(rename = "max_completion_tokens")]
        _max_completion_tokens: Option<Integer>,
        logprobs: Option<bool>,
        top_logprobs: Option<Integer>,
        tools: Option<TypedObjects>,
        tool_choice: Option<TextOrObject>,
        functions: Option<Vec<IgnoredAny>>,
        function_call: Option<TextOrObject>,
        modalities: Option<Modalities>,
    }
}

/// What the check keeps of all messages, however many there are.
#[derive(Default)]
struct Messages {
    count: usize,
    /// What is wrong with the first wrong message.
    problem: Option<RequestError>,
    needs: Features,
}

impl<'de> Deserialize<'de> for Messages {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = Messages;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a sequence")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Messages, A::Error> {
                let mut messages = Messages::default();
                while messages.problem.is_none() {
                    let Some(message) = seq.next_element::<Message>()? else {
                        return Ok(messages);
                    };
                    messages.needs = messages.needs.or(message.content.needs());
                    messages.problem = message.check(messages.count).err();
                    messages.count += 1;
                }
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(messages)
            }
        }
        d.deserialize_seq(V)
    }
}

/// The kinds of output that are asked for.
#[derive(Clone, Copy)]
struct Modalities {
    audio: bool,
}

impl<'de> Deserialize<'de> for Modalities {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = Modalities;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a sequence")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Modalities, A::Error> {
                let mut audio = false;
                while let Some(modality) = seq.next_element::<String>()? {
                    audio |= modality == "audio";
                }
                Ok(Modalities { audio })
            }
        }
        d.deserialize_seq(V)
    }
}

#[derive(Deserialize)]
#[serde(expecting = "an object with a role and content")]
struct Message {
    role: Option<Text>,
    // Not an `Option`: the type has a null of its own.
    #[serde(default = "no_content")]
    content: Content,
    #[serde(rename = "name")]
    _name: Option<Text>,
}

fn no_content() -> Content {
    Content::Null
}

/// Checks a chat completion request.
///
/// # Errors
/// [`RequestError`] says what is wrong and where.
pub fn check_chat(body: &[u8]) -> Result<Checked, RequestError> {
    Ok(chat_view(body)?.into_checked::<ChatStyle>())
}

pub(crate) fn chat_view(body: &[u8]) -> Result<GenerationView, RequestError> {
    request::parse::<ChatRequest>(body)?.check()
}

impl ChatRequest {
    fn check(self) -> Result<GenerationView, RequestError> {
        let (needs, not_resumable) = (self.needs(), self.not_resumable());
        let include_usage = self.include_usage();
        let model = request::model(self.model)?;
        let messages = self.messages.ok_or_else(|| missing("messages"))?;
        if messages.count == 0 {
            return Err(field("messages", "empty_array", "at least one message is expected"));
        }
        if let Some(problem) = messages.problem {
            return Err(problem);
        }
        Ok(GenerationView {
            model,
            stream: self.stream.unwrap_or(false),
            include_usage,
            choices: request::choices(self.n)?,
            needs,
            not_resumable,
        })
    }

    /// Whether the answer may be a tool call.
    fn may_call(&self) -> bool {
        let tools = self.tools.is_some_and(|tools| tools.0 > 0) && self.tool_choice != Some(TextOrObject::None);
        let functions = self.functions.as_ref().is_some_and(|functions| !functions.is_empty());
        tools || functions && self.function_call != Some(TextOrObject::None)
    }

    fn needs(&self) -> Features {
        let media = self.messages.as_ref().map_or(Features::NONE, |messages| messages.needs);
        let spoken = self.modalities.is_some_and(|modalities| modalities.audio);
        let logprobs = self.logprobs == Some(true) || self.top_logprobs.is_some_and(|top| top.0 > 0.0);
        media
            .with_if(self.may_call(), Feature::Tools)
            .with_if(self.has_schema(), Feature::JsonSchema)
            .with_if(spoken, Feature::Audio)
            .with_if(logprobs, Feature::Logprobs)
    }

    fn not_resumable(&self) -> Option<&'static str> {
        if self.has_format() {
            // The engine's grammar would start again in the middle of the text.
            Some("response_format constrains the output")
        } else if self.has_grammar() {
            Some("a grammar constrains the output")
        } else if self.may_call() {
            // No engine takes half a tool call as the beginning of its answer.
            Some("the answer may be a tool call")
        } else {
            None
        }
    }
}

impl Message {
    fn check(&self, n: usize) -> Result<(), RequestError> {
        let at = |member: &str| format!("messages[{n}].{member}");
        if self.role.is_none() {
            return Err(missing(at("role")));
        }
        match self.content {
            // Engines take a message without content, and roles of which only a model's template knows.
            Content::Null | Content::Text | Content::Parts { problem: None, .. } => Ok(()),
            Content::Parts {
                problem: Some(problem), ..
            } => Err(field(
                at(&format!("content[{}].{}", problem.part, problem.member)),
                "invalid_type",
                &format!("{} is expected", problem.expected),
            )),
        }
    }
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
