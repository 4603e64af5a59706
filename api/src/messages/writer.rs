//! The message object and its events, written as the answer comes.

use bytes::{BufMut as _, BytesMut};
use serde_json::value::RawValue;
use tokenbus_protocol::Finish;

use super::message::Thoughts;
use crate::Identity;
use crate::answer::json::{push_escaped, push_number, push_string};
use crate::answer::usage::Counts;
use crate::translation::blocks::{Block, Sink};

/// The event that keeps a connection alive.
pub(super) const PING: &[u8] = b"event: ping\ndata: {\"type\":\"ping\"}\n\n";

/// What is known of a message while it comes. As a [`Sink`] it gathers the blocks of a message in
/// one piece.
#[derive(Debug)]
pub(super) struct Writer {
    identity: Identity,
    thoughts: Thoughts,
    /// Number of the open block.
    index: usize,
    open: Option<Open>,
    /// The blocks that are complete, with commas between them.
    content: BytesMut,
    /// What the open block holds.
    text: String,
}

#[derive(Debug)]
struct Open {
    kind: Kind,
    id: String,
    name: String,
    /// Everything of a delta event before the text.
    prefix: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Thinking,
    ToolUse,
}

/// The writer with a place for its events.
pub(super) struct Events<'a> {
    pub(super) writer: &'a mut Writer,
    pub(super) out: &'a mut BytesMut,
}

impl Writer {
    pub(super) fn new(identity: Identity, thoughts: Thoughts) -> Self {
        Self {
            identity,
            thoughts,
            index: 0,
            open: None,
            content: BytesMut::new(),
            text: String::new(),
        }
    }

    /// Appends the event before any output. How many tokens the prompt has is not known yet; the
    /// last event tells it.
    pub(super) fn begin(&self, out: &mut BytesMut) {
        out.extend_from_slice(b"event: message_start\ndata: {\"type\":\"message_start\",\"message\":");
        self.head(out);
        out.extend_from_slice(
            b"\"content\":[],\"stop_reason\":null,\"stop_sequence\":null,\
              \"usage\":{\"input_tokens\":0,\"output_tokens\":0}}}\n\n",
        );
    }

    /// Appends the last events.
    pub(super) fn finish(&self, reason: &str, stop: Option<&str>, seen: u64, finish: &Finish, out: &mut BytesMut) {
        out.extend_from_slice(b"event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{");
        push_end(reason, stop, out);
        out.extend_from_slice(b"},");
        push_usage(finish, seen, out);
        out.extend_from_slice(b"}\n\nevent: message_stop\ndata: {\"type\":\"message_stop\"}\n\n");
    }

    /// Appends the whole message.
    pub(super) fn whole(&self, reason: &str, stop: Option<&str>, seen: u64, finish: &Finish, out: &mut BytesMut) {
        self.head(out);
        out.extend_from_slice(b"\"content\":[");
        out.extend_from_slice(&self.content);
        out.extend_from_slice(b"],");
        push_end(reason, stop, out);
        out.put_u8(b',');
        push_usage(finish, seen, out);
        out.put_u8(b'}');
    }

    fn head(&self, out: &mut BytesMut) {
        out.extend_from_slice(b"{\"id\":");
        push_string(out, &self.identity.id);
        out.extend_from_slice(b",\"type\":\"message\",\"role\":\"assistant\",\"model\":");
        push_string(out, &self.identity.model);
        out.put_u8(b',');
    }

    fn begun(&self, block: Block) -> Open {
        let (kind, id, name) = match block {
            Block::Text | Block::Refusal => (Kind::Text, String::new(), String::new()),
            Block::Reasoning => (Kind::Thinking, String::new(), String::new()),
            Block::Call { id, name, .. } => (Kind::ToolUse, id, name),
        };
        let id = if kind == Kind::ToolUse && id.is_empty() {
            let suffix = self.identity.id.strip_prefix(super::ID_PREFIX).unwrap_or_default();
            format!("toolu_{suffix}{:04x}", self.index)
        } else {
            id
        };
        Open {
            kind,
            id,
            name,
            prefix: Vec::new(),
        }
    }

    /// What stands for the thoughts' signature: clients send thoughts back only with one. Nothing
    /// here checks it.
    fn signature(&self) -> String {
        format!("{}:{}", self.identity.id, self.index)
    }

    fn hides(&self, kind: Kind) -> bool {
        kind == Kind::Thinking && self.thoughts == Thoughts::Omitted
    }
}

impl Open {
    /// Appends the block as it is when it begins, or with all that has come.
    fn push(&self, text: &str, signature: &str, out: &mut BytesMut) {
        match self.kind {
            Kind::Text => {
                out.extend_from_slice(b"{\"type\":\"text\",\"text\":");
                push_string(out, text);
            }
            Kind::Thinking => {
                out.extend_from_slice(b"{\"type\":\"thinking\",\"thinking\":");
                push_string(out, text);
                out.extend_from_slice(b",\"signature\":");
                push_string(out, signature);
            }
            Kind::ToolUse => {
                out.extend_from_slice(b"{\"type\":\"tool_use\",\"id\":");
                push_string(out, &self.id);
                out.extend_from_slice(b",\"name\":");
                push_string(out, &self.name);
                out.extend_from_slice(b",\"input\":");
                push_input(text, out);
            }
        }
        out.put_u8(b'}');
    }

    /// The type of its deltas, and the member that has their text.
    fn delta(&self) -> (&'static str, &'static str) {
        match self.kind {
            Kind::Text => ("text_delta", "text"),
            Kind::Thinking => ("thinking_delta", "thinking"),
            Kind::ToolUse => ("input_json_delta", "partial_json"),
        }
    }
}

impl Sink for Writer {
    fn open(&mut self, block: Block) {
        self.open = Some(self.begun(block));
    }

    fn append(&mut self, text: &str, _logprobs: &str) {
        let hidden = self.open.as_ref().is_some_and(|open| self.hides(open.kind));
        if !hidden {
            self.text.push_str(text);
        }
    }

    fn close(&mut self) {
        let Some(open) = self.open.take() else { return };
        if self.index > 0 {
            self.content.put_u8(b',');
        }
        let signature = self.signature();
        open.push(&std::mem::take(&mut self.text), &signature, &mut self.content);
        self.index += 1;
    }
}

impl Sink for Events<'_> {
    fn open(&mut self, block: Block) {
        let index = self.writer.index;
        let mut open = self.writer.begun(block);
        push_number(
            self.out,
            format_args!(
                "event: content_block_start\ndata: {{\"type\":\"content_block_start\",\"index\":{index},\"content_block\":"
            ),
        );
        open.push("", "", self.out);
        self.out.extend_from_slice(b"}\n\n");
        if index == 0 {
            self.out.extend_from_slice(PING);
        }
        let (kind, member) = open.delta();
        let mut prefix = BytesMut::new();
        push_number(
            &mut prefix,
            format_args!(
                "event: content_block_delta\ndata: {{\"type\":\"content_block_delta\",\"index\":{index},\
                 \"delta\":{{\"type\":\"{kind}\",\"{member}\":\""
            ),
        );
        open.prefix = prefix.to_vec();
        self.writer.open = Some(open);
    }

    fn append(&mut self, text: &str, _logprobs: &str) {
        let Some(open) = &self.writer.open else { return };
        if text.is_empty() || self.writer.hides(open.kind) {
            return;
        }
        self.out.extend_from_slice(&open.prefix);
        push_escaped(self.out, text);
        self.out.extend_from_slice(b"\"}}\n\n");
    }

    fn close(&mut self) {
        let Some(open) = self.writer.open.take() else { return };
        let index = self.writer.index;
        if open.kind == Kind::Thinking {
            push_number(
                self.out,
                format_args!(
                    "event: content_block_delta\ndata: {{\"type\":\"content_block_delta\",\"index\":{index},\
                     \"delta\":{{\"type\":\"signature_delta\",\"signature\":"
                ),
            );
            push_string(self.out, &self.writer.signature());
            self.out.extend_from_slice(b"}}\n\n");
        }
        push_number(
            self.out,
            format_args!("event: content_block_stop\ndata: {{\"type\":\"content_block_stop\",\"index\":{index}}}\n\n"),
        );
        self.writer.index += 1;
    }
}

/// Appends a call's input, which is an object: what the model wrote, where it is one. What is none,
/// because it was cut off or the model cannot do better, goes into one, as Anthropic wants such
/// input to be told.
fn push_input(text: &str, out: &mut BytesMut) {
    let text = text.trim();
    let object = text.starts_with('{') && serde_json::from_str::<&RawValue>(text).is_ok();
    if text.is_empty() {
        out.extend_from_slice(b"{}");
    } else if object {
        out.extend_from_slice(text.as_bytes());
    } else {
        out.extend_from_slice(b"{\"INVALID_JSON\":");
        push_string(out, text);
        out.put_u8(b'}');
    }
}

fn push_end(reason: &str, stop: Option<&str>, out: &mut BytesMut) {
    push_number(out, format_args!("\"stop_reason\":\"{reason}\",\"stop_sequence\":"));
    match stop {
        Some(stop) => push_string(out, stop),
        None => out.extend_from_slice(b"null"),
    }
}

/// Appends the usage. The API demands numbers: what the engine does not count is what was seen.
fn push_usage(finish: &Finish, seen: u64, out: &mut BytesMut) {
    let counts = Counts::of(finish);
    let prompt = counts.map(|counts| counts.prompt).or(finish.prompt_tokens).unwrap_or(0);
    let completion = counts.map(|counts| counts.completion).or(finish.completion_tokens);
    let cached = counts.and_then(|counts| counts.cached);
    // Anthropic counts what came from a cache apart from the rest of the prompt.
    let fresh = prompt.saturating_sub(cached.unwrap_or(0));
    push_number(
        out,
        format_args!(
            "\"usage\":{{\"input_tokens\":{fresh},\"output_tokens\":{}",
            completion.unwrap_or(seen)
        ),
    );
    if let Some(cached) = cached {
        push_number(
            out,
            format_args!(",\"cache_creation_input_tokens\":0,\"cache_read_input_tokens\":{cached}"),
        );
    }
    if let Some(thinking) = counts.and_then(|counts| counts.reasoning) {
        push_number(
            out,
            format_args!(",\"output_tokens_details\":{{\"thinking_tokens\":{thinking}}}"),
        );
    }
    out.put_u8(b'}');
}
