//! The inbox of one stream: who is woken, what is bounded, and the order of lane and events.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokenbus_api::Template;
use tokenbus_protocol::{Body, Delta};

use super::*;
use crate::fast_path::splice::{Outlet, Sent, Splice};
use crate::limits::SLOW_READER;

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

/// An inbox whose stream was sent to [`worker`].
fn inbox(bound: usize) -> Inbox {
    let inbox = Inbox::new(Uuid::nil(), bound);
    inbox.sent(0, Some(worker()));
    inbox
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
        splice: Splice {
            template: Arc::new(Template::new("<", ">")),
            outlet: None,
        },
        last: Instant::now(),
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

/// Polls with a waker that does nothing.
fn look(inbox: &Inbox, lane: Option<Lane>) -> Option<Next> {
    let mut context = Context::from_waker(Waker::noop());
    match inbox.poll_next(&mut context, || lane) {
        Poll::Ready(next) => Some(next),
        Poll::Pending => None,
    }
}

#[tokio::test]
async fn an_event_wakes_the_reader() {
    let inbox = Arc::new(inbox(1024));
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
    let inbox = Arc::new(inbox(1024));
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
    let inbox = inbox(3 * EVENT);
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
    let inbox = inbox(1024);
    assert!(inbox.push(Event::Go));
    inbox.close();
    assert!(!inbox.push(Event::Go));
    assert_eq!((event(inbox.pop()), event(inbox.pop())), (Some(Event::Go), None));
}

#[test]
fn text_that_passed_comes_before_the_event_that_closed_the_lane() {
    let inbox = inbox(1024);
    assert!(look(&inbox, Some(lane(1))).is_none());
    let now = Instant::now();
    inbox.push_frame(&worker(), text(1, "a"), now);
    inbox.push_frame(&worker(), text(2, "b"), now);
    inbox.push(Event::LinkRestored);
    inbox.push_frame(&worker(), text(3, "c"), now);
    assert_eq!(passed(inbox.pop()), "<a><b>");
    assert_eq!(event(inbox.pop()), Some(Event::LinkRestored));
    // The lane stays closed until the reader has taken everything.
    assert!(matches!(event(inbox.pop()), Some(Event::Frame { frame, .. }) if frame.seq == 3));
    assert!(look(&inbox, Some(lane(4))).is_none());
    inbox.push_frame(&worker(), text(4, "d"), now);
    assert_eq!(passed(inbox.pop()), "<d>");
}

#[test]
fn a_lane_that_was_closed_lets_nothing_through() {
    let inbox = inbox(1024);
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

#[tokio::test(start_paused = true)]
async fn a_burst_is_no_slow_reader_but_what_stays_unread_is() {
    let inbox = inbox(1000);
    assert!(look(&inbox, Some(lane(1))).is_none());
    let push = |seq| inbox.push_frame(&worker(), text(seq, &"x".repeat(700)), Instant::now());
    for seq in 1..=8 {
        assert_eq!(push(seq), Fate::Taken, "read soon, {seq}");
    }
    tokio::time::advance(SLOW_READER).await;
    assert_eq!(push(9), Fate::Overflowed);
}

#[test]
fn text_that_passes_is_bounded_too() {
    let inbox = inbox(1000);
    assert!(look(&inbox, Some(lane(1))).is_none());
    let mut fates = Vec::new();
    for seq in 1..1000 {
        fates.push(inbox.push_frame(&worker(), text(seq, "0123456789"), Instant::now()));
    }
    let overflowed = fates.iter().filter(|fate| **fate == Fate::Overflowed).count();
    assert_eq!(overflowed, 1, "its worker is told once");
    assert!(fates.iter().all(|fate| matches!(fate, Fate::Taken | Fate::Overflowed)));
    assert_eq!(passed(inbox.pop()), "", "what waited is thrown away");
    assert_eq!(event(inbox.pop()), Some(Event::Overflow));
    assert!(inbox.pop().is_none());
}

/// Answers with a given result, and remembers what it was to send.
#[derive(Debug)]
struct Told {
    answer: Mutex<Sent>,
    sent: Mutex<Vec<u8>>,
}

impl Outlet for Told {
    fn send(&self, events: &[u8], _tokens: u64, _gap: Duration, _scratch: &mut Vec<u8>) -> Sent {
        let answer = *self.answer.lock().unwrap();
        if matches!(answer, Sent::All | Sent::Kept) {
            self.sent.lock().unwrap().extend_from_slice(events);
        }
        answer
    }
}

fn direct(answer: Sent) -> (Arc<Told>, Lane) {
    let told = Arc::new(Told {
        answer: Mutex::new(answer),
        sent: Mutex::default(),
    });
    let mut lane = lane(1);
    lane.splice.outlet = Some(Arc::clone(&told) as Arc<dyn Outlet>);
    (told, lane)
}

/// Whether the reader was woken since it last looked.
fn woken(inbox: &Inbox) -> bool {
    inbox.queue.lock().unwrap().reader.is_none()
}

#[test]
fn text_leaves_past_the_reader_all_of_a_message_in_one_piece() {
    let inbox = inbox(1024);
    let (told, lane) = direct(Sent::All);
    assert!(look(&inbox, Some(lane)).is_none());
    let now = Instant::now();
    assert_eq!(inbox.push_frame(&worker(), text(1, "a"), now), Fate::Waits);
    assert_eq!(
        inbox.push_frame(&worker(), text(2, "b"), now),
        Fate::Taken,
        "once is enough"
    );
    assert!(told.sent.lock().unwrap().is_empty());
    inbox.flush(now, &mut Vec::new());
    assert_eq!(*told.sent.lock().unwrap(), b"<a><b>");
    assert!(!woken(&inbox), "nobody has to do anything");
    assert_eq!(inbox.push_frame(&worker(), text(3, "c"), now), Fate::Waits);
    inbox.flush(now, &mut Vec::new());
    // The reader learns of it at its next look.
    let Some(Next::Passed(passed)) = inbox.pop() else {
        panic!()
    };
    assert_eq!((passed.frames, passed.sent, passed.tokens), (3, 3, 0));
    assert_eq!((passed.text.as_str(), passed.sent_at), ("abc", Some(now)));
    assert!(passed.written.is_empty());
}

#[test]
fn what_cannot_leave_past_the_reader_is_the_readers() {
    for (answer, wakes, waits) in [
        (Sent::NotNow, true, "<a>"),
        (Sent::Kept, true, ""),
        (Sent::Broken, true, ""),
    ] {
        let inbox = inbox(1024);
        let (_told, lane) = direct(answer);
        assert!(look(&inbox, Some(lane)).is_none());
        inbox.push_frame(&worker(), text(1, "a"), Instant::now());
        inbox.flush(Instant::now(), &mut Vec::new());
        assert_eq!(woken(&inbox), wakes, "{answer:?}");
        assert_eq!(passed(inbox.pop()), waits, "{answer:?}");
    }
}

#[test]
fn an_event_between_text_and_its_sending_keeps_the_order() {
    let inbox = inbox(1024);
    let (told, lane) = direct(Sent::All);
    assert!(look(&inbox, Some(lane)).is_none());
    inbox.push_frame(&worker(), text(1, "a"), Instant::now());
    inbox.push(Event::LinkRestored);
    inbox.flush(Instant::now(), &mut Vec::new());
    assert!(told.sent.lock().unwrap().is_empty(), "the lane is closed");
    assert_eq!(passed(inbox.pop()), "<a>");
    assert_eq!(event(inbox.pop()), Some(Event::LinkRestored));
    inbox.flush(Instant::now(), &mut Vec::new());
    assert!(told.sent.lock().unwrap().is_empty(), "nothing is sent twice");
}

#[test]
fn a_reader_that_has_nothing_to_write_still_takes_note_of_long_texts() {
    let inbox = inbox(1 << 20);
    let (_told, lane) = direct(Sent::All);
    assert!(look(&inbox, Some(lane)).is_none());
    let long = "x".repeat(crate::limits::TEXT_KEPT / 2 + 1);
    for (seq, wakes) in [(1, false), (2, true)] {
        inbox.push_frame(&worker(), text(seq, &long), Instant::now());
        inbox.flush(Instant::now(), &mut Vec::new());
        assert_eq!(woken(&inbox), wakes);
    }
}
