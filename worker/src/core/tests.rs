//! Tests of the worker's mind: queue, hints, time, drain, control messages.

use tokenbus_protocol::{
    Control, ControlReply, Drain as DrainCommand, Family, Finish, ModelCommand, Ping, Request, Undrain,
};

use super::fixture::*;
use super::*;

#[tokio::test]
async fn full_is_busy_at_once_and_room_is_hinted() {
    let mut b = bench(1, 0);
    b.send(&request(1, 0));
    b.send(&request(2, 0));
    assert_eq!(b.said(), ["1: accepted 0", "2: reject busy"]);
    assert!(b.letters.try_recv().is_err(), "no room yet");
    b.engine.sink(0).finish(Finish::default());
    b.settle();
    let hint = b.letters.try_recv().unwrap();
    assert_eq!(hint.subject, "tb.v1.free.m.w1");
    let hint: FreeHint = tokenbus_protocol::decode(&hint.payload).unwrap();
    assert_eq!((hint.worker.as_str(), hint.room.free), ("w1", 1));
    b.send(&request(3, 0));
    b.engine.sink(1).finish(Finish::default());
    b.settle();
    assert!(b.letters.try_recv().is_err(), "nobody was refused since");
}

#[tokio::test]
async fn hints_keep_their_distance() {
    let mut b = bench(1, 0);
    for round in 0..2 {
        b.send(&request(10 + round, 0));
        b.send(&request(20 + round, 0));
        b.engine.sink(usize::try_from(round).unwrap()).finish(Finish::default());
        b.settle();
    }
    assert!(b.letters.try_recv().is_ok());
    assert!(b.letters.try_recv().is_err(), "too early");
    assert_eq!(b.core.timers.next(), Some(b.now + limits::HINT_GAP));
    b.pass(limits::HINT_GAP);
    assert!(b.letters.try_recv().is_ok());
}

#[tokio::test]
async fn the_queue_is_served_in_order_and_told_its_place() {
    let mut b = bench(1, 2);
    for n in 1..=4 {
        b.send(&request(n, 0));
    }
    assert_eq!(
        b.said(),
        ["1: accepted 0", "2: accepted 1", "3: accepted 2", "4: reject busy"]
    );
    b.pass(limits::ALIVE_EVERY);
    let mut alive = b.said();
    alive.sort();
    assert_eq!(alive, ["1: alive 0", "2: alive 1", "3: alive 2"]);
    b.engine.sink(0).finish(Finish::default());
    b.settle();
    assert_eq!((b.engine.started(), b.running()), (2, 1));
    assert_eq!(b.core.parts.load.queued(), 1);
    b.cancel(3, 0);
    assert_eq!(b.core.parts.load.queued(), 0);
}

#[tokio::test]
async fn a_request_whose_time_is_over_is_ended() {
    let mut b = bench(1, 0);
    b.send(&Request {
        budget_ms: 100,
        ..request(1, 0)
    });
    assert_eq!(b.core.timers.next(), Some(b.now + Duration::from_millis(100)));
    b.pass(Duration::from_millis(99));
    assert_eq!(b.running(), 1);
    b.pass(Duration::from_millis(1));
    assert_eq!((b.running(), b.engine.stopped()), (0, 1));
    assert_eq!(b.said(), ["1: accepted 0", "1: error timeout false"]);
    assert_eq!(
        b.reason(&Request {
            budget_ms: 0,
            ..request(2, 0)
        }),
        "2: reject expired"
    );
}

#[tokio::test]
async fn an_engine_that_is_down_refuses_and_hands_over_what_waits() {
    let mut b = bench(1, 1);
    b.send(&request(1, 0));
    b.send(&request(2, 0));
    b.frames();
    let down = EngineInfo {
        health: Health::Down("crashed".into()),
        ..info(1)
    };
    b.core.on_info(down, b.now);
    b.settle();
    assert_eq!(b.said(), ["2: error engine_unavailable true"]);
    assert_eq!(b.reason(&request(3, 0)), "3: reject unavailable");
    assert_eq!(b.core.state(), WorkerState::Unavailable);
    assert_eq!(
        b.core.interests(),
        BTreeSet::from([
            Interest::Control,
            Interest::Gateways,
            Interest::Direct(Family::Generate, "m".into())
        ]),
        "the queue subject is left to those that can"
    );
    assert_eq!(b.core.parts.load.room().free, 0);
}

#[tokio::test]
async fn a_drain_hands_over_what_waits_and_then_what_is_late() {
    let mut b = bench(1, 1);
    b.send(&request(1, 0));
    b.send(&request(2, 0));
    b.frames();
    b.core.on_shutdown(b.now);
    b.settle();
    assert_eq!(b.said(), ["2: error draining true"]);
    assert_eq!(b.core.state(), WorkerState::Draining);
    assert_eq!(
        b.core.interests(),
        BTreeSet::from([Interest::Control, Interest::Gateways])
    );
    assert_eq!(b.reason(&request(3, 0)), "3: reject draining");
    assert!(!b.core.is_finished());
    b.pass(Duration::from_secs(30));
    assert!(b.core.is_finished());
    assert_eq!(b.engine.stopped(), 1);
    let said = b.said();
    assert_eq!(said.last().unwrap(), "1: error draining true");
}

#[tokio::test]
async fn a_drain_that_was_ordered_can_be_undone() {
    let mut b = bench(1, 0);
    b.send(&request(1, 0));
    assert!(matches!(
        b.ask(&Control::Drain(DrainCommand { grace_ms: Some(1000) })),
        ControlReply::Done(_)
    ));
    assert!(!b.core.is_finished());
    assert!(matches!(b.ask(&Control::Undrain(Undrain {})), ControlReply::Done(_)));
    b.pass(Duration::from_secs(2));
    assert_eq!(b.running(), 1, "the grace period of the undone drain is no more");
    assert_eq!(b.core.state(), WorkerState::Ready);
    b.core.on_shutdown(b.now);
    assert!(matches!(b.ask(&Control::Undrain(Undrain {})), ControlReply::Refused(_)));
}

#[tokio::test]
async fn control_messages_are_answered() {
    let mut b = bench(3, 0);
    b.send(&request(1, 0));
    let ControlReply::Pong(pong) = b.ask(&Control::Ping(Ping {})) else {
        panic!("no pong");
    };
    assert_eq!(
        (pong.worker.as_str(), pong.room.free, pong.state),
        ("w1", 2, WorkerState::Ready)
    );
    assert_eq!(pong.instance, b.core.parts.identity.instance);
    b.core.on_control(&[0x07, 1, 2], Some("_INBOX.x".into()), b.now);
    assert!(
        matches!(b.reply(), ControlReply::Refused(refused) if refused.message.contains("format")),
        "another version is told so"
    );
    assert_eq!(b.core.parts.malformed.get(), 1);
    for (model, expected) in [("good", true), ("bad", false)] {
        let command = Control::Load(ModelCommand { model: model.into() });
        b.core.on_control(
            &tokenbus_protocol::encode(&command).unwrap(),
            Some("_INBOX.x".into()),
            b.now,
        );
        b.core.commands.join_next().await.unwrap().unwrap();
        assert_eq!(matches!(b.reply(), ControlReply::Done(_)), expected);
    }
}
