//! The work of the worker for each token, so often and no oftener, for a count of its instructions: see
//! `bench/instructions.sh` and the gateway's work of the same name.
#![allow(missing_docs)]
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use tokenbus_worker::testing::EngineStreams;

/// Streams of an engine that run side by side.
const STREAMS: usize = 128;

const ALL: [(&str, bool); 2] = [("engine_token", false), ("engine_counted_token", true)];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let [name, steps] = arguments.as_slice() else {
        for (name, _) in ALL {
            println!("{name} {STREAMS}");
        }
        return;
    };
    let (_, counted) = ALL.iter().find(|(known, _)| known == name).unwrap();
    let mut streams = EngineStreams::new(STREAMS, *counted);
    for _ in 0..steps.parse::<u64>().unwrap() {
        streams.step();
    }
}
