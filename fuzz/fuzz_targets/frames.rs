//! Everything that is decoded from the bus: any bytes are read or refused, never a panic. What is
//! read comes back the same when it is encoded again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tokenbus_protocol::testing::FORMAT;
use tokenbus_protocol::{
    BatchReader, BatchWriter, Capacity, Consumption, Control, ControlReply, DeadlyRequest, Event, Frame, Request, Status, UsageRecord,
    decode, encode,
};

fuzz_target!(|bytes: &[u8]| {
    read(bytes);
    // Without the right first byte everything is refused at once: most inputs should get further.
    let mut framed = Vec::with_capacity(bytes.len() + 1);
    framed.push(FORMAT);
    framed.extend_from_slice(bytes);
    read(&framed);
});

fn read(bytes: &[u8]) {
    if let Ok(request) = decode::<Request<'_>>(bytes) {
        let again = encode(&request).expect("what was read can be written");
        assert_eq!(decode::<Request<'_>>(&again).expect("and read"), request);
    }
    // A kind that is not known here is read as such, and refused when it is to be sent.
    if let Ok(control) = decode::<Control>(bytes)
        && let Ok(again) = encode(&control)
    {
        assert_eq!(decode::<Control>(&again).expect("and read"), control);
    }
    let _ = decode::<ControlReply>(bytes);
    let _ = decode::<Status>(bytes);
    let _ = decode::<Capacity>(bytes);
    let _ = decode::<Event>(bytes);
    let _ = decode::<UsageRecord>(bytes);
    let _ = decode::<Consumption>(bytes);
    let _ = decode::<DeadlyRequest>(bytes);
    frames(bytes);
}

fn frames(bytes: &[u8]) {
    let mut frames: Vec<Frame<'static>> = Vec::new();
    let Ok(()) = BatchReader::new(bytes).and_then(|reader| reader.for_each(|frame| frames.push(frame.into_owned())))
    else {
        return;
    };
    // A frame of a kind that is not known here is read as such and is never sent on.
    frames.retain(|frame| !matches!(frame.body, tokenbus_protocol::Body::Unknown));
    let mut writer = BatchWriter::new();
    let mut messages = Vec::new();
    for frame in &frames {
        messages.extend(writer.push(frame).expect("what was read can be written"));
    }
    messages.extend(writer.seal());
    let mut back = Vec::new();
    for message in &messages {
        let reader = BatchReader::new(message).expect("a batch of ours");
        reader
            .for_each(|frame| back.push(frame.into_owned()))
            .expect("frames of ours");
    }
    assert_eq!(back, frames);
}
