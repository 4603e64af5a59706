//! Tests of one stream: sequence, one end, slots, bounds.

use tokenbus_protocol::{BatchReader, Frame};

use super::*;
use crate::report::load::Load;

struct Setup {
    load: Arc<Load>,
    outbox: Arc<Outbox>,
    metrics: Metrics,
    stream: Arc<Stream>,
    ends: mpsc::UnboundedReceiver<Key>,
    now: Instant,
}

fn setup(bound: usize, max_frame: usize) -> Setup {
    let load = Arc::new(Load::default());
    load.set_capacity(4, true);
    let outbox = Arc::new(Outbox::new(bound, Arc::clone(&load)));
    let (sender, ends) = tokenbus_engine::job_channel();
    let now = Instant::now();
    let metrics = Metrics::default();
    let stream = Stream::new(StreamParts {
        key: Key {
            id: Uuid::nil(),
            attempt: 2,
        },
        number: 9,
        outbox: Arc::clone(&outbox),
        metrics: metrics.clone(),
        share: load.share("m"),
        ends: sender,
        max_frame,
        arrived: now,
        traced: None,
        paced: true,
    });
    stream.hold(load.occupy(stream.share()));
    Setup {
        load,
        outbox,
        metrics,
        stream,
        ends,
        now,
    }
}

fn text(text: &str) -> Delta<'_> {
    Delta {
        text: Cow::Borrowed(text),
        tokens: 1,
        ..Delta::default()
    }
}

/// What was sent for the stream, in readable form, with the sequence numbers checked.
fn sent(outbox: &Outbox) -> Vec<String> {
    let mut all = Vec::new();
    while let Some(batch) = outbox.take() {
        let each = |frame: Frame<'_>| {
            if frame.stream == 0 {
                return;
            }
            assert_eq!((frame.stream, frame.attempt), (9, 2));
            assert_eq!(frame.seq as usize, all.len());
            all.push(match frame.body {
                Body::Delta(delta) => delta.text.into_owned(),
                Body::Finish(_) => "finish".to_owned(),
                Body::Alive(_) => "alive".to_owned(),
                Body::Error(error) => format!("{}:{}", error.code, error.retryable),
                other => format!("{other:?}"),
            });
        };
        BatchReader::new(&batch).unwrap().for_each(each).unwrap();
    }
    all
}

#[test]
fn deltas_then_a_finish_and_the_slot_is_free() {
    let mut s = setup(1 << 20, 1 << 16);
    let mut sink = Box::new(StreamSink::new(Arc::clone(&s.stream)));
    sink.delta(text("a")).unwrap();
    sink.delta(text("b")).unwrap();
    assert_eq!(s.load.running(), 1);
    sink.finish(Finish {
        completion_tokens: Some(5),
        ..Finish::default()
    });
    assert_eq!(s.load.running(), 0);
    assert_eq!(s.ends.try_recv().unwrap(), s.stream.key());
    assert!(s.ends.try_recv().is_err(), "told once");
    assert_eq!(sent(&s.outbox), ["a", "b", "finish"]);
    let totals = s.metrics.totals();
    assert_eq!((totals.finished, totals.failed, totals.tokens), (1, 0, 5));
}

#[test]
fn the_frame_that_ends_a_stream_tells_of_its_free_slot() {
    let s = setup(1 << 20, 1 << 16);
    Box::new(StreamSink::new(Arc::clone(&s.stream))).finish(Finish::default());
    let mut room = None;
    BatchReader::new(&s.outbox.take().unwrap())
        .unwrap()
        .for_each(|frame| {
            if let Body::Room(r) = frame.body {
                room = Some(r.free);
            }
        })
        .unwrap();
    assert_eq!(room, Some(4));
}

#[test]
fn a_sink_that_is_dropped_ends_its_stream_with_an_error() {
    let s = setup(1 << 20, 1 << 16);
    let mut sink = StreamSink::new(Arc::clone(&s.stream));
    sink.delta(text("a")).unwrap();
    drop(sink);
    assert_eq!(sent(&s.outbox), ["a", "internal:true"]);
    assert_eq!(s.load.running(), 0);
    assert_eq!(s.metrics.totals().failed, 1);
}

#[test]
fn a_panicking_engine_gives_its_slot_back() {
    let s = setup(1 << 20, 1 << 16);
    let sink = StreamSink::new(Arc::clone(&s.stream));
    let thread = std::thread::spawn(move || {
        let _sink = sink;
        panic!("a test panic of an engine");
    });
    assert!(thread.join().is_err());
    assert_eq!(s.load.running(), 0);
    assert_eq!(sent(&s.outbox), ["internal:true"]);
}

#[test]
fn after_a_cancel_the_engine_hears_closed_and_nothing_is_sent() {
    let mut s = setup(1 << 20, 1 << 16);
    let mut sink = Box::new(StreamSink::new(Arc::clone(&s.stream)));
    sink.delta(text("a")).unwrap();
    assert!(s.stream.end(None, Outcome::Cancelled, s.now));
    assert!(!s.stream.end(None, Outcome::Cancelled, s.now), "once");
    assert_eq!(s.load.running(), 0);
    assert_eq!(sink.delta(text("b")), Err(Closed));
    sink.finish(Finish::default());
    assert_eq!(sent(&s.outbox), ["a"]);
    assert!(s.ends.try_recv().is_ok() && s.ends.try_recv().is_err());
    let totals = s.metrics.totals();
    assert_eq!((totals.cancelled, totals.finished, totals.failed), (1, 0, 0));
}

#[test]
fn a_slot_handed_to_a_stream_that_has_ended_is_given_back() {
    let s = setup(1 << 20, 1 << 16);
    s.stream.end(None, Outcome::Cancelled, s.now);
    s.stream.hold(s.load.occupy(s.stream.share()));
    assert_eq!(s.load.running(), 0);
}

#[test]
fn a_full_outbox_fails_the_stream_that_wants_to_push() {
    let s = setup(500, 1 << 16);
    let mut sink = StreamSink::new(Arc::clone(&s.stream));
    let long = "x".repeat(200);
    let mut taken = 0;
    while sink.delta(text(&long)).is_ok() {
        taken += 1;
        assert!(taken < 10);
    }
    assert_eq!(s.load.running(), 0);
    assert_eq!(s.metrics.overflows.get(), 1);
    let all = sent(&s.outbox);
    assert_eq!(all.len(), taken + 1, "nothing that was taken is lost");
    assert_eq!(all.last().unwrap(), "worker_overloaded:true");
}

#[test]
fn silence_is_broken_after_a_second_and_only_then() {
    let s = setup(1 << 20, 1 << 16);
    let at = |ms| s.now + Duration::from_millis(ms);
    s.stream.keep_alive(0, at(900));
    s.stream.keep_alive(3, at(1000));
    s.stream.keep_alive(3, at(1900));
    s.stream.delta(text("a"), at(1950)).unwrap();
    s.stream.keep_alive(3, at(2900));
    s.stream.keep_alive(3, at(2950));
    s.stream.end(None, Outcome::Cancelled, at(2960));
    s.stream.keep_alive(3, at(9000));
    assert_eq!(sent(&s.outbox), ["alive", "a", "alive"]);
}

#[test]
fn a_text_over_the_frame_limit_is_split_and_joined_again_it_is_the_same() {
    let s = setup(1 << 24, 100);
    let mut sink = StreamSink::new(Arc::clone(&s.stream));
    let long = "aé漢🦀".repeat(100);
    let delta = Delta {
        finish_reason: Some("stop".into()),
        ..text(&long)
    };
    sink.delta(delta).unwrap();
    let pieces = sent(&s.outbox);
    assert!(pieces.len() > 10 && pieces.iter().all(|p| p.len() <= 100));
    assert_eq!(pieces.concat(), long);
    drop(sink);
}

#[test]
fn what_cannot_be_split_and_is_too_large_ends_the_stream_with_an_error() {
    let s = setup(1 << 24, 100);
    let mut sink = StreamSink::new(Arc::clone(&s.stream));
    let huge = tokenbus_protocol::RawJson::new(format!("\"{}\"", "x".repeat(200))).unwrap();
    let delta = Delta {
        extra: Some(Box::new(tokenbus_protocol::DeltaExtra {
            logprobs: Some(huge),
            ..Default::default()
        })),
        ..text("a")
    };
    assert_eq!(sink.delta(delta), Err(Closed));
    assert_eq!(sent(&s.outbox), ["internal:false"]);
}

#[test]
fn latencies_and_tokens_are_booked() {
    let s = setup(1 << 20, 1 << 16);
    let at = |ms| s.now + Duration::from_millis(ms);
    s.stream.delta(Delta::default(), at(10)).unwrap();
    s.stream.delta(text("a"), at(100)).unwrap();
    for n in 1..=10 {
        s.stream.delta(text("b"), at(100 + n * 20)).unwrap();
    }
    let (ttft, itl) = (s.metrics.ttft(at(400)), s.metrics.itl(at(400)));
    assert!((ttft.p50 - 100.0).abs() < 2.0, "an empty delta is no output: {ttft:?}");
    assert!((itl.p50 - 20.0).abs() < 1.0, "{itl:?}");
    assert_eq!(s.metrics.totals().tokens, 11);
}
