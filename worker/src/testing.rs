//! For this crate's benchmarks: what a worker does for each token of an engine behind HTTP, from the bytes of the engine's
//! connections to the message for the gateway, without sockets.

use std::hint::black_box;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use tokio::io::{AsyncRead, ReadBuf};

use crate::engine::openai::testing::EngineAnswer;
use crate::fast_path::line::Line;
use crate::outbox::Outbox;
use crate::outbox::stream::{Key, Stream, StreamParts, StreamSink};
use crate::report::load::Load;
use crate::report::metrics::Metrics;
use crate::sync::lock;

const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";

/// Steps before the first one that is counted: the answers have begun, and know the pattern of their chunks.
const BEFORE: u32 = 3;

/// The incoming half of a connection: what the engine has sent.
#[derive(Debug, Clone, Default)]
struct Wire(Arc<Mutex<Vec<u8>>>);

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let mut sent = lock(&self.0);
        if sent.is_empty() {
            return Poll::Pending;
        }
        buffer.put_slice(&sent);
        sent.clear();
        Poll::Ready(Ok(()))
    }
}

/// One answer of the engine.
struct Reader {
    wire: Wire,
    line: Line<Wire>,
    number: u64,
    answer: EngineAnswer,
}

/// Answers of one engine for one gateway.
pub struct EngineStreams {
    readers: Vec<Reader>,
    outbox: Arc<Outbox>,
    counted: bool,
    token: u32,
}

impl EngineStreams {
    /// So many. An engine that counts tells with each token how many they are, as vLLM does.
    pub fn new(streams: usize, counted: bool) -> Self {
        let load = Arc::new(Load::default());
        load.set_capacity(u32::try_from(streams).unwrap_or(u32::MAX), true);
        let outbox = Arc::new(Outbox::new(usize::MAX, Arc::clone(&load)));
        let metrics = Metrics::default();
        let readers = (1..=streams).map(|number| reader(number as u64, &load, &outbox, &metrics));
        let mut this = Self {
            readers: readers.collect(),
            outbox,
            counted,
            token: 0,
        };
        for _ in 0..BEFORE {
            this.step();
        }
        this
    }

    /// The engine sends a token of each answer, and the worker sends them on.
    pub fn step(&mut self) {
        self.token += 1;
        let chunk = chunk(self.token, self.counted);
        let mut context = Context::from_waker(Waker::noop());
        for reader in &mut self.readers {
            lock(&reader.wire.0).extend_from_slice(&chunk);
            let answer = &mut reader.answer;
            let read = reader
                .line
                .poll_body(reader.number, &mut context, &mut |bytes| answer.take(bytes));
            assert!(matches!(read, Poll::Ready(Ok(true))), "{read:?}");
            answer.read();
        }
        while let Some(message) = self.outbox.take() {
            black_box(message);
        }
    }
}

/// The chunk of one token, in the chunked coding.
fn chunk(token: u32, counted: bool) -> Vec<u8> {
    let usage = if counted {
        format!(
            r#","usage":{{"prompt_tokens":20,"total_tokens":{},"completion_tokens":{token}}}"#,
            20 + token
        )
    } else {
        String::new()
    };
    let event = format!(
        "data: {{\"id\":\"chatcmpl-0197f3c5a3d47c31\",\"object\":\"chat.completion.chunk\",\"created\":1790000000,\
         \"model\":\"qwen2.5:0.5b\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"token \"}},\"logprobs\":null,\
         \"finish_reason\":null}}]{usage}}}\n\n"
    );
    format!("{:x}\r\n{event}\r\n", event.len()).into_bytes()
}

fn reader(number: u64, load: &Arc<Load>, outbox: &Arc<Outbox>, metrics: &Metrics) -> Reader {
    let stream = Stream::new(StreamParts {
        key: Key {
            id: uuid::Uuid::nil(),
            attempt: 0,
        },
        number,
        outbox: Arc::clone(outbox),
        metrics: metrics.clone(),
        share: load.share("m"),
        ends: tokenbus_engine::job_channel().0,
        max_frame: 1024 * 1024,
        arrived: Instant::now(),
        traced: None,
        paced: true,
    });
    stream.hold(load.occupy(stream.share()));
    let wire = Wire::default();
    let mut line = Line::new(wire.clone());
    line.sends(b"POST /v1/chat/completions HTTP/1.1\r\n");
    lock(&wire.0).extend_from_slice(HEAD.as_bytes());
    let mut space = [0; HEAD.len()];
    let mut library = ReadBuf::new(&mut space);
    let head = line.poll_http(&mut Context::from_waker(Waker::noop()), &mut library);
    assert!(matches!(head, Poll::Ready(Ok(()))), "{head:?}");
    let number = line.tapped().unwrap_or_default();
    Reader {
        wire,
        line,
        number,
        answer: EngineAnswer::new(Box::new(StreamSink::new(stream))),
    }
}
