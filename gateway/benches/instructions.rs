//! The hot path's work, so often and no oftener, for a count of its instructions: see `bench/instructions.sh`.
//!
//! `instructions` lists the work, one name and the tokens (or requests) of a step a line; `instructions NAME STEPS`
//! does it. What is set up before is the same however many steps there are, so that the difference of two counts is
//! the work's alone.
#![allow(missing_docs, unreachable_pub, dead_code)]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout)]

mod work;

use bytes::BytesMut;
use work::codec;

/// Something that can be done again and again.
type Step = Box<dyn FnMut()>;

/// Name, units of one step, and how it is set up.
type Work = (&'static str, u64, fn() -> Step);

const ALL: [Work; 11] = [
    ("codec_encode_token", codec::STREAMS, || Box::new(codec::encode_tokens)),
    ("codec_decode_token", codec::STREAMS, || decode(|_| ())),
    ("codec_encode_finish", codec::STREAMS, || {
        Box::new(codec::encode_finishes)
    }),
    ("codec_decode_finish", codec::STREAMS, || decode(codec::finished)),
    ("codec_request", 1, || {
        let request = codec::request();
        Box::new(move || codec::request_both_ways(&request))
    }),
    ("demux_to_client", codec::STREAMS, || {
        demultiplexer(work::Demultiplexer::to_clients())
    }),
    ("demux_to_http2", codec::STREAMS, || {
        demultiplexer(work::Demultiplexer::to_http2())
    }),
    ("demux_to_reader", codec::STREAMS, || {
        demultiplexer(work::Demultiplexer::to_readers())
    }),
    ("sse_token", 1, || events("token ")),
    ("sse_escaped", 1, || events("\"a\\b\"\n\u{1}é")),
    ("placement_200_workers", 1, || {
        let mut placement = work::Placement::new(200);
        Box::new(move || placement.step())
    }),
];

fn decode(extend: fn(&mut tokenbus_protocol::Frame<'_>)) -> Step {
    let messages = codec::step(77, "token ", extend);
    Box::new(move || codec::decode_all(&messages))
}

fn demultiplexer(mut demultiplexer: work::Demultiplexer) -> Step {
    Box::new(move || demultiplexer.step())
}

fn events(text: &'static str) -> Step {
    let (mut encoder, mut out) = (work::encoder(), BytesMut::with_capacity(4096));
    Box::new(move || work::event(&mut *encoder, text, &mut out))
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let [name, steps] = arguments.as_slice() else {
        for (name, units, _) in ALL {
            println!("{name} {units}");
        }
        return;
    };
    let (_, _, set_up) = ALL.iter().find(|(known, _, _)| known == name).unwrap();
    let mut step = set_up();
    for _ in 0..steps.parse::<u64>().unwrap() {
        step();
    }
}
