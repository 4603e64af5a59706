//! The loop that hands incoming frames and replies to their streams.

use std::collections::HashMap;
use std::sync::Arc;

use async_nats::{Message, StatusCode, Subscriber};
use futures_util::{FutureExt as _, StreamExt as _};
use tokenbus_protocol::{BatchReader, Body, ControlReply, Frame, Held, Name, Out, Subjects, decode};
use tokio::time::Instant;

use super::pings::{PING_STREAM, Pings};
use crate::limits;
use crate::shared::Shared;
use crate::stream::demux::Inboxes;
use crate::stream::event::Event;
use crate::stream::inbox::{Fate, Inbox};

/// Demultiplexes everything that comes back to this gateway.
pub(crate) async fn run(shared: Arc<Shared>, mut subscription: Subscriber, pings: Arc<Pings>) {
    let (mut touched, mut scratch) = (Vec::new(), Vec::new());
    while let Some(message) = subscription.next().await {
        let now = Instant::now();
        // Reads all messages that have arrived already before it sends, so that a stream's text from several messages
        // leaves in one write.
        let mut next = Some(message);
        for _ in 0..limits::MESSAGES_IN_A_ROW {
            let Some(message) = next else { break };
            take_in(&shared, &pings, &message, now, &mut touched);
            next = subscription.next().now_or_never().flatten();
        }
        if let Some(message) = next {
            take_in(&shared, &pings, &message, now, &mut touched);
        }
        send(&mut touched, now, &mut scratch).await;
    }
}

fn take_in(shared: &Shared, pings: &Pings, message: &Message, now: Instant, touched: &mut Vec<Arc<Inbox>>) {
    match Subjects::parse_out(&message.subject) {
        Some(Out::Worker(worker)) => match Name::new(worker) {
            Ok(worker) => batch(shared, &worker, &message.payload, now, touched),
            Err(error) => shared.malformed(&message.subject, &error),
        },
        Some(Out::Reply { stream, attempt }) => reply(shared, pings, message, stream, attempt),
        None => shared.malformed(&message.subject, &"no such subject"),
    }
}

/// Sends what the messages brought, with one write per stream.
async fn send(touched: &mut Vec<Arc<Inbox>>, now: Instant, scratch: &mut Vec<u8>) {
    for (n, inbox) in touched.drain(..).enumerate() {
        if n % limits::SENDS_IN_A_ROW == limits::SENDS_IN_A_ROW - 1 {
            tokio::task::yield_now().await;
        }
        inbox.flush(now, scratch);
    }
}

fn batch(shared: &Shared, worker: &Name, payload: &[u8], now: Instant, touched: &mut Vec<Arc<Inbox>>) {
    let (mut room, mut life) = (None, None);
    let read = BatchReader::new(payload).and_then(|reader| {
        shared.streams.with(|streams| {
            reader.for_each(|frame| match frame.body {
                Body::Room(told) => room = Some(told),
                Body::Held(held) => {
                    life = Some(held.instance);
                    roll_called(streams, worker, &held);
                }
                _ => deliver(shared, streams, worker, frame, now, touched),
            })
        })
    });
    if let Err(error) = read {
        shared.malformed(worker.as_str(), &error);
    }
    if let Some(instance) = life {
        shared.roll_call.answered(worker);
        if shared.view().instance(worker, instance) {
            shared.restarted(worker.clone(), instance);
        }
    }
    match room {
        Some(room) => shared.room(worker, room, now),
        None => shared.view().alive(worker, now),
    }
}

/// Tells each stream whether `worker` holds it. The list's place among the frames matters.
fn roll_called(streams: &Inboxes, worker: &Name, held: &Held) {
    let places = held.streams.iter();
    let places: HashMap<u64, (u32, u32)> = places.map(|one| (one.stream, (one.attempt, one.next_seq))).collect();
    for (number, inbox) in streams {
        inbox.push(Event::Held {
            worker: worker.clone(),
            instance: held.instance,
            place: places.get(number).copied(),
        });
    }
}

fn deliver(
    shared: &Shared,
    streams: &Inboxes,
    worker: &Name,
    frame: Frame<'_>,
    now: Instant,
    touched: &mut Vec<Arc<Inbox>>,
) {
    let accepted = match &frame.body {
        Body::Accepted(accepted) => Some((accepted.id, frame.attempt)),
        _ => None,
    };
    let attempt = frame.attempt;
    let fate = match streams.get(&frame.stream) {
        None => Fate::Gone,
        Some(inbox) => {
            let fate = inbox.push_frame(worker, frame, now);
            match fate {
                Fate::Waits => touched.push(Arc::clone(inbox)),
                // The stream's reader may be stuck in a write to a client that does not read. Its further output would
                // hold up everyone else.
                Fate::Overflowed => shared.cancel(worker, inbox.call(), attempt),
                Fate::Gone | Fate::Taken => {}
            }
            fate
        }
    };
    // The client left before any worker had its request. Now a worker has it.
    if let (Fate::Gone, Some((id, attempt))) = (fate, accepted) {
        shared.cancel(worker, id, attempt);
    }
}

fn reply(shared: &Shared, pings: &Pings, message: &Message, stream: u64, attempt: u32) {
    if message.status == Some(StatusCode::NO_RESPONDERS) {
        if stream != PING_STREAM {
            if let Some(inbox) = shared.streams.get(stream) {
                inbox.push(Event::NoResponders { attempt });
            }
        } else if let Some((worker, _)) = pings.answered(attempt) {
            shared.lost(&worker);
        }
        return;
    }
    // A pong shows that the process is alive, and which instance it is. Its streams' state comes in frames.
    match decode::<ControlReply>(&message.payload) {
        Ok(ControlReply::Pong(pong)) => {
            if let Some((worker, at)) = pings.answered(attempt).filter(|_| stream == PING_STREAM) {
                shared.view().answered(&worker, at, Instant::now());
            }
            if shared.view().instance(&pong.worker, pong.instance) {
                shared.restarted(pong.worker, pong.instance);
            }
        }
        Ok(_) => {}
        Err(error) => shared.malformed(&message.subject, &error),
    }
}
