//! Tools and the choice among them, from the Responses API to chat.
//!
//! Engines know functions only. So the tools of a namespace and tools with free text become functions. The names by
//! which an engine calls them lead back to what the client offered.

use std::collections::HashMap;
use std::sync::Arc;

use serde::Serialize;
use serde_json::value::RawValue;

use super::flat_names::{flat, numbered};
use super::free_text;
use crate::request::member_reader::{MemberReader, read, unsupported, wrong_type};
use crate::request::{RequestError, field};

/// A tool as chat has it.
#[derive(Debug, Serialize)]
pub(super) struct Tool {
    r#type: &'static str,
    function: Function,
    /// What the client offered.
    #[serde(skip)]
    origin: Origin,
}

#[derive(Debug, Serialize)]
struct Function {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    strict: Option<bool>,
}

/// A tool by the client's names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) namespace: Option<String>,
    pub(super) name: String,
    /// Whether its input is free text rather than JSON.
    pub(super) custom: bool,
}

/// What the names of an engine's calls stand for. Only names that are not the client's own are in it.
pub(super) type Origins = Arc<HashMap<String, Origin>>;

/// The tools of a request.
#[derive(Debug, Default)]
pub(super) struct Tools {
    /// The tools that an engine gets.
    pub(super) offered: Vec<Tool>,
    /// The types of the tools that are left out, because only OpenAI's servers run them.
    pub(super) hosted: Vec<String>,
}

impl Tools {
    /// Reads the tools that are offered.
    ///
    /// # Errors
    /// [`RequestError`] for a malformed one, or when nobody here can run any of them.
    pub(super) fn read(list: &[Box<RawValue>]) -> Result<Self, RequestError> {
        let mut tools = Self::default();
        for (n, raw) in list.iter().enumerate() {
            tools.add(MemberReader::nested(format!("tools[{n}]"), raw)?, None)?;
        }
        match tools.hosted.first() {
            Some(kind) if tools.offered.is_empty() => Err(not_here("tools[0].type", kind)),
            _ => Ok(tools),
        }
    }

    fn add(&mut self, mut tool: MemberReader, namespace: Option<&str>) -> Result<(), RequestError> {
        let kind: String = tool.need("type")?;
        match kind.as_str() {
            "function" => {
                let function = Function {
                    name: tool.need("name")?,
                    description: tool.take("description")?,
                    parameters: parameters(&mut tool)?,
                    strict: tool.take("strict")?,
                };
                self.offer(function, namespace, false);
            }
            "custom" => {
                let function = Function {
                    name: tool.need("name")?,
                    description: Some(free_text::description(&mut tool)?),
                    parameters: Some(free_text::parameters()?),
                    strict: None,
                };
                self.offer(function, namespace, true);
            }
            "namespace" if namespace.is_none() => self.add_namespace(tool)?,
            _ => {
                if !self.hosted.contains(&kind) {
                    self.hosted.push(kind);
                }
            }
        }
        Ok(())
    }

    /// Adds the tools of a namespace. The first of them tells what the namespace is for.
    fn add_namespace(&mut self, mut namespace: MemberReader) -> Result<(), RequestError> {
        let name: String = namespace.need("name")?;
        let about: Option<String> = namespace.take("description")?;
        let at = namespace.at("tools");
        let first = self.offered.len();
        for (n, raw) in namespace.list("tools")?.unwrap_or_default().iter().enumerate() {
            self.add(MemberReader::nested(format!("{at}[{n}]"), raw)?, Some(&name))?;
        }
        let about = about.filter(|about| !about.is_empty());
        if let (Some(about), Some(tool)) = (about, self.offered.get_mut(first)) {
            let own = tool.function.description.take().unwrap_or_default();
            let told = format!("{own}\n\nThis tool is one of '{name}': {about}");
            tool.function.description = Some(told.trim_start().to_owned());
        }
        Ok(())
    }

    fn offer(&mut self, mut function: Function, namespace: Option<&str>, custom: bool) {
        let origin = Origin {
            namespace: namespace.map(str::to_owned),
            name: function.name.clone(),
            custom,
        };
        if let Some(namespace) = namespace {
            function.name = flat(namespace, &function.name);
            let mut n = 1;
            while self.offered.iter().any(|tool| tool.function.name == function.name) {
                n += 1;
                function.name = numbered(&flat(namespace, &origin.name), n);
            }
        }
        self.offered.push(Tool {
            r#type: "function",
            function,
            origin,
        });
    }

    /// The name by which an engine knows the tool `name` of `namespace`, whether or not it is offered.
    pub(super) fn engine_name(&self, namespace: Option<&str>, name: String) -> String {
        let Some(namespace) = namespace else { return name };
        let is = |origin: &Origin| origin.namespace.as_deref() == Some(namespace) && origin.name == name;
        match self.offered.iter().find(|tool| is(&tool.origin)) {
            Some(tool) => tool.function.name.clone(),
            None => flat(namespace, &name),
        }
    }

    /// What the engine's names stand for.
    pub(super) fn origins(&self) -> Origins {
        let changed = self
            .offered
            .iter()
            .filter(|tool| tool.origin.custom || tool.origin.namespace.is_some());
        let mut origins: HashMap<String, Origin> = changed
            .clone()
            .map(|tool| (tool.function.name.clone(), tool.origin.clone()))
            .collect();
        // Models sometimes leave the namespace out.
        for tool in changed {
            let name = &tool.origin.name;
            let alone = self.offered.iter().filter(|other| other.origin.name == *name).count() == 1;
            if alone && self.offered.iter().all(|other| other.function.name != *name) {
                origins.entry(name.clone()).or_insert_with(|| tool.origin.clone());
            }
        }
        Arc::new(origins)
    }

    /// Reads which tool is to be used. Chat has no list of allowed tools that engines know: the others are taken out,
    /// which comes to the same.
    ///
    /// # Errors
    /// [`RequestError`] for one that is malformed, or names no tool that is there.
    pub(super) fn choose(&mut self, raw: &RawValue) -> Result<Choice, RequestError> {
        const AT: &str = "tool_choice";
        if raw.get().starts_with('"') {
            let mode: String = read(AT, raw)?;
            return match mode.as_str() {
                "none" | "auto" | "required" => Ok(Choice::Mode(mode)),
                _ => Err(field(AT, "invalid_value", "'none', 'auto' or 'required' is expected")),
            };
        }
        let mut choice =
            MemberReader::nested(AT, raw).map_err(|_| wrong_type(AT, "a string or an object is expected"))?;
        let kind: String = choice.need("type")?;
        match kind.as_str() {
            "function" | "custom" => {
                let wanted = Wanted::read(kind, &mut choice)?;
                match self.offered.iter().find(|tool| wanted.is(tool)) {
                    Some(tool) => Ok(Choice::Function {
                        r#type: "function",
                        function: Named {
                            name: tool.function.name.clone(),
                        },
                    }),
                    None => {
                        let Wanted { kind, name, .. } = wanted;
                        let what = format!("there is no tool of type '{kind}' with the name {name:?} in 'tools'");
                        Err(field(choice.at("name"), "invalid_value", &what))
                    }
                }
            }
            "allowed_tools" => self.allow(choice),
            hosted => Err(not_here(choice.at("type"), hosted)),
        }
    }

    fn allow(&mut self, mut choice: MemberReader) -> Result<Choice, RequestError> {
        let mode: String = choice.need("mode")?;
        if !matches!(mode.as_str(), "auto" | "required") {
            return Err(field(
                choice.at("mode"),
                "invalid_value",
                "'auto' or 'required' is expected",
            ));
        }
        let list = choice.list("tools")?.unwrap_or_default();
        let mut allowed = Vec::new();
        let mut hosted = None;
        for (n, raw) in list.iter().enumerate() {
            let mut tool = MemberReader::nested(format!("tool_choice.tools[{n}]"), raw)?;
            let kind: String = tool.need("type")?;
            match kind.as_str() {
                "function" | "custom" | "namespace" => allowed.push(Wanted::read(kind, &mut tool)?),
                _ => hosted = hosted.or(Some((tool.at("type"), kind))),
            }
        }
        self.offered.retain(|tool| allowed.iter().any(|wanted| wanted.is(tool)));
        match hosted {
            Some((at, kind)) if self.offered.is_empty() && mode == "required" => Err(not_here(at, &kind)),
            _ if self.offered.is_empty() => Ok(Choice::Mode("none".to_owned())),
            _ => Ok(Choice::Mode(mode)),
        }
    }
}

/// A tool in a choice.
struct Wanted {
    kind: String,
    namespace: Option<String>,
    name: String,
}

impl Wanted {
    fn read(kind: String, tool: &mut MemberReader) -> Result<Self, RequestError> {
        Ok(Self {
            kind,
            namespace: tool.take("namespace")?,
            name: tool.need("name")?,
        })
    }

    fn is(&self, tool: &Tool) -> bool {
        let origin = &tool.origin;
        if self.kind == "namespace" {
            return origin.namespace.as_ref() == Some(&self.name);
        }
        let named = match &self.namespace {
            Some(_) => origin.namespace == self.namespace && origin.name == self.name,
            None => origin.name == self.name || tool.function.name == self.name,
        };
        named && origin.custom == (self.kind == "custom")
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

fn not_here(at: impl Into<String>, kind: &str) -> RequestError {
    unsupported(
        at,
        format!(
            "The tool '{kind}' is not available here: it runs on the servers of OpenAI. \
             Tools of type 'function', 'custom' and 'namespace' are"
        ),
    )
}

/// Which tool is to be used, as chat's `tool_choice` has it.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Choice {
    Function { r#type: &'static str, function: Named },
    Mode(String),
}

#[derive(Debug, Serialize)]
pub(super) struct Named {
    name: String,
}
