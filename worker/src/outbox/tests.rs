//! Tests of the outbox without NATS.

use std::borrow::Cow;

use futures_util::FutureExt as _;
use tokenbus_protocol::{BatchReader, Room};

use super::*;

fn outbox(bound: usize) -> Outbox {
    let load = Arc::new(Load::default());
    load.set_capacity(3, true);
    Outbox::new(bound, load)
}

fn delta(stream: u64, seq: u32, text: &str) -> Frame<'_> {
    Frame {
        stream,
        attempt: 0,
        seq,
        body: Body::Delta(Delta {
            text: Cow::Borrowed(text),
            tokens: 1,
            ..Delta::default()
        }),
    }
}

fn frames(batch: &[u8]) -> Vec<(u64, u32)> {
    let mut frames = Vec::new();
    BatchReader::new(batch)
        .unwrap()
        .for_each(|frame| frames.push((frame.stream, frame.seq)))
        .unwrap();
    frames
}

#[tokio::test]
async fn a_step_of_512_sequences_is_one_wake_up_and_one_message() {
    let outbox = outbox(limits::OUTBOX);
    for stream in 1..=512 {
        outbox.push(&delta(stream, 7, "token "), Press::Stream).unwrap();
    }
    outbox.ready().await;
    let batch = outbox.take().unwrap();
    assert_eq!(outbox.take(), None);
    assert!(outbox.ready().now_or_never().is_none(), "one wake-up only");
    let seen = frames(&batch);
    assert_eq!(seen.len(), 513);
    assert_eq!(seen.last(), Some(&(0, 0)), "the room stands at the end");
    assert!(seen.iter().take(512).map(|(s, _)| *s).eq(1..=512), "in order");
    outbox.push(&delta(1, 8, "x"), Press::Stream).unwrap();
    assert!(outbox.ready().now_or_never().is_some(), "and it wakes again");
}

#[tokio::test]
async fn a_frame_that_rode_along_does_not_wake_the_sender_again() {
    let outbox = outbox(limits::OUTBOX);
    outbox.push(&delta(1, 0, "x"), Press::Patient).unwrap();
    outbox.ready().await;
    outbox.push(&delta(1, 1, "x"), Press::Stream).unwrap();
    assert!(outbox.take().is_some(), "both in one message");
    assert_eq!(outbox.take(), None);
    assert!(outbox.ready().now_or_never().is_none(), "nothing is left to be sent");
    outbox.push(&delta(1, 2, "x"), Press::Stream).unwrap();
    assert!(outbox.ready().now_or_never().is_some(), "what comes then wakes it");
}

/// Pushes a frame of `bytes` bytes in each of `turns` turns, and returns how many of them a sender gathers.
async fn gathered(turns: u32, bytes: usize) -> usize {
    let outbox = Arc::new(outbox(limits::OUTBOX));
    let pushing = Arc::clone(&outbox);
    let pusher = tokenbus_bus::task::spawn("pusher", async move {
        for seq in 0..turns {
            pushing.push(&delta(1, seq, &"x".repeat(bytes)), Press::Stream).unwrap();
            tokio::task::yield_now().await;
        }
    });
    // A task, as in a worker: the runtime polls what it blocks on more often.
    let sender = tokenbus_bus::task::spawn("sender", async move {
        outbox.ready().await;
        gather(&outbox).await;
        frames(&outbox.take().unwrap()).len() - 1
    });
    pusher.await.unwrap();
    sender.await.unwrap()
}

#[tokio::test]
async fn tokens_of_successive_turns_leave_in_one_message_but_do_not_wait_for_ever() {
    assert_eq!(gathered(1, 1).await, 1);
    assert_eq!(gathered(4, 1).await, 4, "an answer of four tokens is one message");
    let most = gathered(100, 1).await;
    assert!((4..=6).contains(&most), "a long one does not wait for its end: {most}");
    assert!(gathered(10, limits::SMALL_BATCH).await <= 3, "nor do large frames");
}

#[tokio::test]
async fn what_can_wait_does_so_until_something_cannot() {
    let outbox = outbox(limits::OUTBOX);
    for stream in 1..=3 {
        outbox.push(&delta(stream, 0, "x"), Press::Patient).unwrap();
    }
    outbox.ready().await;
    assert!(outbox.is_patient());
    assert!(outbox.ready().now_or_never().is_none(), "one wake-up for all that wait");
    outbox.push(&delta(1, 1, "x"), Press::Stream).unwrap();
    assert!(outbox.ready().now_or_never().is_some(), "this one does not");
    assert!(!outbox.is_patient());
    outbox.push(&delta(2, 1, "x"), Press::Patient).unwrap();
    assert!(!outbox.is_patient(), "it rides along");
    assert_eq!(frames(&outbox.take().unwrap()).len(), 6);
    assert_eq!(outbox.take(), None);

    outbox.push(&delta(1, 2, "x"), Press::Patient).unwrap();
    assert!(outbox.ready().now_or_never().is_some(), "and from the beginning");
    assert!(outbox.is_patient());
    outbox.close();
    assert!(!outbox.is_patient(), "nothing comes any more");
}

#[test]
fn every_batch_tells_the_room_and_stays_under_the_limit() {
    check_batches(|_| 100, 5000);
    check_batches(|_| 3000, 300);
    check_batches(|_| 30_000, 30);
    check_batches(|seq| (seq as usize * 7919) % 40_000, 200);
}

fn check_batches(length: impl Fn(u32) -> usize, count: u32) {
    let outbox = outbox(usize::MAX);
    for seq in 0..count {
        let text = "x".repeat(length(seq));
        outbox.push(&delta(1, seq, &text), Press::Stream).unwrap();
    }
    let (mut next, mut batches) = (0, 0);
    while let Some(batch) = outbox.take() {
        assert!(batch.len() <= MAX_BATCH);
        let mut room = None;
        BatchReader::new(&batch)
            .unwrap()
            .for_each(|frame| match frame.body {
                Body::Room(r) => room = Some(r),
                _ => {
                    assert_eq!(frame.seq, next);
                    next += 1;
                }
            })
            .unwrap();
        assert_eq!(
            room,
            Some(Room {
                free: 3,
                queued: 0,
                pending: None
            })
        );
        batches += 1;
    }
    assert_eq!(next, count);
    assert!(batches >= 8);
    assert!(outbox.is_empty());
}

#[test]
fn the_room_follows_a_frame_that_is_a_batch_by_itself() {
    let outbox = outbox(limits::OUTBOX);
    outbox.push(&delta(1, 0, "small"), Press::Stream).unwrap();
    outbox
        .push(&delta(1, 1, &"x".repeat(MAX_BATCH * 2)), Press::Stream)
        .unwrap();
    let batches: Vec<_> = std::iter::from_fn(|| outbox.take()).map(|b| frames(&b)).collect();
    assert_eq!(batches, [vec![(1, 0), (0, 0)], vec![(1, 1)], vec![(0, 0)]]);
}

#[tokio::test]
async fn a_probe_rides_along_or_goes_alone() {
    let outbox = outbox(limits::OUTBOX);
    outbox.push(&delta(1, 0, "x"), Press::Stream).unwrap();
    outbox.probe();
    outbox.ready().await;
    assert_eq!(frames(&outbox.take().unwrap()), [(1, 0), (0, 0)]);
    assert!(outbox.take_probe(), "with the message that was due anyway");
    assert_eq!(outbox.take(), None);
    assert!(!outbox.take_probe(), "one message for each");
    outbox.probe();
    assert!(outbox.ready().now_or_never().is_some(), "it wakes the sender");
    assert_eq!(frames(&outbox.take().unwrap()), [(0, 0)]);
    assert!(outbox.take_probe());
    assert_eq!(outbox.take(), None);
}

#[test]
fn a_full_outbox_refuses_streams_takes_answers_for_a_while_and_last_frames_always() {
    let outbox = outbox(1000);
    let text = "x".repeat(90);
    let mut pushed = 0;
    while outbox.push(&delta(1, pushed, &text), Press::Stream).is_ok() {
        pushed += 1;
        assert!(pushed < 20);
    }
    assert!(matches!(
        outbox.push(&delta(1, pushed, "y"), Press::Stream),
        Err(PushError::Full(1000))
    ));
    let mut answers = 0;
    while outbox.push(&delta(2, 0, &text), Press::Answer).is_ok() {
        answers += 1;
    }
    assert!(answers * 120 > limits::OUTBOX_ANSWERS);
    outbox.push(&delta(1, pushed, "last"), Press::Last).unwrap();
    let mut seen = Vec::new();
    while let Some(batch) = outbox.take() {
        seen.extend(frames(&batch));
    }
    let of_stream_1: Vec<u32> = seen.iter().filter(|(s, _)| *s == 1).map(|(_, q)| *q).collect();
    assert_eq!(
        of_stream_1,
        (0..=pushed).collect::<Vec<_>>(),
        "nothing was lost or reordered"
    );
}

#[test]
fn room_comes_back_when_the_outbox_is_drained() {
    let outbox = outbox(limits::OUTBOX);
    assert!(outbox.congestion().is_none());
    let text = "x".repeat(30_000);
    let mut seq = 0;
    while outbox.congestion().is_none() {
        outbox.push(&delta(1, seq, &text), Press::Stream).unwrap();
        seq += 1;
    }
    let mut room = outbox.congestion().unwrap();
    assert!((&mut room).now_or_never().is_none());
    while lock(&outbox.queue).bytes() >= limits::OUTBOX_ROOM {
        assert!((&mut room).now_or_never().is_none());
        outbox.take().unwrap();
    }
    assert!(room.now_or_never().is_some());
}

#[test]
fn who_waits_for_room_is_let_go_when_the_outbox_closes() {
    let outbox = outbox(1000);
    outbox.push(&delta(1, 0, &"x".repeat(900)), Press::Stream).unwrap();
    let room = outbox.congestion().unwrap();
    outbox.close();
    assert!(room.now_or_never().is_some());
    assert!(outbox.ready().now_or_never().is_some(), "the sender is woken");
    assert!(outbox.take().is_some(), "and still finds what waits");
}
