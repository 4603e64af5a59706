//! Every encoded message decodes to itself; no bytes cause a panic.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::borrow::Cow;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use tokenbus_protocol::testing::FORMAT;
use tokenbus_protocol::*;
use uuid::Uuid;

fn name() -> impl Strategy<Value = Name> {
    "[A-Za-z0-9_][A-Za-z0-9_-]{0,20}".prop_map(|text| Name::new(&text).unwrap())
}

fn json() -> impl Strategy<Value = RawJson> {
    "\\PC{0,20}".prop_map(|text| RawJson::from_serialize(&serde_json::json!({ "k": text, "n": [1.5, null] })).unwrap())
}

fn extra() -> impl Strategy<Value = DeltaExtra> {
    (
        option::of(json()),
        option::of(json()),
        option::of(json()),
        option::of(json()),
        option::of("\\PC{0,9}"),
    )
        .prop_map(|(delta, logprobs, choice, chunk, fingerprint)| DeltaExtra {
            delta,
            logprobs,
            choice,
            chunk,
            fingerprint,
        })
}

fn room() -> impl Strategy<Value = Room> {
    (any::<u32>(), any::<u32>()).prop_map(|(free, queued)| Room {
        free,
        queued,
        pending: None,
    })
}

fn delta() -> impl Strategy<Value = Delta<'static>> {
    (
        any::<u32>(),
        "\\PC{0,40}",
        any::<u32>(),
        vec(any::<u32>(), 0..4),
        option::of("[a-z_]{1,12}"),
        option::of(extra()),
    )
        .prop_map(|(choice, text, tokens, token_ids, finish_reason, extra)| Delta {
            choice,
            text: Cow::Owned(text),
            tokens,
            token_ids,
            finish_reason,
            extra: extra.map(Box::new),
        })
}

fn reject() -> impl Strategy<Value = Reject> {
    (
        prop::sample::select(RejectReason::ALL),
        name(),
        room(),
        "\\PC{0,20}",
        option::of(any::<u64>()),
        option::of(any::<u128>()),
    )
        .prop_map(|(reason, worker, room, message, retry_after_ms, id)| Reject {
            reason,
            worker,
            room,
            message,
            retry_after_ms,
            id: id.map(uuid::Uuid::from_u128),
        })
}

fn error() -> impl Strategy<Value = EngineError> {
    (
        prop::sample::select(ErrorCode::ALL),
        "\\PC{0,20}",
        option::of("\\PC{0,9}"),
        option::of("\\PC{0,9}"),
        any::<bool>(),
        option::of(any::<u64>()),
    )
        .prop_map(
            |(code, message, param, engine_code, retryable, retry_after_ms)| EngineError {
                code,
                message,
                param,
                engine_code,
                retryable,
                retry_after_ms,
            },
        )
}

fn body() -> impl Strategy<Value = Body<'static>> {
    prop_oneof![
        4 => delta().prop_map(Body::Delta),
        1 => (any::<u128>(), name(), any::<u64>(), any::<u32>(), any::<bool>()).prop_map(
            |(id, worker, instance, queue_position, resumable)| Body::Accepted(Accepted {
                id: Uuid::from_u128(id), worker, instance, queue_position, resumable
            })
        ),
        1 => (option::of(any::<u64>()), option::of(any::<u64>()), option::of(json()), option::of(json())).prop_map(
            |(prompt_tokens, completion_tokens, usage, chunk)| Body::Finish(Finish {
                prompt_tokens, completion_tokens, usage, chunk
            })
        ),
        1 => reject().prop_map(Body::Reject),
        1 => error().prop_map(Body::Error),
        1 => any::<u32>().prop_map(|queue_position| Body::Alive(Alive { queue_position })),
        1 => room().prop_map(Body::Room),
        1 => (any::<u64>(), vec((any::<u64>(), any::<u32>(), any::<u32>()), 0..5)).prop_map(|(instance, streams)| {
            let held = |(stream, attempt, next_seq)| HeldStream { stream, attempt, next_seq };
            Body::Held(Held { instance, streams: streams.into_iter().map(held).collect() })
        }),
    ]
}

fn frame() -> impl Strategy<Value = Frame<'static>> {
    (any::<u64>(), any::<u32>(), any::<u32>(), body()).prop_map(|(stream, attempt, seq, body)| Frame {
        stream,
        attempt,
        seq,
        body,
    })
}

fn resume() -> impl Strategy<Value = Resume> {
    let choice = (
        any::<u32>(),
        "\\PC{0,30}",
        any::<u64>(),
        vec(any::<u32>(), 0..4),
        "\\PC{0,9}",
        option::of("[a-z]{1,9}"),
    )
        .prop_map(
            |(index, text, tokens, token_ids, reasoning, finish_reason)| ResumeChoice {
                index,
                text,
                tokens,
                token_ids,
                reasoning,
                finish_reason,
            },
        );
    vec(choice, 0..3).prop_map(|choices| Resume { choices })
}

fn request() -> impl Strategy<Value = Request<'static>> {
    let numbers = (
        any::<u128>(),
        any::<u64>(),
        any::<u32>(),
        any::<u32>(),
        any::<u64>(),
        any::<i32>(),
    );
    let texts = (name(), "\\PC{1,20}", option::of("\\PC{0,9}"), option::of("\\PC{0,9}"));
    let rest = (
        option::of(("\\PC{0,20}", option::of("\\PC{0,9}"))),
        option::of(resume()),
        option::of((any::<u32>(), any::<u64>())),
        vec(any::<u8>(), 0..100),
        prop::sample::select(RequestKind::ALL),
        vec(prop::sample::select(Feature::ALL), 0..4),
    );
    (numbers, texts, rest).prop_map(|(numbers, texts, rest)| Request {
        id: Uuid::from_u128(numbers.0),
        gateway: texts.0,
        stream: numbers.1,
        attempt: numbers.2,
        floor: numbers.3,
        kind: rest.4,
        model: texts.1,
        needs: rest
            .5
            .into_iter()
            .filter(|feature| *feature != Feature::Other)
            .collect(),
        labels: Default::default(),
        budget_ms: numbers.4,
        priority: numbers.5,
        tenant: texts.2,
        client_id: texts.3,
        trace: rest.0.map(|(parent, state)| TraceContext { parent, state }),
        resume: rest.1,
        parts: rest.2.map(|(count, bytes)| Parts { count, bytes }),
        prompt: Cow::Owned(rest.3.clone()),
        body: Cow::Owned(rest.3),
    })
}

fn control() -> impl Strategy<Value = Control> {
    prop_oneof![
        (any::<u128>(), any::<u32>()).prop_map(|(id, attempt)| Control::Cancel(Cancel {
            id: Uuid::from_u128(id),
            attempt
        })),
        (any::<u128>(), any::<u32>(), any::<u32>(), vec(any::<u8>(), 0..50)).prop_map(|(id, attempt, index, data)| {
            Control::Part(Part {
                id: Uuid::from_u128(id),
                attempt,
                index,
                data: data.into(),
            })
        }),
        option::of(any::<u64>()).prop_map(|grace_ms| Control::Drain(Drain { grace_ms })),
        Just(Control::Ping(Ping {})),
        name().prop_map(|gateway| Control::RollCall(RollCall { gateway })),
        (any::<u64>(), any::<u64>()).prop_map(|(instance, started_at_ms)| {
            Control::Claim(Claim {
                instance,
                started_at_ms,
            })
        }),
    ]
}

fn status() -> impl Strategy<Value = Status> {
    let numbers = (
        any::<u64>(),
        any::<u64>(),
        any::<u64>(),
        any::<u32>(),
        any::<u32>(),
        any::<u32>(),
    );
    (
        name(),
        numbers,
        prop::sample::select(WorkerState::ALL),
        vec("\\PC{1,9}", 0..3),
        0.0..1e6_f64,
    )
        .prop_map(|(worker, numbers, state, models, rate)| Status {
            report: WorkerReport {
                worker,
                instance: numbers.0,
                seq: numbers.1,
                version: "0.1.0".into(),
                host: "h".into(),
                engine: "sim".into(),
                state,
                started_at_ms: numbers.2,
                models: models
                    .into_iter()
                    .map(|name| ModelInfo {
                        name,
                        context_length: Some(9),
                        capabilities: Capabilities::default(),
                    })
                    .collect(),
                slots: numbers.3,
                active: numbers.4,
                queued: numbers.5,
                tokens_per_second: rate,
                ttft: Quantiles {
                    p50: rate,
                    p90: 1.0,
                    p99: 2.0,
                },
                itl: Quantiles::default(),
                kv_used: Some(0.5),
                slots_from: None,
                labels: Default::default(),
                tier: 0,
            },
            totals: Totals {
                tokens: numbers.0,
                ..Totals::default()
            },
            loads: vec![ModelLoad {
                model: "m".into(),
                active: numbers.4,
                queued: numbers.5,
                tokens_per_second: rate,
            }],
        })
}

proptest! {
    #[test]
    fn requests_come_back(request in request()) {
        let bytes = encode(&request).unwrap();
        prop_assert_eq!(decode::<Request<'_>>(&bytes).unwrap(), request);
    }

    #[test]
    fn controls_come_back(control in control()) {
        prop_assert_eq!(decode::<Control>(&encode(&control).unwrap()).unwrap(), control);
    }

    #[test]
    fn statuses_come_back(status in status()) {
        prop_assert_eq!(decode::<Status>(&encode(&status).unwrap()).unwrap(), status);
    }

    #[test]
    fn frames_come_back_in_order_in_batches_of_bounded_size(frames in vec(frame(), 0..200)) {
        let mut writer = BatchWriter::new();
        let mut messages = Vec::new();
        for frame in &frames {
            messages.extend(writer.push(frame).unwrap());
        }
        messages.extend(writer.seal());
        prop_assert!(writer.is_empty());
        let mut back = Vec::new();
        for message in &messages {
            prop_assert!(message.len() <= MAX_BATCH);
            BatchReader::new(message).unwrap().for_each(|frame| back.push(frame.into_owned())).unwrap();
        }
        prop_assert_eq!(back, frames);
    }

    #[test]
    fn any_bytes_are_refused_or_read_but_never_panic(bytes in vec(any::<u8>(), 0..300), format in any::<bool>()) {
        let mut bytes = bytes;
        if format && let Some(first) = bytes.first_mut() {
            *first = FORMAT;
        }
        let _ = decode::<Request<'_>>(&bytes);
        let _ = decode::<Control>(&bytes);
        let _ = decode::<ControlReply>(&bytes);
        let _ = decode::<Status>(&bytes);
        let _ = decode::<Capacity>(&bytes);
        let _ = decode::<Event>(&bytes);
        let _ = decode::<UsageRecord>(&bytes);
        let _ = decode::<Consumption>(&bytes);
        let _ = decode::<DeadlyRequest>(&bytes);
        let _ = BatchReader::new(&bytes).and_then(|reader| reader.for_each(|_| {}));
    }

    /// Nearly valid bytes reach deeper than random ones.
    #[test]
    fn damaged_messages_never_panic(request in request(), frames in vec(frame(), 1..9), at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>()) {
        let mut writer = BatchWriter::new();
        for frame in &frames {
            writer.push(frame).unwrap();
        }
        for mut bytes in [encode(&request).unwrap(), writer.seal().unwrap_or_default()] {
            if bytes.is_empty() { continue; }
            let at = at.index(bytes.len());
            bytes[at] = byte;
            bytes.truncate(cut.index(bytes.len()) + 1);
            let _ = decode::<Request<'_>>(&bytes);
            let _ = BatchReader::new(&bytes).and_then(|reader| reader.for_each(|_| {}));
        }
    }
}

#[test]
fn a_frame_larger_than_a_batch_is_a_batch_of_its_own() {
    let large = Frame {
        stream: 1,
        attempt: 0,
        seq: 1,
        body: Body::Delta(Delta {
            text: "x".repeat(MAX_BATCH * 2).into(),
            ..Delta::default()
        }),
    };
    let small = Frame {
        stream: 1,
        attempt: 0,
        seq: 2,
        body: Body::Alive(Alive::default()),
    };
    let mut writer = BatchWriter::new();
    assert_eq!(writer.push(&small).unwrap(), None);
    assert!(writer.push(&large).unwrap().is_some(), "what was before leaves first");
    let message = writer.push(&small).unwrap().expect("the large one leaves alone");
    let mut count = 0;
    BatchReader::new(&message).unwrap().for_each(|_| count += 1).unwrap();
    assert_eq!((count, writer.len()), (1, 1));
}

#[test]
fn nesting_is_bounded() {
    // 0x91 is an array of one element. A tower of them must be refused and not overflow the stack.
    let mut tower = vec![FORMAT];
    tower.extend(std::iter::repeat_n(0x91, 1_000_000));
    assert!(decode::<Capacity>(&tower).is_err());
    let mut frame = vec![FORMAT, 0xdd, 0, 0, 0, 1, 0x81, 0xa1, b'z'];
    frame.extend(std::iter::repeat_n(0x91, 1_000_000));
    assert!(BatchReader::new(&frame).unwrap().for_each(|_| {}).is_err());
}

#[test]
fn a_promised_length_allocates_nothing() {
    // An array of 4 billion workers in nine bytes.
    let mut bytes = vec![FORMAT, 0x81, 0xa7];
    bytes.extend_from_slice(b"workers");
    bytes.extend_from_slice(&[0xdd, 0xff, 0xff, 0xff, 0xff]);
    assert!(decode::<Capacity>(&bytes).is_err());
}
