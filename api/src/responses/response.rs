//! The form of an answer of the Responses API.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{Bytes, BytesMut};
use tokenbus_protocol::{Delta, Finish};

use super::item::Reasoning;
use super::tools::Origins;
use super::writer::{EventWriter, Writer};
use crate::answer::{AnswerError, Collect, Encoder, Failure, Form, Identity};
use crate::translation::blocks::Blocks;

/// In which form one client wants its response.
#[derive(Debug, Clone)]
pub struct ResponseForm {
    stream: bool,
    /// The members of the response object that say what was asked for, with commas between them.
    pub(super) echo: Arc<str>,
    kept: Arc<AtomicBool>,
    /// The client's names of the tools.
    pub(super) origins: Origins,
    pub(super) reasoning: Reasoning,
}

impl ResponseForm {
    pub(super) fn new(stream: bool, echo: String, kept: bool, origins: Origins, reasoning: Reasoning) -> Self {
        Self {
            stream,
            echo: echo.into(),
            kept: Arc::new(AtomicBool::new(kept)),
            origins,
            reasoning,
        }
    }

    /// Whether the response is kept, as its `store` tells.
    pub fn is_kept(&self) -> bool {
        self.kept.load(Ordering::Relaxed)
    }

    /// The response could not be kept after all: what is written from now on says so.
    pub fn not_kept(&self) {
        self.kept.store(false, Ordering::Relaxed);
    }
}

impl Form for ResponseForm {
    fn is_stream(&self) -> bool {
        self.stream
    }

    fn encoder(&self, identity: Identity) -> Box<dyn Encoder> {
        Box::new(Response::new(identity, self.clone()))
    }

    fn collector(&self, identity: Identity) -> Box<dyn Collect> {
        Box::new(Response::new(identity, self.clone()))
    }
}

/// A response that comes.
#[derive(Debug)]
struct Response {
    blocks: Blocks,
    writer: Writer,
}

impl Response {
    fn new(identity: Identity, shape: ResponseForm) -> Self {
        Self {
            blocks: Blocks::default(),
            writer: Writer::new(identity, shape),
        }
    }

    fn take(&mut self, delta: &Delta<'_>, out: Option<&mut BytesMut>) -> Result<(), AnswerError> {
        let mut sink = EventWriter {
            writer: &mut self.writer,
            out,
        };
        self.blocks.delta(delta, &mut sink)
    }
}

impl Encoder for Response {
    fn begin(&mut self, out: &mut BytesMut) {
        self.writer.begin(out);
    }

    fn delta(&mut self, delta: &Delta<'_>, out: &mut BytesMut) -> Result<(), AnswerError> {
        self.take(delta, Some(out))
    }

    fn finish(&mut self, finish: &Finish, out: &mut BytesMut) -> Result<(), AnswerError> {
        self.writer.ends(self.blocks.reason());
        let mut sink = EventWriter {
            writer: &mut self.writer,
            out: Some(&mut *out),
        };
        let ending = self.blocks.finish(true, &mut sink)?;
        self.writer.finish(&ending, finish, out);
        Ok(())
    }

    fn fail(&mut self, failure: &Failure<'_>, out: &mut BytesMut) {
        self.writer.fail(failure, out);
    }
}

impl Collect for Response {
    fn delta(&mut self, delta: &Delta<'_>) -> Result<(), AnswerError> {
        self.take(delta, None)
    }

    fn finish(mut self: Box<Self>, finish: &Finish) -> Result<Bytes, AnswerError> {
        self.writer.ends(self.blocks.reason());
        let mut sink = EventWriter {
            writer: &mut self.writer,
            out: None,
        };
        let ending = self.blocks.finish(true, &mut sink)?;
        let mut out = BytesMut::new();
        self.writer.whole(&ending, finish, &mut out);
        Ok(out.freeze())
    }
}

#[cfg(test)]
#[path = "response_tests.rs"]
mod tests;
