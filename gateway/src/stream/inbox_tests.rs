//! Tests of one stream's inbox: who is woken, what is bounded, and that order holds over the lane.

use std::sync::Arc;

use tokenbus_protocol::{Body, Delta};

use super::*;
use crate::api::form::Template;

fn event(next: Option<Next>) -> Option<Event> {
    match next {
        None => None,
        Some(Next::Event(event)) => Some(event),
        Some(Next::Passed(passed)) => panic!("passed: {passed:?}"),
    }
}

fn passed(next: Option<Next>) -> String {
    match next {
        Some(Next::Passed(passed)) => String::from_utf8(passed.written.to_vec()).unwrap(),
        other => panic!("not passed: {other:?}"),
    }
}

fn worker() -> Name {
    Name::new("w").unwrap()
}

fn lane(next_seq: u32) -> Lane {
    Lane {
        attempt: 0,
        worker: worker(),
        next_seq,
        keep_text: true,
        template: Arc::new(Template::new("<", ">")),
    }
}

fn text(seq: u32, text: &str) -> Frame<'_> {
    Frame {
        stream: 1,
        attempt: 0,
        seq,
        body: Body::Delta(Delta {
            text: text.into(),
            tokens: 1,
            ..Delta::default()
        }),
    }
}

/// Looks with a waker that does nothing.
fn look(inbox: &Inbox, lane: Option<Lane>) -> Option<Next> {
    let mut context = Context::from_waker(Waker::noop());
    match inbox.poll_next(&mut context, || lane) {
        Poll::Ready(next) => Some(next),
        Poll::Pending => None,
    }
}

#[tokio::test]
async fn an_event_wakes_the_reader() {
    let inbox = Arc::new(Inbox::new(1024));
    let reader = tokenbus_bus::task::spawn("reader", {
        let inbox = Arc::clone(&inbox);
        async move { std::future::poll_fn(|context| inbox.poll_next(context, || None)).await }
    });
    tokio::task::yield_now().await;
    inbox.push(Event::Go);
    assert_eq!(event(Some(reader.await.unwrap())), Some(Event::Go));
}

#[tokio::test]
async fn text_that_passes_wakes_the_reader() {
    let inbox = Arc::new(Inbox::new(1024));
    let reader = tokenbus_bus::task::spawn("reader", {
        let inbox = Arc::clone(&inbox);
        async move { std::future::poll_fn(|context| inbox.poll_next(context, || Some(lane(1)))).await }
    });
    tokio::task::yield_now().await;
    inbox.push_frame(&worker(), text(1, "a"), Instant::now());
    assert_eq!(passed(Some(reader.await.unwrap())), "<a>");
}

#[test]
fn what_is_read_makes_room_and_what_is_not_overflows_once() {
    let inbox = Inbox::new(3 * EVENT);
    for _ in 0..100 {
        inbox.push(Event::Go);
        assert_eq!(event(inbox.pop()), Some(Event::Go));
    }
    for _ in 0..100 {
        inbox.push(Event::Go);
    }
    assert_eq!(event(inbox.pop()), Some(Event::Overflow));
    assert_eq!(event(inbox.pop()), None);
    assert!(
        inbox.push(Event::Go),
        "it is passed over, but the stream is still there"
    );
    assert_eq!(event(inbox.pop()), None);
}

#[test]
fn what_was_in_when_it_was_closed_can_be_read_and_nothing_is_added() {
    let inbox = Inbox::new(1024);
    assert!(inbox.push(Event::Go));
    inbox.close();
    assert!(!inbox.push(Event::Go));
    assert_eq!((event(inbox.pop()), event(inbox.pop())), (Some(Event::Go), None));
}

#[test]
fn text_that_passed_comes_before_the_event_that_closed_the_lane() {
    let inbox = Inbox::new(1024);
    assert!(look(&inbox, Some(lane(1))).is_none());
    let now = Instant::now();
    inbox.push_frame(&worker(), text(1, "a"), now);
    inbox.push_frame(&worker(), text(2, "b"), now);
    inbox.push(Event::LinkRestored);
    inbox.push_frame(&worker(), text(3, "c"), now);
    assert_eq!(passed(inbox.pop()), "<a><b>");
    assert_eq!(event(inbox.pop()), Some(Event::LinkRestored));
    // The lane stays closed until the reader has seen everything.
    assert!(matches!(event(inbox.pop()), Some(Event::Frame { frame, .. }) if frame.seq == 3));
    assert!(look(&inbox, Some(lane(4))).is_none());
    inbox.push_frame(&worker(), text(4, "d"), now);
    assert_eq!(passed(inbox.pop()), "<d>");
}

#[test]
fn a_lane_that_was_closed_lets_nothing_through() {
    let inbox = Inbox::new(1024);
    assert!(look(&inbox, Some(lane(1))).is_none());
    let now = Instant::now();
    inbox.push_frame(&worker(), text(1, "a"), now);
    inbox.close_lane();
    assert!(
        inbox.pop().is_none(),
        "nobody was told of it, so it is the worker's to send again"
    );
    inbox.push_frame(&worker(), text(2, "b"), now);
    assert!(matches!(event(inbox.pop()), Some(Event::Frame { .. })));
}

#[test]
fn text_that_passes_is_bounded_too() {
    let inbox = Inbox::new(1000);
    assert!(look(&inbox, Some(lane(1))).is_none());
    for seq in 1..1000 {
        assert!(inbox.push_frame(&worker(), text(seq, "0123456789"), Instant::now()));
    }
    assert_eq!(event(inbox.pop()), Some(Event::Overflow));
    assert!(inbox.pop().is_none());
}
