//! Tools and the choice among them, from the Messages API to chat.

use serde::Serialize;
use serde_json::value::RawValue;

use crate::request::member_reader::{Taken, unsupported, wrong_type};
use crate::request::{RequestError, field, missing};

/// A tool as chat has it.
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

/// The tools that are offered.
///
/// # Errors
/// [`RequestError`] for one that is malformed, or that no engine was told of.
pub(super) fn tools(list: &[Box<RawValue>]) -> Result<Vec<Tool>, RequestError> {
    list.iter()
        .enumerate()
        .map(|(n, raw)| tool(Taken::nested(format!("tools[{n}]"), raw)?))
        .collect()
}

fn tool(mut tool: Taken) -> Result<Tool, RequestError> {
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
    let at = tool.at("input_schema");
    let parameters = tool.raw("input_schema").ok_or_else(|| missing(at.as_str()))?;
    if !parameters.get().starts_with('{') {
        return Err(wrong_type(at, "a JSON schema is expected, which is an object"));
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

/// What is to be chosen.
#[derive(Debug)]
pub(super) struct Chosen {
    pub(super) choice: Choice,
    /// At most one call in an answer.
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

/// Which tool is to be used.
///
/// # Errors
/// [`RequestError`] when it is malformed, or names no tool that is there.
pub(super) fn choice(mut choice: Taken, tools: &[Tool]) -> Result<Chosen, RequestError> {
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
