//! Checking a chat completion request. The client's bytes are what travels; this is a view of them.
//!
//! Checked is what every engine would refuse, so that the client hears it at once and with the
//! field's name. Bounds on which engines differ (temperatures, lengths of `stop`) are left to
//! them, and fields that are not named here are passed over.

use serde::Deserialize;
use serde::de::IgnoredAny;
use tokenbus_protocol::{Feature, Features};

use crate::Identity;
use crate::answer::form::{Collect, Encoder, Form};
use crate::generation::collector::Collector;
use crate::generation::encoder::ChunkEncoder;
use crate::request::content::Content;
use crate::request::fields::{
    LogitBias, Number, ResponseFormat, Role, StreamOptions, Text, TextOrObject, Texts, TypedObjects, Whole,
};
use crate::request::{self, Checked, RequestError, field, missing};

/// What tokenbus itself needs to know of a chat request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChatView {
    /// The model; not empty, at most `MAX_MODEL_NAME` bytes.
    pub model: String,
    /// Whether the answer is streamed.
    pub stream: bool,
    /// Whether a streamed answer ends with its usage.
    pub include_usage: bool,
    /// Choices asked for, 1 to `MAX_CHOICES`.
    pub n: u32,
    /// What the engine must be able to do.
    pub needs: Features,
    /// Why the answer cannot be continued by another engine, if so.
    pub not_resumable: Option<&'static str>,
}

impl From<ChatView> for Checked {
    fn from(view: ChatView) -> Self {
        Self {
            not_resumable: view.not_resumable,
            needs: view.needs,
            ..Self::new(view.model.clone(), view)
        }
    }
}

impl Form for ChatView {
    fn is_stream(&self) -> bool {
        self.stream
    }

    fn encoder(&self, identity: Identity) -> Box<dyn Encoder> {
        Box::new(ChunkEncoder::new(identity, self.include_usage))
    }

    fn collector(&self, identity: Identity) -> Box<dyn Collect> {
        Box::new(Collector::new(identity))
    }
}

/// The members that are looked at. `Option` takes a null as absent, as OpenAI does.
#[derive(Deserialize)]
#[serde(expecting = "an object")]
struct ChatRequest {
    model: Option<String>,
    messages: Option<Vec<Message>>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    n: Option<Whole>,
    max_tokens: Option<Whole>,
    max_completion_tokens: Option<Whole>,
    #[serde(rename = "temperature")]
    _temperature: Option<Number>,
    #[serde(rename = "top_p")]
    _top_p: Option<Number>,
    #[serde(rename = "presence_penalty")]
    _presence_penalty: Option<Number>,
    #[serde(rename = "frequency_penalty")]
    _frequency_penalty: Option<Number>,
    #[serde(rename = "repetition_penalty")]
    _repetition_penalty: Option<Number>,
    #[serde(rename = "stop")]
    _stop: Option<Texts>,
    #[serde(rename = "seed")]
    _seed: Option<Whole>,
    logprobs: Option<bool>,
    top_logprobs: Option<Whole>,
    #[serde(rename = "logit_bias")]
    _logit_bias: Option<LogitBias>,
    tools: Option<TypedObjects>,
    tool_choice: Option<TextOrObject>,
    functions: Option<Vec<IgnoredAny>>,
    function_call: Option<TextOrObject>,
    modalities: Option<Vec<String>>,
    response_format: Option<ResponseFormat>,
    guided_json: Option<IgnoredAny>,
    guided_regex: Option<IgnoredAny>,
    guided_choice: Option<IgnoredAny>,
    guided_grammar: Option<IgnoredAny>,
    structured_outputs: Option<IgnoredAny>,
    grammar: Option<IgnoredAny>,
    json_schema: Option<IgnoredAny>,
    regex: Option<IgnoredAny>,
    ebnf: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(expecting = "an object with a role and content")]
struct Message {
    role: Option<Role>,
    // Absent is told from null by the type's own null.
    #[serde(default = "no_content")]
    content: Content,
    #[serde(rename = "name")]
    _name: Option<Text>,
}

fn no_content() -> Content {
    Content::Null
}

/// Checks `body`.
///
/// # Errors
/// [`RequestError`] says what is wrong and where.
pub fn check(body: &[u8]) -> Result<ChatView, RequestError> {
    request::parse::<ChatRequest>(body)?.check()
}

impl ChatRequest {
    fn check(self) -> Result<ChatView, RequestError> {
        let (needs, not_resumable) = (self.needs(), self.not_resumable());
        let model = request::model(self.model)?;
        let messages = self.messages.ok_or_else(|| missing("messages"))?;
        if messages.is_empty() {
            return Err(field("messages", "empty_array", "at least one message is expected"));
        }
        for (n, message) in messages.iter().enumerate() {
            message.check(n)?;
        }
        request::at_least_one("max_tokens", self.max_tokens)?;
        request::at_least_one("max_completion_tokens", self.max_completion_tokens)?;
        Ok(ChatView {
            model,
            stream: self.stream.unwrap_or(false),
            include_usage: self.stream_options.is_some_and(|options| options.include_usage()),
            n: request::choices(self.n)?,
            needs,
            not_resumable,
        })
    }

    /// Whether the answer may be a call of a tool.
    fn may_call(&self) -> bool {
        let tools = self.tools.is_some_and(|tools| tools.0 > 0) && self.tool_choice != Some(TextOrObject::None);
        let functions = self.functions.as_ref().is_some_and(|functions| !functions.is_empty());
        tools || functions && self.function_call != Some(TextOrObject::None)
    }

    fn needs(&self) -> Features {
        let messages = self.messages.iter().flatten();
        let media = messages.fold(Features::NONE, |needs, message| needs.or(message.content.needs()));
        let spoken = self.modalities.iter().flatten().any(|modality| modality == "audio");
        let schema = self.response_format.as_ref().is_some_and(ResponseFormat::is_schema);
        let logprobs = self.logprobs == Some(true) || self.top_logprobs.is_some_and(|top| top.0 > 0.0);
        media
            .with_if(self.may_call(), Feature::Tools)
            .with_if(schema, Feature::JsonSchema)
            .with_if(spoken, Feature::Audio)
            .with_if(logprobs, Feature::Logprobs)
    }

    fn not_resumable(&self) -> Option<&'static str> {
        let format = self.response_format.as_ref().is_some_and(|format| !format.is_text());
        let grammar = [
            &self.guided_json,
            &self.guided_regex,
            &self.guided_choice,
            &self.guided_grammar,
            &self.structured_outputs,
            &self.grammar,
            &self.json_schema,
            &self.regex,
            &self.ebnf,
        ];
        if format {
            // The engine's grammar would begin anew in the middle of the text.
            Some("response_format constrains the output")
        } else if grammar.iter().any(|field| field.is_some()) {
            Some("a grammar constrains the output")
        } else if self.may_call() {
            // Half a tool call cannot be handed to an engine as text that it has said.
            Some("the answer may be a tool call")
        } else {
            None
        }
    }
}

impl Message {
    fn check(&self, n: usize) -> Result<(), RequestError> {
        let at = |member: &str| format!("messages[{n}].{member}");
        let null_is_fine = match &self.role {
            None => return Err(missing(at("role"))),
            Some(Role::Unknown(role)) => {
                let what = format!(
                    "the role {role:?} is none of 'system', 'developer', 'user', 'assistant', 'tool' and 'function'"
                );
                return Err(field(at("role"), "invalid_value", &what));
            }
            Some(Role::Assistant | Role::Function) => true,
            Some(Role::Other) => false,
        };
        match self.content {
            Content::Null if null_is_fine => Ok(()),
            Content::Null => Err(field(
                at("content"),
                "invalid_type",
                "a string or an array of content parts is expected",
            )),
            Content::Text | Content::Parts { problem: None, .. } => Ok(()),
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
