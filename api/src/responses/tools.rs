//! Tools and the choice among them, from the Responses API to chat.

use serde::Serialize;
use serde_json::value::RawValue;
use tokenbus_protocol::RawObject;

use crate::request::member_reader::{MemberReader, unsupported, wrong_type};
use crate::request::{RequestError, field};

/// A tool as chat has it.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Tool {
    Function { function: Function },
    Custom { custom: Custom },
}

#[derive(Debug, Serialize)]
pub(super) struct Function {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    strict: Option<bool>,
}

#[derive(Debug, Serialize)]
pub(super) struct Custom {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    format: Option<Format>,
}

#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Format {
    Text,
    Grammar { grammar: RawObject },
}

impl Tool {
    fn is(&self, custom: bool, name: &str) -> bool {
        match self {
            Self::Function { function } => !custom && function.name == name,
            Self::Custom { custom: tool } => custom && tool.name == name,
        }
    }
}

/// The tools that are offered.
///
/// # Errors
/// [`RequestError`] for one that is malformed, or that only OpenAI's own servers have.
pub(super) fn tools(list: &[Box<RawValue>]) -> Result<Vec<Tool>, RequestError> {
    list.iter()
        .enumerate()
        .map(|(n, raw)| tool(MemberReader::nested(format!("tools[{n}]"), raw)?))
        .collect()
}

fn tool(mut tool: MemberReader) -> Result<Tool, RequestError> {
    let kind: String = tool.need("type")?;
    match kind.as_str() {
        "function" => Ok(Tool::Function {
            function: Function {
                name: tool.need("name")?,
                description: tool.take("description")?,
                parameters: parameters(&mut tool)?,
                strict: tool.take("strict")?,
            },
        }),
        "custom" => Ok(Tool::Custom {
            custom: Custom {
                name: tool.need("name")?,
                description: tool.take("description")?,
                format: tool.object("format")?.map(format).transpose()?,
            },
        }),
        hosted => Err(unsupported(
            tool.at("type"),
            format!(
                "The tool '{hosted}' is not available here: it runs on the servers of OpenAI. \
                 Tools of type 'function' and 'custom' are"
            ),
        )),
    }
}

fn parameters(tool: &mut MemberReader) -> Result<Option<Box<RawValue>>, RequestError> {
    let at = tool.at("parameters");
    match tool.raw("parameters") {
        Some(raw) if !raw.get().starts_with('{') => {
            Err(wrong_type(at, "a JSON schema is expected, which is an object"))
        }
        raw => Ok(raw),
    }
}

fn format(mut format: MemberReader) -> Result<Format, RequestError> {
    let kind: String = format.need("type")?;
    match kind.as_str() {
        "text" => Ok(Format::Text),
        "grammar" => Ok(Format::Grammar { grammar: format.rest() }),
        _ => Err(field(
            format.at("type"),
            "invalid_value",
            "'text' or 'grammar' is expected",
        )),
    }
}

/// A tool by its name, as chat's `tool_choice` has it.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Choice {
    Function {
        function: Named,
    },
    Custom {
        custom: Named,
    },
    #[serde(untagged)]
    Mode(String),
}

#[derive(Debug, Serialize)]
pub(super) struct Named {
    name: String,
}

/// Which tool is to be used. Chat has no list of allowed tools that engines know: the others are
/// taken out of `tools`, which comes to the same.
///
/// # Errors
/// [`RequestError`] for one that is malformed, or names no tool that is there.
pub(super) fn choice(raw: &RawValue, tools: &mut Vec<Tool>) -> Result<Choice, RequestError> {
    const AT: &str = "tool_choice";
    if raw.get().starts_with('"') {
        let mode: String = crate::request::member_reader::read(AT, raw)?;
        return match mode.as_str() {
            "none" | "auto" | "required" => Ok(Choice::Mode(mode)),
            _ => Err(field(AT, "invalid_value", "'none', 'auto' or 'required' is expected")),
        };
    }
    let mut choice = MemberReader::nested(AT, raw).map_err(|_| wrong_type(AT, "a string or an object is expected"))?;
    let kind: String = choice.need("type")?;
    match kind.as_str() {
        "function" | "custom" => {
            let name: String = choice.need("name")?;
            let custom = kind == "custom";
            if !tools.iter().any(|tool| tool.is(custom, &name)) {
                let what = format!("there is no tool of type '{kind}' with the name {name:?} in 'tools'");
                return Err(field(choice.at("name"), "invalid_value", &what));
            }
            let named = Named { name };
            Ok(if custom {
                Choice::Custom { custom: named }
            } else {
                Choice::Function { function: named }
            })
        }
        "allowed_tools" => allowed(choice, tools),
        hosted => Err(unsupported(
            choice.at("type"),
            format!("The tool '{hosted}' is not available here: it runs on the servers of OpenAI"),
        )),
    }
}

fn allowed(mut choice: MemberReader, tools: &mut Vec<Tool>) -> Result<Choice, RequestError> {
    let mode: String = choice.need("mode")?;
    if !matches!(mode.as_str(), "auto" | "required") {
        return Err(field(
            choice.at("mode"),
            "invalid_value",
            "'auto' or 'required' is expected",
        ));
    }
    let list = choice.list("tools")?.unwrap_or_default();
    let mut names = Vec::new();
    for (n, raw) in list.iter().enumerate() {
        let mut tool = MemberReader::nested(format!("tool_choice.tools[{n}]"), raw)?;
        let kind: String = tool.need("type")?;
        let name: String = tool.need("name")?;
        names.push((kind == "custom", name));
    }
    tools.retain(|tool| names.iter().any(|(custom, name)| tool.is(*custom, name)));
    Ok(Choice::Mode(if tools.is_empty() { "none".to_owned() } else { mode }))
}
