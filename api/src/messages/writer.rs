//! Writes the message object and its events while the answer comes.

use bytes::{Bytes, BytesMut};
use tokenbus_protocol::Finish;

use super::objects::{ContentBlock, Event, MessageObject, MessageUsage, SignatureDelta, Stop};
use super::thinking::Thoughts;
use crate::answer::Identity;
use crate::answer::events::push_named;
use crate::answer::json::{self, push_escaped, push_number};
use crate::translation::blocks::{Block, BlockSink};
use crate::translation::tool_input::ToolInput;

/// Prefix of the messages' ids.
pub const MESSAGE_ID_PREFIX: &str = "msg_";

/// The event that keeps a connection alive.
pub(super) const PING: &[u8] = b"event: ping\ndata: {\"type\":\"ping\"}\n\n";

/// The message so far. As a [`BlockSink`] it collects the blocks of a message in one piece.
#[derive(Debug)]
pub(super) struct Writer {
    identity: Identity,
    thoughts: Thoughts,
    /// Number of the open block.
    index: usize,
    open: Option<OpenBlock>,
    /// The complete blocks.
    content: Vec<ContentBlock>,
    /// Text of the open block.
    text: String,
}

#[derive(Debug)]
struct OpenBlock {
    kind: Kind,
    id: String,
    name: String,
    /// Everything of a delta event before its text.
    prefix: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Thinking,
    ToolUse,
}

/// The writer of a streamed message, with the buffer for its events.
pub(super) struct EventWriter<'a> {
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
            content: Vec::new(),
            text: String::new(),
        }
    }

    /// Appends the event before any output. The prompt's tokens are not counted yet: `prompt` is an estimate, and the last
    /// event has the number. Clients that see 0 show an empty context, or compact too late.
    pub(super) fn begin(&self, prompt: u64, out: &mut BytesMut) {
        let message = self.object(Stop::default(), MessageUsage::estimated(prompt));
        push(out, &Event::MessageStart { message });
    }

    /// Appends the last events.
    pub(super) fn finish(stop: Stop<'_>, seen: u64, finish: &Finish, out: &mut BytesMut) {
        let usage = MessageUsage::new(finish, seen);
        push(out, &Event::MessageDelta { delta: stop, usage });
        push(out, &Event::MessageStop);
    }

    /// The whole message.
    pub(super) fn whole(&self, stop: Stop<'_>, seen: u64, finish: &Finish) -> Bytes {
        let mut out = BytesMut::new();
        json::push(&mut out, &self.object(stop, MessageUsage::new(finish, seen)));
        out.freeze()
    }

    fn object<'a>(&'a self, stop: Stop<'a>, usage: MessageUsage) -> MessageObject<'a> {
        MessageObject {
            id: &self.identity.id,
            r#type: "message",
            role: "assistant",
            model: &self.identity.model,
            content: &self.content,
            stop,
            usage,
        }
    }

    fn begun(&self, block: Block) -> OpenBlock {
        let (kind, id, name) = match block {
            Block::Text | Block::Refusal => (Kind::Text, String::new(), String::new()),
            Block::Reasoning => (Kind::Thinking, String::new(), String::new()),
            Block::Call { id, name, .. } => (Kind::ToolUse, id, name),
        };
        let id = if kind == Kind::ToolUse && id.is_empty() {
            let suffix = self.identity.id.strip_prefix(MESSAGE_ID_PREFIX).unwrap_or_default();
            format!("toolu_{suffix}{:04x}", self.index)
        } else {
            id
        };
        OpenBlock {
            kind,
            id,
            name,
            prefix: Vec::new(),
        }
    }

    /// A placeholder for the signature of the model's thoughts. Clients send thoughts back only with a signature;
    /// nothing here checks it.
    fn signature(&self) -> String {
        format!("{}:{}", self.identity.id, self.index)
    }

    fn hides(&self, kind: Kind) -> bool {
        kind == Kind::Thinking && self.thoughts == Thoughts::Omitted
    }
}

impl OpenBlock {
    /// The block with `text` in it.
    fn block(&self, text: String, signature: String) -> ContentBlock {
        match self.kind {
            Kind::Text => ContentBlock::Text { text },
            Kind::Thinking => ContentBlock::Thinking {
                thinking: text,
                signature,
            },
            Kind::ToolUse => ContentBlock::ToolUse {
                id: self.id.clone(),
                name: self.name.clone(),
                input: ToolInput::new(&text),
            },
        }
    }

    /// The type of the block's deltas, and the name of their text.
    fn delta(&self) -> (&'static str, &'static str) {
        match self.kind {
            Kind::Text => ("text_delta", "text"),
            Kind::Thinking => ("thinking_delta", "thinking"),
            Kind::ToolUse => ("input_json_delta", "partial_json"),
        }
    }
}

impl BlockSink for Writer {
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
        let text = std::mem::take(&mut self.text);
        self.content.push(open.block(text, self.signature()));
        self.index += 1;
    }
}

impl BlockSink for EventWriter<'_> {
    fn open(&mut self, block: Block) {
        let index = self.writer.index;
        let mut open = self.writer.begun(block);
        let content_block = open.block(String::new(), String::new());
        push(self.out, &Event::ContentBlockStart { index, content_block });
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
            let signature = self.writer.signature();
            let delta = SignatureDelta { signature };
            push(self.out, &Event::ContentBlockDelta { index, delta });
        }
        push(self.out, &Event::ContentBlockStop { index });
        self.writer.index += 1;
    }
}

fn push(out: &mut BytesMut, event: &Event<'_>) {
    push_named(out, event.name(), event);
}
