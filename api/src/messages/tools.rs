//! Translates tools, and the choice among them, from the Messages API to chat. Tools that only Anthropic's servers and
//! models have are left out. Deferred tools are offered once the conversation refers to them.

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

/// The tools of a request.
#[derive(Debug, Default)]
pub(super) struct Tools {
    own: Vec<OwnTool>,
    /// Those that only Anthropic has, by their names.
    hosted: Vec<String>,
    /// Whether Anthropic's servers are to look for deferred tools. Nobody here does.
    searched: bool,
}

/// A tool that the client runs.
#[derive(Debug)]
struct OwnTool {
    tool: Tool,
    /// Whether the model learns of the tool only where the conversation refers to it.
    deferred: bool,
}

/// What the conversation says of a tool.
#[derive(Debug)]
pub(super) enum Change {
    /// The model may use the tool from here on.
    Refer(String),
    /// The model may not use the tool from here on.
    Remove(String),
    /// The model may use this new tool from here on.
    Define(Box<Tool>),
}

impl Tools {
    /// Reads the tools.
    ///
    /// # Errors
    /// [`RequestError`] for a malformed tool.
    pub(super) fn read(list: &[Box<RawValue>]) -> Result<Self, RequestError> {
        let mut tools = Self::default();
        read_each("tools", list, |tool| tools.add(tool))?;
        Ok(tools)
    }

    fn add(&mut self, mut tool: MemberReader) -> Result<(), RequestError> {
        let kind: Option<String> = tool.take("type")?;
        if let Some(kind) = kind.filter(|kind| kind != "custom") {
            self.searched |= kind.starts_with("tool_search_");
            let name: Option<String> = tool.take("name")?;
            self.hosted.push(name.unwrap_or(kind));
            return Ok(());
        }
        let deferred: Option<bool> = tool.take("defer_loading")?;
        self.own.push(OwnTool {
            tool: own(tool)?,
            deferred: deferred.unwrap_or(false),
        });
        Ok(())
    }

    /// The names of the tools that the model is not offered because only Anthropic has them.
    pub(super) fn hosted(&self) -> Vec<String> {
        self.hosted.clone()
    }

    /// The tools that the model is offered after `changes`, and the choice among them.
    ///
    /// # Errors
    /// [`RequestError`] when the choice is malformed, or names a tool that is unknown or not available here.
    pub(super) fn offer(
        self,
        changes: Vec<Change>,
        asked: Option<MemberReader>,
    ) -> Result<(Vec<Tool>, Option<Chosen>), RequestError> {
        // Without a tool that could find them, deferred tools would never be offered.
        let findable = !self.searched && self.own.iter().any(|own| !own.deferred);
        let mut offered: Vec<OwnTool> = self.own;
        for own in &mut offered {
            own.deferred &= findable;
        }
        for change in changes {
            let name = match &change {
                Change::Refer(name) | Change::Remove(name) => name,
                Change::Define(tool) => &tool.function.name,
            };
            let known = offered.iter_mut().find(|own| own.tool.function.name == *name);
            match (change, known) {
                (Change::Refer(_), Some(own)) => own.deferred = false,
                (Change::Remove(_), Some(own)) => own.deferred = true,
                (Change::Define(tool), Some(own)) => {
                    own.tool = *tool;
                    own.deferred = false;
                }
                (Change::Define(tool), None) => offered.push(OwnTool {
                    tool: *tool,
                    deferred: false,
                }),
                (Change::Refer(_) | Change::Remove(_), None) => {}
            }
        }
        let chosen = asked.map(|asked| choice(asked, &offered, &self.hosted)).transpose()?;
        let forced = chosen.as_ref().and_then(Chosen::name);
        let tools = offered
            .into_iter()
            .filter(|own| !own.deferred || forced == Some(own.tool.function.name.as_str()));
        let tools: Vec<Tool> = tools.map(|own| own.tool).collect();
        Ok((tools, chosen))
    }
}

/// Reads a tool that the client runs.
///
/// # Errors
/// [`RequestError`] for a malformed tool.
pub(super) fn own(mut tool: MemberReader) -> Result<Tool, RequestError> {
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

impl Chosen {
    /// The tool that the model must call.
    fn name(&self) -> Option<&str> {
        match &self.choice {
            Choice::Tool { function, .. } => Some(&function.name),
            Choice::Mode(_) => None,
        }
    }
}

/// Translates the choice among `tools`. The tools `hosted` are not available here.
fn choice(mut choice: MemberReader, tools: &[OwnTool], hosted: &[String]) -> Result<Chosen, RequestError> {
    let kind: String = choice.need("type")?;
    let chosen = match kind.as_str() {
        "auto" => Choice::Mode("auto"),
        "any" => match hosted.first().filter(|_| tools.is_empty()) {
            Some(name) => return Err(not_here(choice.at("type"), name)),
            None => Choice::Mode("required"),
        },
        "none" => Choice::Mode("none"),
        "tool" => {
            let name: String = choice.need("name")?;
            if !tools.iter().any(|own| own.tool.function.name == name) {
                if hosted.contains(&name) {
                    return Err(not_here(choice.at("name"), &name));
                }
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

fn not_here(at: String, name: &str) -> RequestError {
    unsupported(
        at,
        format!(
            "The tool '{name}' is not available here: only the servers and models of Anthropic have it. \
             Tools with an 'input_schema' of their own are"
        ),
    )
}
