//! Tests of a request's way in: duplicates, cancels, parts, refusals.

use serde_bytes::ByteBuf;
use tokenbus_protocol::{Control, Delta, Disown, Finish, Labels, Name, Parts, ResumeChoice};

use super::*;
use crate::core::fixture::*;

#[tokio::test]
async fn a_request_is_accepted_generated_and_its_slot_is_free_again() {
    let mut b = bench(1, 0);
    b.send(&request(1, 0));
    let mut sink = b.engine.sink(0);
    sink.delta(Delta {
        text: "hi".into(),
        tokens: 1,
        ..Delta::default()
    })
    .unwrap();
    assert_eq!(b.running(), 1);
    sink.finish(Finish::default());
    b.settle();
    assert_eq!(b.running(), 0);
    let expected = [(1, 0, 0, "accepted 0"), (1, 0, 1, "hi"), (1, 0, 2, "finish")];
    assert_eq!(
        b.frames(),
        expected.map(|(stream, attempt, seq, what)| (stream, attempt, seq, what.to_owned()))
    );
    assert!(b.core.jobs.is_empty());
    assert_eq!(b.engine.stopped(), 1, "what the engine held is let go");
    assert_eq!(b.core.timers.next(), None);
}

#[tokio::test]
async fn cancel_frees_the_slot_at_once_and_stops_the_engine() {
    let mut b = bench(1, 0);
    b.send(&request(1, 0));
    let mut sink = b.engine.sink(0);
    b.cancel(1, 0);
    assert_eq!((b.running(), b.engine.stopped()), (0, 1));
    assert!(sink.delta(Delta::default()).is_err());
    drop(sink);
    b.settle();
    assert_eq!(b.said(), ["1: accepted 0"], "nobody waits for more");
    assert_eq!(b.reason(&request(2, 0)), "2: accepted 0");
    assert_eq!(b.core.parts.metrics.totals().cancelled, 1);
}

#[tokio::test]
async fn a_stream_that_its_gateway_does_not_read_is_stopped_without_its_id() {
    let mut b = bench(2, 0);
    b.send(&request(1, 1));
    let disown = |gateway: &str, stream, attempt| {
        Control::Disown(Disown {
            gateway: Name::new(gateway).unwrap(),
            stream,
            attempt,
        })
    };
    for other in [disown("h", 1, 1), disown("g", 2, 1), disown("g", 1, 0)] {
        b.tell(&other);
        assert_eq!((b.running(), b.engine.stopped()), (1, 0), "{other:?}");
    }
    b.tell(&disown("g", 1, 1));
    assert_eq!((b.running(), b.engine.stopped()), (0, 1));
}

#[tokio::test]
async fn a_cancel_that_overtook_its_request_counts() {
    let mut b = bench(1, 0);
    b.cancel(1, 0);
    b.send(&request(1, 0));
    assert_eq!((b.engine.started(), b.running()), (0, 0));
    assert!(b.said().is_empty());
    b.send(&Request {
        floor: 1,
        ..request(1, 1)
    });
    assert_eq!(b.engine.started(), 1, "a later attempt is another matter");
}

#[tokio::test]
async fn duplicates_and_floors() {
    let mut b = bench(2, 0);
    b.send(&request(1, 0));
    assert_eq!(b.reason(&request(1, 1)), "1: reject duplicate");
    assert_eq!(b.engine.started(), 1);
    let newer = Request {
        floor: 2,
        ..request(1, 2)
    };
    b.send(&newer);
    assert_eq!((b.engine.started(), b.engine.stopped(), b.running()), (2, 1, 1));
    assert_eq!(b.frames(), [(1, 2, 0, "accepted 0".to_owned())]);
    // The old engine task may still say something: it goes nowhere and frees nothing.
    drop(b.engine.sink(0));
    b.settle();
    assert_eq!(b.running(), 1);
    assert!(b.frames().is_empty());
    b.engine.sink(1).finish(Finish::default());
    b.settle();
    assert_eq!(b.running(), 0);
    assert_eq!(b.said(), ["1: finish"]);
    assert_eq!(b.reason(&newer), "1: reject duplicate", "it is over, and not run again");
}

#[tokio::test]
async fn an_engine_that_panics_or_forgets_gives_the_slot_back() {
    let mut b = bench(1, 0);
    b.send(&request(1, 0));
    drop(b.engine.sink(0));
    b.settle();
    assert_eq!(b.said(), ["1: accepted 0", "1: error internal true"]);
    assert_eq!(b.running(), 0);
    b.engine.0.lock().unwrap().panics = true;
    b.send(&request(2, 0));
    assert_eq!(b.said(), ["2: accepted 0", "2: error internal true"]);
    assert_eq!(b.running(), 0);
    assert!(b.core.jobs.is_empty());
}

#[tokio::test]
async fn what_the_engine_cannot_do_is_refused() {
    let mut b = bench(4, 0);
    let unknown = Request {
        model: "x".into(),
        ..request(1, 0)
    };
    assert_eq!(b.reason(&unknown), "1: reject unknown_model");
    for kind in [RequestKind::Completion, RequestKind::Embeddings, RequestKind::Other] {
        assert_eq!(b.reason(&Request { kind, ..request(2, 0) }), "2: reject unsupported");
    }
    let begun = Resume {
        choices: vec![ResumeChoice {
            text: "so far".into(),
            tokens: 2,
            ..ResumeChoice::default()
        }],
    };
    assert_eq!(
        b.reason(&Request {
            resume: Some(begun.clone()),
            ..request(3, 0)
        }),
        "3: reject unsupported"
    );
    let again = Request {
        resume: Some(begun.clone()),
        body: br#"{"temperature":0}"#.as_slice().into(),
        ..request(5, 0)
    };
    assert_eq!(b.reason(&again), "5: accepted 0", "it comes out the same again");
    let nothing = Some(Resume::default());
    assert_eq!(
        b.reason(&Request {
            resume: nothing,
            ..request(4, 0)
        }),
        "4: accepted 0"
    );
}

#[tokio::test]
async fn what_can_be_resumed_is_said_when_it_is_accepted() {
    let resumable = |continuation: bool, request: &Request<'_>| {
        let mut b = bench(1, 0);
        for model in &mut b.core.info.models {
            model.capabilities.continuation = continuation;
            model.capabilities.completion = true;
        }
        b.core.can_be_resumed(request)
    };
    let with = |body: &'static str| Request {
        body: body.as_bytes().into(),
        ..request(1, 0)
    };
    let (plain, seeded) = (with("{}"), with(r#"{"seed":1}"#));
    assert!(resumable(true, &plain) && !resumable(false, &plain));
    assert!(resumable(false, &seeded) && resumable(false, &with(r#"{"temperature":0,"n":2}"#)));
    // What a body in parts asks for is not known yet.
    let parts = Some(Parts { count: 2, bytes: 99 });
    assert!(!resumable(
        false,
        &Request {
            parts,
            ..seeded.clone()
        }
    ));
    let text = Request {
        kind: RequestKind::Completion,
        ..plain
    };
    assert!(resumable(false, &text));
    let kind = RequestKind::Embeddings;
    assert!(!resumable(true, &Request { kind, ..seeded }));
}

#[tokio::test]
async fn a_body_in_parts() {
    let mut b = bench(1, 0);
    let part = |index: u32, data: &[u8]| {
        Control::Part(Part {
            id: Uuid::from_u128(1),
            attempt: 0,
            index,
            data: ByteBuf::from(data),
        })
    };
    b.send(&Request {
        parts: Some(Parts { count: 3, bytes: 6 }),
        body: (&b"ab"[..]).into(),
        ..request(1, 0)
    });
    assert_eq!(
        b.said(),
        ["1: accepted 0"],
        "the parts are sent when it has been accepted"
    );
    assert_eq!((b.engine.started(), b.core.bodies), (0, 6));
    b.tell(&part(2, b"ef"));
    b.pass(limits::PARTS_TIMEOUT - Duration::from_millis(1));
    b.tell(&part(1, b"cd"));
    assert_eq!(b.engine.body(0), "abcdef");
    b.pass(limits::PARTS_TIMEOUT);
    assert_eq!(b.running(), 1, "no part is missing any more");
    b.engine.sink(0).finish(Finish::default());
    b.settle();
    assert_eq!(b.core.bodies, 0);
}

#[tokio::test]
async fn parts_that_do_not_come_or_do_not_fit_end_the_request() {
    let mut b = bench(2, 0);
    let in_parts = |n, count, bytes| Request {
        parts: Some(Parts { count, bytes }),
        ..request(n, 0)
    };
    b.send(&in_parts(1, 2, 10));
    b.pass(limits::PARTS_TIMEOUT);
    assert_eq!(b.said()[..1], ["1: accepted 0"]);
    assert_eq!((b.running(), b.core.bodies), (0, 0));
    b.send(&in_parts(2, 1, 10));
    assert_eq!(b.said(), ["2: accepted 0", "2: error internal false"]);
    b.send(&in_parts(3, 2, 1));
    assert_eq!(b.said(), ["3: accepted 0", "3: error internal false"]);
    b.send(&in_parts(4, 2, limits::BODIES + 1));
    assert_eq!(b.said(), ["4: reject busy"]);
    assert_eq!((b.running(), b.core.bodies, b.engine.started()), (0, 0, 0));
}

#[tokio::test]
async fn a_part_for_another_attempt_is_none() {
    let mut b = bench(1, 0);
    b.send(&Request {
        parts: Some(Parts { count: 2, bytes: 4 }),
        ..request(1, 1)
    });
    let part = |attempt| {
        Control::Part(Part {
            id: Uuid::from_u128(1),
            attempt,
            index: 1,
            data: ByteBuf::from(&b"{}"[..]),
        })
    };
    b.tell(&part(0));
    assert_eq!(b.engine.started(), 0);
    b.tell(&part(1));
    assert_eq!(b.engine.body(0), "{}{}");
}

#[tokio::test]
async fn malformed_requests_are_counted_and_change_nothing() {
    let mut b = bench(1, 0);
    let zero = tokenbus_protocol::encode(&Request {
        stream: 0,
        ..request(1, 0)
    })
    .unwrap();
    let good = tokenbus_protocol::encode(&request(1, 0)).unwrap();
    for bytes in [
        &b""[..],
        b"\x01",
        b"\x02\x80",
        b"\x01\xff\xff",
        &zero,
        &good[..good.len() - 5],
        b"{\"json\":1}",
    ] {
        b.core.on_request(&Bytes::copy_from_slice(bytes), b.now);
    }
    assert_eq!(b.core.parts.malformed.get(), 7);
    assert_eq!((b.running(), b.engine.started()), (0, 0));
    assert!(b.said().is_empty());
}

#[tokio::test]
async fn two_attempts_of_all_never_run_at_once_under_random_traffic() {
    let mut rng = fastrand::Rng::with_seed(7);
    let mut b = bench(3, 2);
    for _ in 0..3000 {
        let n = rng.u128(1..8);
        let attempt = rng.u32(0..6);
        match rng.u32(0..10) {
            0..=4 => b.send(&Request {
                floor: rng.u32(0..=attempt),
                ..request(n, attempt)
            }),
            5 | 6 => b.cancel(n, attempt),
            7 => b.pass(Duration::from_millis(rng.u64(0..20_000))),
            _ => {
                let open: Vec<usize> = {
                    let script = b.engine.0.lock().unwrap();
                    (0..script.jobs.len()).filter(|n| script.jobs[*n].1.is_some()).collect()
                };
                if !open.is_empty() {
                    b.engine.sink(open[rng.usize(..open.len())]).finish(Finish::default());
                    b.settle();
                }
            }
        }
        assert!(b.running() <= 3);
        assert_eq!(
            b.core.jobs.len(),
            (b.core.admission.running() + b.core.admission.queued()) as usize
        );
        b.frames();
    }
    b.core.on_shutdown(b.now);
    b.pass(Duration::from_secs(31));
    assert!(b.core.is_finished());
    assert_eq!((b.core.timers.next(), b.core.bodies), (None, 0));
    assert_eq!(
        b.engine.stopped(),
        b.engine.started(),
        "everything that began was stopped"
    );
}

#[tokio::test]
async fn a_request_that_requires_a_label_runs_only_where_it_is() {
    let mut b = bench(2, 0);
    let labels = |text: &str| Labels::new([text.parse().unwrap()]).unwrap();
    b.core.parts.identity.labels = labels("region=eu");
    let bound = |n, label| Request {
        labels: labels(label),
        ..request(n, 0)
    };
    assert_eq!(b.reason(&bound(1, "region=us")), "1: reject unsupported");
    assert_eq!(b.reason(&bound(2, "region=eu")), "2: accepted 0");
    assert_eq!(b.reason(&request(3, 0)), "3: accepted 0");
    assert_eq!(b.engine.started(), 2);
}
