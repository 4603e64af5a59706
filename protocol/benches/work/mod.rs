//! The codec's work for a cluster, repeatable: for the benchmarks and the instruction count.

use std::borrow::Cow;
use std::hint::black_box;

use tokenbus_protocol::{BatchReader, BatchWriter, Body, Delta, Frame, Name, Request, RequestKind, decode, encode};
use uuid::Uuid;

/// Streams that run side by side. A step of an engine makes one token for each.
pub const STREAMS: u64 = 512;

/// A frame of one token.
pub fn token(stream: u64, seq: u32, text: &str) -> Frame<'_> {
    let delta = Delta {
        text: Cow::Borrowed(text),
        tokens: 1,
        ..Delta::default()
    };
    Frame {
        stream,
        attempt: 0,
        seq,
        body: Body::Delta(delta),
    }
}

/// The messages of one step: a token for each stream. `extend` may change each frame.
pub fn step<'a>(seq: u32, text: &'a str, extend: impl Fn(&mut Frame<'a>)) -> Vec<Vec<u8>> {
    let mut writer = BatchWriter::new();
    let mut messages = Vec::new();
    for stream in 1..=STREAMS {
        let mut frame = token(stream, seq, text);
        extend(&mut frame);
        messages.extend(writer.push(&frame).unwrap());
    }
    messages.extend(writer.seal());
    messages
}

/// A frame with more than text, which takes the general path.
pub fn finished(frame: &mut Frame<'_>) {
    if let Body::Delta(delta) = &mut frame.body {
        delta.finish_reason = Some("length".to_owned());
    }
}

/// Encodes a step of plain tokens.
pub fn encode_tokens() {
    black_box(step(black_box(77), black_box("token "), |_| ()));
}

/// Encodes a step of frames with a finish reason.
pub fn encode_finishes() {
    black_box(step(black_box(77), black_box("token "), finished));
}

/// Reads the frames of messages.
pub fn decode_all(messages: &[Vec<u8>]) {
    for message in messages {
        let reader = BatchReader::new(black_box(message)).unwrap();
        reader.for_each(|frame| drop(black_box(frame))).unwrap();
    }
}

/// A chat request with a body of 2 KB.
pub fn request() -> Request<'static> {
    Request {
        id: Uuid::from_u128(7),
        gateway: Name::new("gw-1").unwrap(),
        stream: 4_711,
        attempt: 0,
        floor: 0,
        kind: RequestKind::Chat,
        model: "qwen2.5:0.5b".to_owned(),
        needs: tokenbus_protocol::Features::default(),
        labels: Default::default(),
        budget_ms: 600_000,
        priority: 0,
        tenant: Some("tenant".to_owned()),
        client_id: Some("0197-request".to_owned()),
        trace: None,
        resume: None,
        parts: None,
        prompt: (&[]).into(),
        body: vec![b'x'; 2_048].into(),
    }
}

/// Encodes a request and reads it again.
pub fn request_both_ways(request: &Request<'_>) {
    let bytes = encode(black_box(request)).unwrap();
    let read: Request<'_> = decode(black_box(&bytes)).unwrap();
    black_box(read);
}
