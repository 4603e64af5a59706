//! The bytes of each message, so that a change of the wire does not go unnoticed: peers of other versions must read
//! them. If a test fails here, change the version in the subjects, not the bytes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fmt::Write as _;

use tokenbus_protocol::*;
use uuid::Uuid;

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn json(text: &str) -> Option<RawJson> {
    Some(RawJson::new(text).unwrap())
}

const ID: Uuid = Uuid::from_u128(0x0192_0000_0000_7000_8000_0000_0000_0001);

/// Printable bytes unchanged, others as `\xx`.
fn show(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes {
        match byte {
            b'\\' => text.push_str("\\\\"),
            0x20..=0x7e => text.push(char::from(*byte)),
            other => write!(text, "\\{other:02x}").unwrap(),
        }
    }
    text
}

fn batch(body: Body<'static>) -> Vec<u8> {
    let mut writer = BatchWriter::new();
    writer
        .push(&Frame {
            stream: 7,
            attempt: 1,
            seq: 2,
            body,
        })
        .unwrap();
    writer.seal().unwrap()
}

fn capabilities() -> Capabilities {
    Capabilities {
        chat: true,
        continuation: true,
        ..Capabilities::default()
    }
}

fn model() -> ModelInfo {
    ModelInfo {
        name: "m".into(),
        context_length: Some(4096),
        capabilities: capabilities(),
    }
}

const fn room(free: u32, queued: u32) -> Room {
    Room {
        free,
        queued,
        pending: None,
    }
}

fn delta() -> Delta<'static> {
    let extra = DeltaExtra {
        delta: json(r#"{"tool_calls":[]}"#),
        logprobs: json("{}"),
        choice: json(r#"{"stop_reason":1}"#),
        chunk: json(r#"{"timings":{}}"#),
        fingerprint: Some("fp".into()),
    };
    Delta {
        choice: 1,
        text: "hi".into(),
        tokens: 2,
        token_ids: vec![5, 600],
        finish_reason: Some("stop".into()),
        extra: Some(Box::new(extra)),
    }
}

fn frames() -> Vec<(&'static str, Vec<u8>)> {
    let error = EngineError {
        code: ErrorCode::ContextLengthExceeded,
        message: "long".into(),
        param: Some("messages".into()),
        engine_code: Some("c".into()),
        retryable: true,
        retry_after_ms: Some(9),
    };
    let reject = Reject {
        reason: RejectReason::Busy,
        worker: name("w1"),
        room: room(0, 3),
        message: "full".into(),
        retry_after_ms: Some(100),
        id: None,
    };
    let reject_by_id = Reject {
        id: Some(ID),
        ..reject.clone()
    };
    let finish = Finish {
        prompt_tokens: Some(3),
        completion_tokens: Some(4),
        usage: json("{}"),
        chunk: json("{}"),
    };
    let accepted = Accepted {
        id: ID,
        worker: name("w1"),
        instance: 9,
        queue_position: 2,
        resumable: true,
    };
    let held = Held {
        instance: 9,
        streams: vec![HeldStream {
            stream: 7,
            attempt: 1,
            next_seq: 3,
        }],
    };
    vec![
        ("accepted", batch(Body::Accepted(accepted))),
        ("delta", batch(Body::Delta(delta()))),
        (
            "delta, text only",
            batch(Body::Delta(Delta {
                text: "t0 ".into(),
                tokens: 1,
                ..Delta::default()
            })),
        ),
        ("finish", batch(Body::Finish(finish))),
        ("reject", batch(Body::Reject(reject))),
        ("reject with the request's id", batch(Body::Reject(reject_by_id))),
        ("error", batch(Body::Error(error))),
        ("alive", batch(Body::Alive(Alive { queue_position: 1 }))),
        ("room", batch(Body::Room(room(4, 1)))),
        ("held", batch(Body::Held(held))),
        ("offer", batch(Body::Offer(Offer { slots: 2 }))),
    ]
}

fn request() -> Request<'static> {
    Request {
        id: ID,
        gateway: name("g1"),
        stream: 7,
        attempt: 1,
        floor: 1,
        kind: RequestKind::Chat,
        model: "m".into(),
        needs: Features::NONE,
        labels: Default::default(),
        budget_ms: 60_000,
        priority: -1,
        tenant: Some("t".into()),
        client_id: Some("x".into()),
        trace: Some(TraceContext {
            parent: "00-1-2-01".into(),
            state: Some("s".into()),
        }),
        resume: Some(Resume {
            choices: vec![ResumeChoice {
                index: 0,
                text: "t0 ".into(),
                tokens: 1,
                token_ids: vec![5],
                reasoning: "r".into(),
                finish_reason: Some("stop".into()),
            }],
        }),
        parts: Some(Parts { count: 2, bytes: 10 }),
        prompt: (&[]).into(),
        body: br#"{"a":1"#.into(),
    }
}

fn controls() -> Vec<(&'static str, Vec<u8>)> {
    let gateway = name("g1");
    let controls = [
        ("cancel", Control::Cancel(Cancel { id: ID, attempt: 1 })),
        (
            "part",
            Control::Part(Part {
                id: ID,
                attempt: 1,
                index: 1,
                data: b"}".to_vec().into(),
            }),
        ),
        ("drain", Control::Drain(Drain { grace_ms: Some(5) })),
        ("undrain", Control::Undrain(Undrain {})),
        ("load", Control::Load(ModelCommand { model: "m".into() })),
        ("unload", Control::Unload(ModelCommand { model: "m".into() })),
        ("ping", Control::Ping(Ping {})),
        ("waits", Control::Waits(Waits { gateway: name("g1") })),
        ("decline", Control::Decline(Decline { gateway, slots: 2 })),
        ("roll call", Control::RollCall(RollCall { gateway: name("g1") })),
        (
            "disown",
            Control::Disown(Disown {
                gateway: name("g1"),
                stream: 7,
                attempt: 1,
            }),
        ),
        (
            "claim",
            Control::Claim(Claim {
                instance: 9,
                started_at_ms: 7,
            }),
        ),
    ];
    let pong = Pong {
        worker: name("w1"),
        instance: 9,
        state: WorkerState::Ready,
        room: room(1, 0),
    };
    let replies = [
        ("pong", ControlReply::Pong(pong)),
        ("done", ControlReply::Done(Done {})),
        ("refused", ControlReply::Refused(Refused { message: "no".into() })),
    ];
    let controls = controls.iter().map(|(what, message)| (*what, encode(message).unwrap()));
    let replies = replies.iter().map(|(what, message)| (*what, encode(message).unwrap()));
    controls.chain(replies).collect()
}

fn messages() -> Vec<(&'static str, Vec<u8>)> {
    let event = Event {
        kind: EventKind::WorkerLost,
        at_ms: 1,
        worker: Some(name("w1")),
        instance: Some(9),
        model: Some("m".into()),
        coordinator: Some(name("c1")),
    };
    let hint = FreeHint {
        worker: name("w1"),
        room: room(1, 0),
    };
    let beat = CoordinatorBeat {
        coordinator: name("c1"),
        leading: true,
    };
    let demanding = Request {
        kind: RequestKind::Rerank,
        needs: [Feature::Tools, Feature::Vision].into_iter().collect(),
        ..request()
    };
    let labels = || Labels::new(["region=eu".parse().unwrap()]).unwrap();
    let mut bound = request();
    bound.labels = labels();
    let mut labelled = status();
    (labelled.report.labels, labelled.report.tier) = (labels(), 1);
    let mut all = vec![
        ("request", encode(&request()).unwrap()),
        ("demanding request", encode(&demanding).unwrap()),
        ("bound request", encode(&bound).unwrap()),
    ];
    all.extend(controls());
    all.push(("free hint", encode(&hint).unwrap()));
    all.push(("event", encode(&event).unwrap()));
    all.push(("coordinator beat", encode(&beat).unwrap()));
    all.push(("status", encode(&status()).unwrap()));
    all.push(("status with labels", encode(&labelled).unwrap()));
    all.push(("capacity", encode(&capacity()).unwrap()));
    all.push(("usage", encode(&usage()).unwrap()));
    all.push(("consumption", encode(&consumption()).unwrap()));
    let deadly = DeadlyRequest {
        gateway: name("g1"),
        salt: [7; 16],
        digest: [8; 32],
    };
    all.push(("deadly request", encode(&deadly).unwrap()));
    let model = "m".into();
    let waiting = Waiting {
        gateway: name("g1"),
        models: vec![ModelWaiting { model, requests: 300 }],
        left: vec![],
    };
    all.push(("waiting", encode(&waiting).unwrap()));
    all
}

fn usage() -> UsageRecord {
    UsageRecord {
        id: ID,
        request: "x".into(),
        gateway: name("g1"),
        worker: Some(name("w1")),
        tier: 1,
        key: Some("alice".into()),
        tenant: Some("t".into()),
        kind: RequestKind::Chat,
        model: "m".into(),
        served: Some("n".into()),
        prompt_tokens: 300,
        completion_tokens: 4,
        cached_tokens: 2,
        estimated: true,
        cost: 500_000,
        outcome: UsageOutcome::Cancelled,
        status: 200,
        ttft_ms: Some(5),
        duration_ms: 70,
        at_ms: 1,
    }
}

fn consumption() -> Consumption {
    Consumption {
        gateway: name("g1"),
        seq: 3,
        hello: true,
        complete: true,
        keys: vec![KeyConsumption {
            key: "alice".into(),
            requests: 7,
            tokens: -5,
            streams: 2,
            requests_level: 1.5,
            tokens_level: 0.25,
            expected: Amount { tokens: 9, cost: 0 },
            unsaved: Spending::on(Date { day: 3, month: 1 }, Amount { tokens: 4, cost: 5 }),
        }],
    }
}

fn status() -> Status {
    Status {
        report: WorkerReport {
            worker: name("w1"),
            instance: 9,
            seq: 5,
            version: "0.1.0".into(),
            host: "h".into(),
            engine: "sim".into(),
            state: WorkerState::Ready,
            started_at_ms: 1,
            models: vec![model()],
            slots: 8,
            active: 2,
            queued: 1,
            tokens_per_second: 1.5,
            ttft: Quantiles {
                p50: 1.0,
                p90: 2.0,
                p99: 3.0,
            },
            itl: Quantiles::default(),
            kv_used: Some(0.5),
            slots_from: None,
            labels: Default::default(),
            tier: 0,
        },
        totals: Totals {
            finished: 1,
            failed: 2,
            rejected: 3,
            cancelled: 4,
            tokens: 5,
            ..Totals::default()
        },
        loads: vec![ModelLoad {
            model: "m".into(),
            active: 2,
            queued: 1,
            tokens_per_second: 1.5,
        }],
    }
}

fn capacity() -> Capacity {
    let worker = WorkerCapacity {
        report: WorkerReport {
            state: WorkerState::Draining,
            ttft: Quantiles::default(),
            ..status().report
        },
        age_ms: 20,
    };
    let model = ModelCapacity {
        model: "m".into(),
        workers: 1,
        slots: 8,
        free: 6,
        active: 2,
        queued: 1,
        waiting: 3,
        tokens_per_second: 1.5,
        estimated_wait_ms: Some(10),
        desired_workers: 1,
        on_demand: false,
        context_length: Some(4096),
        capabilities: capabilities(),
    };
    Capacity {
        coordinator: name("c1"),
        seq: 3,
        at_ms: 4,
        workers: vec![worker],
        models: vec![model],
        total: Total {
            workers: 1,
            slots: 8,
            free: 6,
            active: 2,
            queued: 1,
            waiting: 3,
            tokens_per_second: 1.5,
        },
        lost: vec![],
    }
}

#[test]
fn the_wire_is_what_it_was() {
    let shown: Vec<String> = frames()
        .into_iter()
        .chain(messages())
        .map(|(what, bytes)| format!("{what}: {}", show(&bytes)))
        .collect();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden.txt");
    if std::env::var_os("TOKENBUS_WRITE_GOLDEN").is_some() {
        std::fs::write(path, shown.join("\n") + "\n").unwrap();
    }
    let golden = std::fs::read_to_string(path).unwrap();
    for (line, expected) in shown.iter().zip(golden.lines()) {
        assert_eq!(line, expected);
    }
    assert_eq!(shown.len(), golden.lines().count());
}

#[test]
fn what_a_newer_peer_adds_is_passed_over() {
    #[derive(serde::Serialize)]
    struct NewerHint {
        worker: &'static str,
        new_field: [u8; 3],
        room: NewerRoom,
    }
    #[derive(serde::Serialize)]
    struct NewerRoom {
        f: u32,
        q: u32,
        z: &'static str,
    }
    let newer = NewerHint {
        worker: "w1",
        new_field: [1, 2, 3],
        room: NewerRoom { f: 1, q: 2, z: "new" },
    };
    let hint: FreeHint = decode(&encode(&newer).unwrap()).unwrap();
    assert_eq!(
        hint,
        FreeHint {
            worker: name("w1"),
            room: room(1, 2)
        }
    );
}

#[test]
fn a_newer_kind_of_frame_or_control_does_not_spoil_the_rest() {
    // {"s": 7, "b": {"new": [1]}} and a known frame behind it.
    let mut bytes = vec![0x01, 0xdd, 0, 0, 0, 2];
    bytes.extend_from_slice(b"\x82\xa1s\x07\xa1b\x81\xa3new\x91\x01");
    bytes.extend_from_slice(b"\x82\xa1s\x08\xa1b\x81\xa1l\x80");
    let mut bodies = Vec::new();
    BatchReader::new(&bytes)
        .unwrap()
        .for_each(|frame| bodies.push((frame.stream, frame.body.into_owned())))
        .unwrap();
    assert_eq!(bodies, [(7, Body::Unknown), (8, Body::Alive(Alive::default()))]);
    assert_eq!(decode::<Control>(b"\x01\x81\xa6reboot\x80").unwrap(), Control::Unknown);
    assert_eq!(decode::<RejectReason>(b"\x01\xa4lazy").unwrap(), RejectReason::Other);
}

#[test]
fn another_format_is_named() {
    let error = decode::<Control>(&[0x02, 0x80]).unwrap_err();
    assert!(matches!(error, DecodeError::Format(2)), "{error}");
    assert!(matches!(decode::<Control>(&[]), Err(DecodeError::Empty)));
    assert!(matches!(
        BatchReader::new(&vec![1; 9 << 20]),
        Err(DecodeError::TooLarge(_))
    ));
}
