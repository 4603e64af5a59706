//! Checking a chat completion request. The client's bytes are what travels; this is a view of them.
//!
//! Checked is what every engine would refuse, so that the client hears it at once and with the
//! field's name. Bounds on which engines differ (temperatures, lengths of `stop`) are left to
//! them, and fields that are not named here are passed over.

use serde::Deserialize;
use serde::de::IgnoredAny;
use tokenbus_protocol::limits::MAX_MODEL_NAME;

use super::Identity;
use super::chunk::ChunkEncoder;
use super::collect::Collector;
use super::fields::{Content, LogitBias, Number, Role, Text, TextOrObject, Texts, TypedObjects, Whole};
use super::form::{Collect, Encoder, Form};
use super::limits::MAX_CHOICES;

/// What tokenbus itself needs to know of a chat request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChatView {
    /// The model; not empty, at most [`MAX_MODEL_NAME`] bytes.
    pub model: String,
    /// Whether the answer is streamed.
    pub stream: bool,
    /// Whether a streamed answer ends with its usage.
    pub include_usage: bool,
    /// Choices asked for, 1 to [`MAX_CHOICES`].
    pub n: u32,
    /// Why the answer cannot be continued by another engine, if so.
    pub not_resumable: Option<&'static str>,
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

/// Why a body is no chat request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Not UTF-8, which JSON is by definition.
    #[error("The body of your request is not valid JSON: it is not UTF-8 (byte {0} is the first wrong one)")]
    NotUtf8(usize),
    /// Not JSON.
    #[error("We could not parse the JSON body of your request: {message} (line {line}, column {column})")]
    Syntax {
        /// What the parser says.
        message: String,
        /// From 1.
        line: usize,
        /// From 1; 0 is the line's end.
        column: usize,
    },
    /// JSON, but no object.
    #[error("The body of your request must be a JSON object")]
    NotAnObject,
    /// A field is missing or wrong.
    #[error("{message}")]
    Field {
        /// Path of the field: `messages[3].content`; `None` when it is the whole body.
        param: Option<String>,
        /// OpenAI's code for it.
        code: &'static str,
        /// A sentence with the path in it.
        message: String,
    },
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
    #[serde(rename = "logprobs")]
    _logprobs: Option<bool>,
    #[serde(rename = "top_logprobs")]
    _top_logprobs: Option<Whole>,
    #[serde(rename = "logit_bias")]
    _logit_bias: Option<LogitBias>,
    tools: Option<TypedObjects>,
    #[serde(rename = "tool_choice")]
    _tool_choice: Option<TextOrObject>,
    functions: Option<IgnoredAny>,
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
#[serde(expecting = "an object")]
struct StreamOptions {
    include_usage: Option<bool>,
}

#[derive(Deserialize)]
#[serde(expecting = "an object with a type")]
struct ResponseFormat {
    r#type: String,
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
    let text = std::str::from_utf8(body).map_err(|error| RequestError::NotUtf8(error.valid_up_to()))?;
    let request = parse(text)?;
    request.check()
}

fn parse(text: &str) -> Result<ChatRequest, RequestError> {
    // Paths cost an allocation per member, so they are looked for only when there is an error.
    match serde_json::from_str(text) {
        Ok(request) => Ok(request),
        Err(error) if error.is_data() => Err(data_error(text, &error)),
        Err(error) => Err(RequestError::Syntax {
            message: without_position(&error),
            line: error.line(),
            column: error.column(),
        }),
    }
}

fn data_error(text: &str, error: &serde_json::Error) -> RequestError {
    if !text.trim_ascii_start().starts_with('{') {
        return RequestError::NotAnObject;
    }
    let mut json = serde_json::Deserializer::from_str(text);
    let path = match serde_path_to_error::deserialize::<_, ChatRequest>(&mut json) {
        Ok(_) => None,
        Err(error) => Some(error.path().to_string()).filter(|path| path != "."),
    };
    RequestError::Field {
        message: match &path {
            Some(path) => format!("Invalid value for '{path}': {error}"),
            None => format!("Invalid request: {error}"),
        },
        param: path,
        code: "invalid_type",
    }
}

fn without_position(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rfind(" at line ").and_then(|at| text.split_at_checked(at)) {
        Some((message, _)) => message.to_owned(),
        None => text,
    }
}

fn field(param: impl Into<String>, code: &'static str, what: &str) -> RequestError {
    let param = param.into();
    RequestError::Field {
        message: format!("Invalid value for '{param}': {what}"),
        param: Some(param),
        code,
    }
}

fn missing(param: impl Into<String>) -> RequestError {
    let param = param.into();
    RequestError::Field {
        message: format!("Missing required parameter: '{param}'"),
        param: Some(param),
        code: "missing_required_parameter",
    }
}

impl ChatRequest {
    fn check(self) -> Result<ChatView, RequestError> {
        let not_resumable = self.not_resumable();
        let model = self.model.ok_or_else(|| missing("model"))?;
        if model.is_empty() {
            return Err(field("model", "invalid_value", "the name of a model is expected"));
        }
        if model.len() > MAX_MODEL_NAME {
            let what = format!("a model's name has at most {MAX_MODEL_NAME} bytes");
            return Err(field("model", "string_above_max_length", &what));
        }
        let messages = self.messages.ok_or_else(|| missing("messages"))?;
        if messages.is_empty() {
            return Err(field("messages", "empty_array", "at least one message is expected"));
        }
        for (n, message) in messages.iter().enumerate() {
            message.check(n)?;
        }
        at_least_one("max_tokens", self.max_tokens)?;
        at_least_one("max_completion_tokens", self.max_completion_tokens)?;
        at_least_one("n", self.n)?;
        Ok(ChatView {
            model,
            stream: self.stream.unwrap_or(false),
            include_usage: self
                .stream_options
                .and_then(|options| options.include_usage)
                .unwrap_or(false),
            n: choices(self.n)?,
            not_resumable,
        })
    }

    fn not_resumable(&self) -> Option<&'static str> {
        let format = self
            .response_format
            .as_ref()
            .is_some_and(|format| format.r#type != "text");
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
        } else if self.tools.is_some_and(|tools| tools.0 > 0) || self.functions.is_some() {
            // Half a tool call cannot be handed to an engine as text that it has said.
            Some("the answer may be a tool call")
        } else {
            None
        }
    }
}

fn at_least_one(name: &'static str, value: Option<Whole>) -> Result<(), RequestError> {
    match value {
        Some(Whole(value)) if value < 1.0 => Err(field(
            name,
            "integer_below_min_value",
            &format!("an integer of at least 1 is expected, this is {value}"),
        )),
        _ => Ok(()),
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn choices(n: Option<Whole>) -> Result<u32, RequestError> {
    match n {
        None => Ok(1),
        Some(Whole(n)) if n > f64::from(MAX_CHOICES) => {
            let what = format!("an integer of at most {MAX_CHOICES} is expected, this is {n}");
            Err(field("n", "integer_above_max_value", &what))
        }
        // Whole, at least 1 and at most 128 by now.
        Some(Whole(n)) => Ok(n as u32),
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
            Content::Some(None) => Ok(()),
            Content::Some(Some(problem)) => Err(field(
                at(&format!("content[{}].{}", problem.part, problem.member)),
                "invalid_type",
                &format!("{} is expected", problem.expected),
            )),
        }
    }
}

#[cfg(test)]
#[path = "chat_tests.rs"]
mod tests;
