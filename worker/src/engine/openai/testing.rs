//! For this crate's benchmarks: the reading of one streamed answer, as `generate` does it.

use std::sync::{LazyLock, Mutex};

use tokenbus_http_parts::EventParser;

use super::answer::exchange::{Output, emit};
use super::answer::streamed::Answer;
use super::error::Secrets;
use super::limits;
use super::request::count::Counting;
use super::request::engine_request::{Asked, Call};
use super::request::seam::Seam;
use super::target::UsageRule;
use crate::engine::Sink;

static NO_SECRETS: LazyLock<Secrets> = LazyLock::new(Secrets::default);

/// One answer, from the bytes of its body to its sink.
pub(crate) struct EngineAnswer {
    parser: EventParser,
    read: Vec<u8>,
    answer: Answer<'static>,
    seam: Seam,
    output: Output,
}

impl EngineAnswer {
    /// An answer of which nothing has come.
    pub(crate) fn new(sink: Box<dyn Sink>) -> Self {
        let call = Call {
            body: bytes::Bytes::new(),
            choice: None,
            choices: 1,
            each: 1,
            echoes: Vec::new(),
            delivered: 0,
            again: 0,
            continues: false,
            seam: Seam::Open,
            counting: Counting::Usage,
            otherwise: None,
            asked: Asked::default(),
        };
        Self {
            parser: EventParser::new(limits::MAX_EVENT),
            read: Vec::new(),
            answer: Answer::new(&call, UsageRule::Last, &NO_SECRETS),
            seam: call.seam,
            output: Mutex::new(sink),
        }
    }

    /// Takes bytes of the body.
    pub(crate) fn take(&mut self, bytes: &[u8]) {
        self.read.extend_from_slice(bytes);
    }

    /// Reads what was taken.
    pub(crate) fn read(&mut self) {
        let mut unread = self.read.as_slice();
        while let Ok(Some(event)) = self.parser.next(&mut unread) {
            let mut out = |delta: tokenbus_protocol::Delta<'_>| emit(&self.output, delta);
            let step = self.answer.event(event, &mut |delta| self.seam.pass(delta, &mut out));
            assert!(step.is_ok(), "{step:?}");
        }
        self.read.clear();
    }
}
