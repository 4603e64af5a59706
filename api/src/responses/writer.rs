//! The response object and its events, written as the answer comes. The answer in one piece is what
//! the last event of a stream carries, from the same code.

use bytes::{BufMut as _, BytesMut};
use tokenbus_protocol::Finish;

use super::free_text::FreeText;
use super::item::Item;
use super::response::ResponseForm;
use crate::answer::json::{push_escaped, push_number, push_string};
use crate::answer::usage::Counts;
use crate::answer::{Failure, Identity};
use crate::translation::blocks::{Block, BlockSink, Ending};

/// What is known of a response while it comes.
#[derive(Debug)]
pub(super) struct Writer {
    identity: Identity,
    shape: ResponseForm,
    /// Number of the next event.
    sequence: u64,
    /// The items that are complete, with commas between them.
    items: BytesMut,
    count: usize,
    open: Option<Open>,
    /// The answer was cut off: what is closed from here on is incomplete.
    cut: bool,
}

/// The item that grows at the moment.
#[derive(Debug)]
struct Open {
    item: Item,
    /// Everything of a delta event before the text.
    prefix: Vec<u8>,
    /// Reads the text of a call whose input is free text, while the engine's call is one of a function.
    free_text: Option<FreeText>,
}

/// How a response stands.
#[derive(Debug, Clone, Copy)]
enum Status<'a> {
    InProgress,
    Completed,
    /// Why it is not complete.
    Incomplete(&'static str),
    Failed(&'a Failure<'a>),
}

/// The writer with a place for its events, where there is one.
pub(super) struct EventWriter<'a> {
    pub(super) writer: &'a mut Writer,
    pub(super) out: Option<&'a mut BytesMut>,
}

impl Writer {
    pub(super) fn new(identity: Identity, shape: ResponseForm) -> Self {
        Self {
            identity,
            shape,
            sequence: 0,
            items: BytesMut::new(),
            count: 0,
            open: None,
            cut: false,
        }
    }

    /// Appends the events before any output.
    pub(super) fn begin(&mut self, out: &mut BytesMut) {
        for name in ["response.created", "response.in_progress"] {
            self.lifecycle(name, Status::InProgress, None, out);
        }
    }

    /// The engine has said why the answer ends: what is still open when it is cut off is
    /// incomplete.
    pub(super) fn ends(&mut self, reason: Option<&str>) {
        self.cut = incomplete(reason).is_some();
    }

    /// Appends the last event.
    pub(super) fn finish(&mut self, ending: &Ending, finish: &Finish, out: &mut BytesMut) {
        let status = status(ending);
        let name = match status {
            Status::Incomplete(_) => "response.incomplete",
            _ => "response.completed",
        };
        self.lifecycle(name, status, Some(finish), out);
    }

    /// Appends the whole response object.
    pub(super) fn whole(&mut self, ending: &Ending, finish: &Finish, out: &mut BytesMut) {
        self.object(status(ending), Some(finish), out);
    }

    /// Appends the end of a stream that failed.
    ///
    /// The `error` event has its members as the API documents them and, in `error`, as the servers of
    /// OpenAI send them: the official SDKs raise an error for the second. `response.failed` is what
    /// clients wait for that know an end of the response's life only.
    pub(super) fn fail(&mut self, failure: &Failure<'_>, out: &mut BytesMut) {
        self.event("error", out, |_, out| {
            out.extend_from_slice(b",\"code\":");
            push_optional(out, failure.code);
            out.extend_from_slice(b",\"message\":");
            push_string(out, failure.message);
            out.extend_from_slice(b",\"param\":");
            push_optional(out, failure.param);
            let envelope = crate::answer::openai_envelope(failure);
            let inner = envelope.strip_prefix(b"{").and_then(|rest| rest.strip_suffix(b"}"));
            out.put_u8(b',');
            out.extend_from_slice(inner.unwrap_or_default());
        });
        if let Some(open) = self.open.take() {
            self.keep(&open.item, "incomplete");
        }
        self.lifecycle("response.failed", Status::Failed(failure), None, out);
    }

    fn lifecycle(&mut self, name: &str, status: Status<'_>, finish: Option<&Finish>, out: &mut BytesMut) {
        self.event(name, out, |writer, out| {
            out.extend_from_slice(b",\"response\":");
            writer.object(status, finish, out);
        });
    }

    /// Appends one event; `members` writes what comes behind its type and number.
    fn event(&mut self, name: &str, out: &mut BytesMut, members: impl FnOnce(&Self, &mut BytesMut)) {
        push_number(out, format_args!("event: {name}\ndata: {{\"type\":\"{name}\""));
        push_number(out, format_args!(",\"sequence_number\":{}", self.sequence));
        self.sequence += 1;
        members(self, out);
        out.extend_from_slice(b"}\n\n");
    }

    fn object(&self, status: Status<'_>, finish: Option<&Finish>, out: &mut BytesMut) {
        out.extend_from_slice(b"{\"id\":");
        push_string(out, &self.identity.id);
        let created = self.identity.created;
        push_number(out, format_args!(",\"object\":\"response\",\"created_at\":{created}"));
        let word = match status {
            Status::InProgress => "in_progress",
            Status::Completed => "completed",
            Status::Incomplete(_) => "incomplete",
            Status::Failed(_) => "failed",
        };
        push_number(out, format_args!(",\"status\":\"{word}\",\"error\":"));
        match status {
            Status::Failed(failure) => {
                push_number(
                    out,
                    format_args!("{{\"code\":\"{}\",\"message\":", code(failure.status)),
                );
                push_string(out, failure.message);
                out.put_u8(b'}');
            }
            _ => out.extend_from_slice(b"null"),
        }
        out.extend_from_slice(b",\"incomplete_details\":");
        match status {
            Status::Incomplete(reason) => push_number(out, format_args!("{{\"reason\":\"{reason}\"}}")),
            _ => out.extend_from_slice(b"null"),
        }
        out.extend_from_slice(b",\"model\":");
        push_string(out, &self.identity.model);
        out.extend_from_slice(b",\"output\":[");
        if !matches!(status, Status::InProgress) {
            out.extend_from_slice(&self.items);
        }
        out.extend_from_slice(b"],\"usage\":");
        push_usage(finish, out);
        // What failed is not kept.
        let store = self.shape.is_kept() && !matches!(status, Status::Failed(_));
        push_number(out, format_args!(",\"store\":{store},"));
        out.extend_from_slice(self.shape.echo.as_bytes());
        out.put_u8(b'}');
    }

    /// Adds an item that grows no more to the output.
    fn keep(&mut self, item: &Item, status: &str) {
        if self.count > 0 {
            self.items.put_u8(b',');
        }
        item.push(&mut self.items, status);
        self.count += 1;
    }

    fn opened(&mut self, item: &Item, out: &mut BytesMut) {
        let index = self.count;
        self.event("response.output_item.added", out, |_, out| {
            push_number(out, format_args!(",\"output_index\":{index},\"item\":"));
            item.push_begun(out);
        });
        if item.has_parts() {
            self.part("added", item, out);
        }
    }

    fn part(&mut self, what: &str, item: &Item, out: &mut BytesMut) {
        let index = self.count;
        let name = format!("response.{}.{what}", item.part_event());
        self.event(&name, out, |_, out| {
            item.push_place(out, index);
            out.extend_from_slice(b",\"part\":");
            item.push_part(out);
        });
    }

    fn closed(&mut self, item: &Item, status: &str, out: &mut BytesMut) {
        let index = self.count;
        let name = format!("response.{}.done", item.event());
        self.event(&name, out, |_, out| {
            item.push_place(out, index);
            item.push_done(out);
        });
        if item.has_parts() {
            self.part("done", item, out);
        }
        self.event("response.output_item.done", out, |_, out| {
            push_number(out, format_args!(",\"output_index\":{index},\"item\":"));
            item.push(out, status);
        });
    }
}

impl BlockSink for EventWriter<'_> {
    fn open(&mut self, block: Block) {
        let suffix = self
            .writer
            .identity
            .id
            .strip_prefix(super::ids::RESPONSE_ID_PREFIX)
            .unwrap_or_default();
        let natively = matches!(block, Block::Call { custom: true, .. });
        let item = Item::new(
            block,
            &self.writer.shape.origins,
            self.writer.shape.reasoning.clone(),
            suffix,
            self.writer.count,
        );
        let free_text = (item.is_custom() && !natively).then(FreeText::default);
        let mut prefix = BytesMut::new();
        if let Some(out) = self.out.as_deref_mut() {
            self.writer.opened(&item, out);
            let name = item.event();
            push_number(
                &mut prefix,
                format_args!("event: response.{name}.delta\ndata: {{\"type\":\"response.{name}.delta\""),
            );
            item.push_place(&mut prefix, self.writer.count);
            prefix.extend_from_slice(b",\"delta\":\"");
        }
        self.writer.open = Some(Open {
            item,
            prefix: prefix.to_vec(),
            free_text,
        });
    }

    fn append(&mut self, text: &str, logprobs: &str) {
        let Some(open) = &mut self.writer.open else { return };
        match &mut open.free_text {
            None => self.grow(text, logprobs),
            Some(free_text) => {
                let text = free_text.feed(text);
                self.grow_free(&text);
            }
        }
    }

    fn close(&mut self) {
        let left = self.writer.open.as_mut().and_then(|open| open.free_text.as_mut());
        let left = left.map(FreeText::finish).unwrap_or_default();
        self.grow_free(&left);
        let Some(open) = self.writer.open.take() else { return };
        let status = if self.writer.cut { "incomplete" } else { "completed" };
        if let Some(out) = self.out.as_deref_mut() {
            self.writer.closed(&open.item, status, out);
        }
        self.writer.keep(&open.item, status);
    }
}

impl EventWriter<'_> {
    /// Adds what was read of a free text, if there is any.
    fn grow_free(&mut self, text: &str) {
        if !text.is_empty() {
            self.grow(text, "");
        }
    }

    /// Adds to the open item and tells it in an event.
    fn grow(&mut self, text: &str, logprobs: &str) {
        let Some(open) = &mut self.writer.open else { return };
        open.item.grow(text, logprobs);
        let Some(out) = self.out.as_deref_mut() else { return };
        out.extend_from_slice(&open.prefix);
        push_escaped(out, text);
        out.put_u8(b'"');
        if open.item.is_text() {
            out.extend_from_slice(b",\"logprobs\":[");
            out.extend_from_slice(logprobs.as_bytes());
            out.put_u8(b']');
        }
        push_number(out, format_args!(",\"sequence_number\":{}}}\n\n", self.writer.sequence));
        self.writer.sequence += 1;
    }
}

/// Why an answer with this `finish_reason` is not complete, if so.
fn incomplete(reason: Option<&str>) -> Option<&'static str> {
    match reason {
        Some("length") => Some("max_output_tokens"),
        Some("content_filter") => Some("content_filter"),
        _ => None,
    }
}

fn status(ending: &Ending) -> Status<'static> {
    incomplete(ending.reason.as_deref()).map_or(Status::Completed, Status::Incomplete)
}

/// The code of a failed response: the API has a closed list of them.
fn code(status: u16) -> &'static str {
    match status {
        429 => "rate_limit_exceeded",
        400..=499 => "invalid_prompt",
        _ => "server_error",
    }
}

fn push_optional(out: &mut BytesMut, text: Option<&str>) {
    match text {
        Some(text) => push_string(out, text),
        None => out.extend_from_slice(b"null"),
    }
}

fn push_usage(finish: Option<&Finish>, out: &mut BytesMut) {
    let Some(counts) = finish.and_then(Counts::of) else {
        out.extend_from_slice(b"null");
        return;
    };
    let Counts {
        prompt,
        completion,
        cached,
        reasoning,
    } = counts;
    let total = prompt.saturating_add(completion);
    push_number(
        out,
        format_args!(
            "{{\"input_tokens\":{prompt},\"input_tokens_details\":{{\"cached_tokens\":{},\"cache_write_tokens\":0}},\
             \"output_tokens\":{completion},\"output_tokens_details\":{{\"reasoning_tokens\":{}}},\
             \"total_tokens\":{total}}}",
            cached.unwrap_or(0),
            reasoning.unwrap_or(0),
        ),
    );
}
