//! One item of a response's output.

use bytes::{BufMut as _, BytesMut};

use super::seal::Seal;
use super::tools::{Origin, Origins};
use crate::answer::json::{push_number, push_string};
use crate::translation::blocks::Block;
use crate::translation::pieces::push_elements;

/// An item.
#[derive(Debug)]
pub(super) struct Item {
    kind: Kind,
    id: String,
    text: String,
    logprobs: String,
}

#[derive(Debug)]
enum Kind {
    Text,
    Refusal,
    Reasoning(Reasoning),
    Call { call_id: String, origin: Origin },
}

/// How the client wants to have the model's reasoning.
#[derive(Debug, Clone, Default)]
pub(super) struct Reasoning {
    /// As a summary. It is the reasoning itself, because nobody summarizes it here.
    pub(super) summary: bool,
    /// Also in the form in which it hands the reasoning back, with this seal.
    pub(super) carried: Option<Seal>,
}

impl Item {
    /// The item for `block`, which is number `index` of the response whose id ends in `suffix`. An
    /// item's id tells its response, so that it can be found again where responses are kept. A call has the names of
    /// the tool that the client offered.
    pub(super) fn new(block: Block, origins: &Origins, reasoning: Reasoning, suffix: &str, index: usize) -> Self {
        let (prefix, kind) = match block {
            Block::Text => ("msg", Kind::Text),
            Block::Refusal => ("msg", Kind::Refusal),
            Block::Reasoning => ("rs", Kind::Reasoning(reasoning)),
            Block::Call { id, name, custom } => {
                let call_id = if id.is_empty() {
                    format!("call_{suffix}{index:04x}")
                } else {
                    id
                };
                let origin = origins.get(&name).cloned().unwrap_or(Origin {
                    namespace: None,
                    name,
                    custom,
                });
                let prefix = if origin.custom { "ctc" } else { "fc" };
                (prefix, Kind::Call { call_id, origin })
            }
        };
        Self {
            kind,
            id: format!("{prefix}_{suffix}{index:04x}"),
            text: String::new(),
            logprobs: String::new(),
        }
    }

    pub(super) fn grow(&mut self, text: &str, logprobs: &str) {
        self.text.push_str(text);
        push_elements(&mut self.logprobs, logprobs);
    }

    pub(super) fn is_text(&self) -> bool {
        matches!(self.kind, Kind::Text)
    }

    /// Whether it is a call of a tool with free text.
    pub(super) fn is_custom(&self) -> bool {
        matches!(&self.kind, Kind::Call { origin, .. } if origin.custom)
    }

    /// Whether it has content parts, with events of their own.
    pub(super) fn has_parts(&self) -> bool {
        !matches!(self.kind, Kind::Call { .. })
    }

    /// The middle of the names of its events: `response.….delta` and `response.….done`.
    pub(super) fn event(&self) -> &'static str {
        match self.kind {
            Kind::Text => "output_text",
            Kind::Refusal => "refusal",
            Kind::Reasoning(Reasoning { summary: true, .. }) => "reasoning_summary_text",
            Kind::Reasoning(_) => "reasoning_text",
            Kind::Call { .. } if self.is_custom() => "custom_tool_call_input",
            Kind::Call { .. } => "function_call_arguments",
        }
    }

    /// The beginning of the names of its part's events: `response.….added` and `response.….done`.
    pub(super) fn part_event(&self) -> &'static str {
        if self.is_summary() {
            "reasoning_summary_part"
        } else {
            "content_part"
        }
    }

    fn is_summary(&self) -> bool {
        matches!(self.kind, Kind::Reasoning(Reasoning { summary: true, .. }))
    }

    /// Appends where it is: the members that stand in all of its events.
    pub(super) fn push_place(&self, out: &mut BytesMut, index: usize) {
        push_number(
            out,
            format_args!(",\"item_id\":\"{}\",\"output_index\":{index}", self.id),
        );
        if self.is_summary() {
            out.extend_from_slice(b",\"summary_index\":0");
        } else if self.has_parts() {
            out.extend_from_slice(b",\"content_index\":0");
        }
    }

    /// Appends what its `done` event says.
    pub(super) fn push_done(&self, out: &mut BytesMut) {
        let member = match &self.kind {
            Kind::Text | Kind::Reasoning(_) => "text",
            Kind::Refusal => "refusal",
            Kind::Call { .. } if self.is_custom() => "input",
            Kind::Call { origin, .. } => {
                out.extend_from_slice(b",\"name\":");
                push_string(out, &origin.name);
                "arguments"
            }
        };
        push_number(out, format_args!(",\"{member}\":"));
        push_string(out, &self.text);
        if self.is_text() {
            push_number(out, format_args!(",\"logprobs\":[{}]", self.logprobs));
        }
    }

    /// Appends its content part.
    pub(super) fn push_part(&self, out: &mut BytesMut) {
        out.extend_from_slice(match self.kind {
            Kind::Refusal => b"{\"type\":\"refusal\",\"refusal\":",
            Kind::Reasoning(Reasoning { summary: true, .. }) => b"{\"type\":\"summary_text\",\"text\":",
            Kind::Reasoning(_) => b"{\"type\":\"reasoning_text\",\"text\":",
            Kind::Text | Kind::Call { .. } => b"{\"type\":\"output_text\",\"text\":".as_slice(),
        });
        push_string(out, &self.text);
        if self.is_text() {
            push_number(
                out,
                format_args!(",\"annotations\":[],\"logprobs\":[{}]", self.logprobs),
            );
        }
        out.put_u8(b'}');
    }

    /// Appends it as it is when nothing of it has come.
    pub(super) fn push_begun(&self, out: &mut BytesMut) {
        self.push_with(out, "in_progress", false);
    }

    /// Appends it with all that has come.
    pub(super) fn push(&self, out: &mut BytesMut, status: &str) {
        self.push_with(out, status, true);
    }

    fn push_with(&self, out: &mut BytesMut, status: &str, content: bool) {
        let id = &self.id;
        let kind = match self.kind {
            Kind::Text | Kind::Refusal => "message",
            Kind::Reasoning(_) => "reasoning",
            Kind::Call { .. } if self.is_custom() => "custom_tool_call",
            Kind::Call { .. } => "function_call",
        };
        push_number(
            out,
            format_args!("{{\"id\":\"{id}\",\"type\":\"{kind}\",\"status\":\"{status}\""),
        );
        let member = match &self.kind {
            Kind::Text | Kind::Refusal => {
                out.extend_from_slice(b",\"role\":\"assistant\"");
                None
            }
            Kind::Reasoning(asked) => {
                out.extend_from_slice(b",\"summary\":[");
                if asked.summary && content {
                    self.push_part(out);
                }
                out.extend_from_slice(b"],\"encrypted_content\":");
                match asked.carried.as_ref().filter(|_| content) {
                    Some(seal) => push_string(out, &seal.pack(&self.id, &self.text)),
                    None => out.extend_from_slice(b"null"),
                }
                None
            }
            Kind::Call { call_id, origin } => {
                out.extend_from_slice(b",\"call_id\":");
                push_string(out, call_id);
                out.extend_from_slice(b",\"name\":");
                push_string(out, &origin.name);
                if let Some(namespace) = &origin.namespace {
                    out.extend_from_slice(b",\"namespace\":");
                    push_string(out, namespace);
                }
                Some(if origin.custom { "input" } else { "arguments" })
            }
        };
        match member {
            Some(member) => {
                push_number(out, format_args!(",\"{member}\":"));
                push_string(out, &self.text);
            }
            None => {
                out.extend_from_slice(b",\"content\":[");
                if content && !self.is_summary() {
                    self.push_part(out);
                }
                out.put_u8(b']');
            }
        }
        out.put_u8(b'}');
    }
}
