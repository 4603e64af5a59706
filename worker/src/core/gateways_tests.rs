//! Tests of what becomes of the streams of dead and of slow gateways.

use std::time::Duration;

use tokenbus_protocol::{Control, Delta, Finish, Request, RollCall};

use crate::core::fixture::*;
use crate::limits;

fn from(gateway: &str, n: u128) -> Request<'static> {
    Request {
        gateway: name(gateway),
        ..request(n, 0)
    }
}

/// Ticks for `time`; NATS answers each probe of a gateway in `dead` that nobody is there. Those who
/// were probed, in order.
fn pass(b: &mut Bench, time: Duration, dead: &[&str]) -> Vec<String> {
    let mut probed = Vec::new();
    let until = b.now + time;
    while b.now < until {
        b.pass(limits::TICK);
        let outboxes = b.outboxes.lock().unwrap().clone();
        for (gateway, outbox) in outboxes {
            if outbox.take_probe() {
                probed.push(gateway.to_string());
                if dead.contains(&gateway.as_str()) {
                    b.core.on_missing_gateway(&gateway, b.now);
                    b.settle();
                }
            }
        }
    }
    probed
}

#[tokio::test]
async fn a_dead_gateways_streams_end_running_or_waiting_and_nobody_elses() {
    let mut b = bench(3, 1);
    b.send(&from("dead", 1));
    b.send(&from("dead", 2));
    b.send(&from("alive", 3));
    b.send(&from("dead", 4));
    assert_eq!((b.running(), b.core.parts.load.queued()), (3, 1));
    let probed = pass(&mut b, Duration::from_secs(5), &["dead"]);
    assert!(probed.iter().filter(|gateway| *gateway == "alive").count() >= 4);
    assert_eq!((b.running(), b.engine.stopped(), b.engine.started()), (1, 2, 3));
    assert_eq!(b.core.parts.load.queued(), 0);
    assert_eq!(b.core.parts.metrics.gateways_lost.get(), 1);
    assert_eq!(b.core.parts.metrics.totals().cancelled, 3);
    let last: Vec<String> = b
        .frames_for("dead")
        .into_iter()
        .map(|(stream, _, _, what)| format!("{stream}: {what}"))
        .filter(|said| said.contains("error"))
        .collect();
    assert_eq!(last.len(), 3, "{last:?}");
    assert!(last.iter().all(|said| said.ends_with("worker_overloaded true")));
    // It was another gateway's reconnect that took long: it is served as any other.
    b.send(&from("dead", 5));
    assert_eq!(b.running(), 2);
    assert_eq!(b.frames_for("dead").len(), 1, "in an outbox of its own");
    assert!(pass(&mut b, Duration::from_secs(2), &[]).contains(&"dead".to_owned()));
}

#[tokio::test]
async fn gateways_are_not_doubted_while_the_worker_has_no_connection() {
    let mut b = bench(1, 0);
    b.send(&from("g", 1));
    pass(&mut b, Duration::from_secs(3), &["g"]);
    b.connection = None;
    assert_eq!(pass(&mut b, Duration::from_secs(20), &["g"]), Vec::<String>::new());
    b.connection = Some(2);
    pass(&mut b, Duration::from_secs(3), &["g"]);
    assert_eq!(b.running(), 1);
    pass(&mut b, Duration::from_secs(30), &[]);
    assert_eq!(b.running(), 1, "it came back");
}

#[tokio::test]
async fn a_gateway_without_streams_is_not_probed() {
    let mut b = bench(1, 0);
    b.send(&from("g", 1));
    b.engine.sink(0).finish(Finish::default());
    b.settle();
    assert_eq!(pass(&mut b, Duration::from_secs(5), &[]), Vec::<String>::new());
}

#[tokio::test]
async fn a_gateway_that_takes_nothing_loses_its_own_streams_only() {
    let mut b = bench(4, 0);
    b.send(&from("slow", 1));
    b.send(&from("slow", 2));
    b.send(&from("fast", 3));
    let text = "x".repeat(64 * 1024);
    let piece = || Delta {
        text: text.as_str().into(),
        tokens: 1,
        ..Delta::default()
    };
    let (mut first, mut second, mut fast) = (b.engine.sink(0), b.engine.sink(1), b.engine.sink(2));
    let mut pushed = 0;
    while first.delta(piece()).is_ok() {
        fast.delta(piece()).unwrap();
        assert_eq!(b.frames_for("fast").last().unwrap().3, text);
        pushed += 1;
        assert!(pushed <= limits::OUTBOX / text.len() + 1, "the bound holds");
    }
    assert!(
        second.delta(piece()).is_err(),
        "the outbox is its gateway's, not its stream's"
    );
    drop((first, second));
    b.settle();
    assert_eq!((b.running(), b.core.parts.metrics.overflows.get()), (1, 2));
    b.send(&from("slow", 4));
    assert_eq!(b.running(), 1, "nothing more for it until it has taken what waits");
    fast.finish(Finish::default());
    b.settle();
    assert_eq!(b.frames_for("fast").last().unwrap().3, "finish");
    // It takes what waits: the frames up to the bound in order, then the end of each stream.
    let mut ends: Vec<String> = Vec::new();
    for (stream, _, _, what) in b.frames_for("slow") {
        if !what.starts_with('x') {
            ends.push(format!("{stream}: {what}"));
        }
    }
    assert_eq!(
        ends,
        [
            "1: accepted 0",
            "2: accepted 0",
            "1: error worker_overloaded true",
            "2: error worker_overloaded true",
            "4: reject busy"
        ]
    );
    b.send(&from("slow", 5));
    assert_eq!(b.running(), 1);
    b.engine.sink(3).finish(Finish::default());
    b.settle();
    assert_eq!(b.frames_for("slow").last().unwrap().3, "finish");
}

#[tokio::test]
async fn a_refusal_says_when_to_come_back_once_slots_have_become_free() {
    let mut b = bench(1, 0);
    b.send(&from("g", 1));
    b.send(&from("g", 2));
    assert_eq!(retry_after(&b), [None], "nothing is known yet");
    b.pass(limits::TICK);
    for n in 0..4 {
        b.engine.sink(n).finish(Finish::default());
        b.settle();
        b.pass(Duration::from_secs(1));
        b.send(&from("g", 10 + n as u128));
    }
    b.frames();
    b.send(&from("g", 20));
    let after = retry_after(&b)[0].unwrap();
    assert!((900..1100).contains(&after), "one slot a second: {after} ms");
}

/// What the refusals that wait for the gateway say.
fn retry_after(b: &Bench) -> Vec<Option<u64>> {
    let mut seen = Vec::new();
    let outbox = b.outboxes.lock().unwrap()[&name("g")].clone();
    while let Some(batch) = outbox.take() {
        tokenbus_protocol::BatchReader::new(&batch)
            .unwrap()
            .for_each(|frame| {
                if let tokenbus_protocol::Body::Reject(reject) = frame.body {
                    seen.push(reject.retry_after_ms);
                }
            })
            .unwrap();
    }
    seen
}

#[tokio::test]
async fn a_gateway_is_told_which_streams_are_here_behind_what_was_sent_of_them() {
    let mut b = bench(3, 1);
    for (gateway, stream) in [("g1", 1), ("g2", 2), ("g1", 3)] {
        b.send(&from(gateway, stream));
    }
    b.cancel(3, 0);
    let gateway = name("g1");
    b.tell(&Control::RollCall(RollCall { gateway }));
    let told: Vec<_> = b.frames_for("g1").into_iter().map(|(.., what)| what).collect();
    assert_eq!(told.last().unwrap(), "held [(1, 1)]", "{told:?}");
    assert_eq!(b.frames_for("g2").len(), 1, "nobody asked for it");
    let gateway = name("nobody");
    b.tell(&Control::RollCall(RollCall { gateway }));
    b.core.on_reconnected(b.now);
    b.settle();
    for (gateway, held) in [("g1", "held [(1, 1)]"), ("g2", "held [(2, 1)]")] {
        let told: Vec<_> = b.frames_for(gateway).into_iter().map(|(.., what)| what).collect();
        assert_eq!(told, [held]);
    }
}
