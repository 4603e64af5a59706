//! Tests of the worker's mind: queue, turns, time, drain, control messages.

use tokenbus_protocol::{
    Control, ControlReply, Decline, Drain as DrainCommand, Family, Finish, ModelCommand, Ping, Request, Undrain, Waits,
};

use super::fixture::*;
use super::*;

#[tokio::test]
async fn who_was_refused_is_offered_the_next_free_slot() {
    let mut b = bench(1, 0);
    b.send(&request(1, 0));
    b.send(&request(2, 0));
    assert_eq!(b.said(), ["1: accepted 0", "2: reject busy"]);
    b.engine.sink(0).finish(Finish::default());
    b.settle();
    assert_eq!(b.said(), ["1: finish", "0: offer 1"]);
    assert_eq!(b.reason(&request(3, 0)), "3: accepted 0");
    b.engine.sink(1).finish(Finish::default());
    b.settle();
    assert_eq!(b.said(), ["3: finish", "0: offer 1"], "others may wait there");
    b.tell(&Control::Decline(Decline {
        gateway: name("g"),
        slots: 1,
    }));
    assert_eq!(b.reason(&request(4, 0)), "4: accepted 0");
    b.engine.sink(2).finish(Finish::default());
    b.settle();
    assert_eq!(b.said(), ["4: finish"], "nobody waits");
}

#[tokio::test]
async fn free_slots_go_round_the_waiting_gateways_and_nobody_else_gets_them() {
    let mut b = bench(1, 0);
    b.send(&request(1, 0));
    for gateway in ["g", "h", "h"] {
        b.tell(&Control::Waits(Waits { gateway: name(gateway) }));
    }
    let from = |n: u128, gateway: &str| Request {
        gateway: name(gateway),
        ..request(n, 0)
    };
    let mut next = 2;
    for (round, turn) in ["g", "h", "g", "h"].into_iter().enumerate() {
        b.engine.sink(round).finish(Finish::default());
        b.settle();
        let other = if turn == "g" { "h" } else { "g" };
        b.send(&from(next, other));
        b.send(&from(next + 1, turn));
        let what = |gateway: &str| b.frames_for(gateway).pop().unwrap().3;
        assert_eq!((what(other), what(turn)), ("reject busy".into(), "accepted 0".into()));
        next += 2;
    }
}

#[tokio::test]
async fn a_slot_that_a_dead_gateway_was_offered_goes_to_the_next_one() {
    let mut b = bench(1, 0);
    b.send(&request(1, 0));
    b.frames();
    for gateway in ["dead", "g"] {
        b.tell(&Control::Waits(Waits { gateway: name(gateway) }));
    }
    b.engine.sink(0).finish(Finish::default());
    b.settle();
    assert_eq!(b.said(), ["1: finish"]);
    assert_eq!(b.core.parts.load.room_with(0).free, 0, "kept");
    b.pass(limits::OFFER_PATIENCE);
    assert_eq!(b.said(), ["0: offer 1"]);
    assert_eq!(b.reason(&request(2, 0)), "2: accepted 0");
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
async fn a_request_whose_time_ended_in_the_queue_never_reaches_the_engine() {
    let mut b = bench(1, 1);
    b.send(&request(1, 0));
    b.send(&Request {
        budget_ms: 100,
        ..request(2, 0)
    });
    b.frames();
    b.now += Duration::from_millis(100);
    // The slot is free before the timer was looked at.
    b.engine.sink(0).finish(Finish::default());
    b.settle();
    assert_eq!(b.said(), ["1: finish", "2: error timeout false"]);
    assert_eq!((b.engine.started(), b.running()), (1, 0));
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
    b.core.on_info(down.clone(), b.now);
    b.core.on_info(down, b.now);
    b.settle();
    assert_eq!(b.core.parts.metrics.totals().engine_losses, 1, "told twice, lost once");
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
