//! Translates tools, and the choice among them, from the Messages API to chat.

use serde::Serialize;
use serde_json::value::RawValue;

use crate::request::member_reader::{MemberReader, read_each, unsupported, wrong_type};
use crate::request::{RequestError, field};

/// A tool in chat's form.
#[derive(Debug, Serialize)]
pub(super) struct Tool {
    r#type: &'static str,
    function: Function,
}

#[derive(Debug, Serialize)]
struct Function {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    parameters: Box<RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    strict: Option<bool>,
}

/// Translates the tools.
///
/// # Errors
/// [`RequestError`] for a malformed tool, or one that only Anthropic's servers have.
pub(super) fn tools(list: &[Box<RawValue>]) -> Result<Vec<Tool>, RequestError> {
    read_each("tools", list, tool)
}

fn tool(mut tool: MemberReader) -> Result<Tool, RequestError> {
    let kind: Option<String> = tool.take("type")?;
    if let Some(kind) = kind.filter(|kind| kind != "custom") {
        return Err(unsupported(
            tool.at("type"),
            format!(
                "The tool '{kind}' is not available here: only the servers and models of Anthropic have it. \
                 Tools with an 'input_schema' of their own are"
            ),
        ));
    }
    let parameters = tool.need_raw("input_schema")?;
    if !parameters.get().starts_with('{') {
        return Err(wrong_type(
            tool.at("input_schema"),
            "a JSON schema is expected, which is an object",
        ));
    }
    Ok(Tool {
        r#type: "function",
        function: Function {
            name: tool.need("name")?,
            description: tool.take("description")?,
            parameters,
            strict: tool.take("strict")?,
        },
    })
}

/// The translated choice.
#[derive(Debug)]
pub(super) struct Chosen {
    pub(super) choice: Choice,
    /// Whether an answer has at most one call.
    pub(super) one_at_a_time: bool,
}

/// Chat's `tool_choice`.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Choice {
    Mode(&'static str),
    Tool { r#type: &'static str, function: Named },
}

#[derive(Debug, Serialize)]
pub(super) struct Named {
    name: String,
}

/// Translates the choice among `tools`.
///
/// # Errors
/// [`RequestError`] when the choice is malformed or names an unknown tool.
pub(super) fn choice(mut choice: MemberReader, tools: &[Tool]) -> Result<Chosen, RequestError> {
    let kind: String = choice.need("type")?;
    let chosen = match kind.as_str() {
        "auto" => Choice::Mode("auto"),
        "any" => Choice::Mode("required"),
        "none" => Choice::Mode("none"),
        "tool" => {
            let name: String = choice.need("name")?;
            if !tools.iter().any(|tool| tool.function.name == name) {
                let what = format!("there is no tool with the name {name:?} in 'tools'");
                return Err(field(choice.at("name"), "invalid_value", &what));
            }
            Choice::Tool {
                r#type: "function",
                function: Named { name },
            }
        }
        _ => {
            let what = "'auto', 'any', 'tool' or 'none' is expected";
            return Err(field(choice.at("type"), "invalid_value", what));
        }
    };
    let one_at_a_time: Option<bool> = choice.take("disable_parallel_tool_use")?;
    Ok(Chosen {
        choice: chosen,
        one_at_a_time: one_at_a_time.unwrap_or(false),
    })
}
