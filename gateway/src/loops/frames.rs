//! The loop that hands incoming frames and replies to their streams.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use async_nats::{Message, StatusCode};

use tokenbus_bus::Subscription;
use tokenbus_protocol::{BatchReader, Body, ControlReply, Frame, Held, Name, Out, Room, Subjects, decode};
use tokio::time::Instant;

use super::pings::{PING_STREAM, Pings};
use super::rounds::{self, Stretch};
use crate::limits;
use crate::shared::Shared;
use crate::stream::demux::Inboxes;
use crate::stream::event::Event;
use crate::stream::inbox::{Fate, Inbox};

/// The streams whose text waits to be sent, in order, and when the first of it arrived.
type Touched = VecDeque<(Arc<Inbox>, Instant)>;

/// Demultiplexes everything that comes back to this gateway.
pub(crate) async fn run(shared: Arc<Shared>, subscription: Subscription, pings: Arc<Pings>) {
    let stretch = Stretch {
        messages: limits::MESSAGES_IN_A_ROW,
        sends: limits::SENDS_IN_A_ROW,
    };
    let mut scratch = Vec::new();
    let take_in = |message: Message, touched: &mut Touched| {
        take_in(&shared, &pings, &message, Instant::now(), touched);
    };
    let send = |(inbox, arrived): (Arc<Inbox>, Instant)| inbox.flush(arrived, &mut scratch);
    rounds::run(subscription, stretch, take_in, send).await;
}

fn take_in(shared: &Shared, pings: &Pings, message: &Message, now: Instant, touched: &mut Touched) {
    match Subjects::parse_out(&message.subject) {
        Some(Out::Worker(worker)) => match Name::new(worker) {
            Ok(worker) => batch(shared, &worker, &message.payload, now, touched),
            Err(error) => shared.malformed(&message.subject, &error),
        },
        Some(Out::Reply { stream, attempt }) => reply(shared, pings, message, stream, attempt),
        None => shared.malformed(&message.subject, &"no such subject"),
    }
}

fn batch(shared: &Shared, worker: &Name, payload: &[u8], now: Instant, touched: &mut Touched) {
    if shared.is_unheard(worker, now) {
        return;
    }
    let (mut room, mut life, mut useless, mut offered, mut answered) = (None, None, 0, 0_u32, 0_u32);
    let read = BatchReader::new(payload).and_then(|reader| {
        shared.streams.with(|streams| {
            reader.for_each(|frame| match frame.body {
                Body::Room(told) => room = Some(told),
                Body::Offer(offer) => offered = offered.saturating_add(offer.slots),
                // A worker says it once in a message, and each time costs a look at all streams.
                Body::Held(held) if life.is_none() => {
                    life = Some(held.instance);
                    useless += 1 + streams.len();
                    roll_called(streams, worker, &held);
                }
                Body::Held(_) | Body::Unknown => useless += 1,
                _ => {
                    let answers = matches!(frame.body, Body::Accepted(_) | Body::Reject(_));
                    let cost = deliver(shared, streams, worker, frame, now, touched);
                    answered = answered.saturating_add(u32::from(answers && cost == 0));
                    useless += cost;
                }
            })
        })
    });
    if let Err(error) = read {
        shared.malformed(worker.as_str(), &error);
    }
    if useless > 0 {
        shared.note_useless(worker, useless, now);
    }
    if let Some(instance) = life {
        shared.roll_call.answered(worker);
        if shared.view().instance(worker, instance) {
            shared.restarted(worker.clone(), instance);
        }
    }
    if answered > 0 {
        shared.view().has_answered(worker, answered);
    }
    match room {
        None if offered == 0 => shared.view().alive(worker, now),
        room => {
            let free = Room {
                free: offered,
                ..Room::default()
            };
            shared.room(worker, room.unwrap_or(free), offered, now);
        }
    }
}

/// Tells each stream of `worker` whether the worker holds it. The list's place among the frames matters.
fn roll_called(streams: &Inboxes, worker: &Name, held: &Held) {
    let places = held.streams.iter();
    let places: HashMap<u64, (u32, u32)> = places.map(|one| (one.stream, (one.attempt, one.next_seq))).collect();
    for (number, inbox) in streams {
        inbox.push_of(worker, || Event::Held {
            worker: worker.clone(),
            instance: held.instance,
            place: places.get(number).copied(),
        });
    }
}

/// Hands a frame to its stream. Returns what it cost if it is of no use, in frames.
fn deliver(
    shared: &Shared,
    streams: &Inboxes,
    worker: &Name,
    frame: Frame<'_>,
    now: Instant,
    touched: &mut Touched,
) -> usize {
    let accepted = match &frame.body {
        Body::Accepted(accepted) => Some((accepted.id, frame.attempt)),
        _ => None,
    };
    let goes_on = matches!(frame.body, Body::Delta(_) | Body::Alive(_));
    let (stream, attempt) = (frame.stream, frame.attempt);
    let fate = match streams.get(&frame.stream) {
        None => Fate::Gone,
        Some(inbox) => {
            let fate = inbox.push_frame(worker, frame, now);
            match fate {
                Fate::Waits => touched.push_back((Arc::clone(inbox), now)),
                // The stream's reader may be stuck in a write to a client that does not read. Its further output would
                // hold up everyone else.
                Fate::Overflowed => shared.cancel(worker, inbox.call(), attempt),
                Fate::Gone | Fate::Foreign | Fate::Taken => {}
            }
            fate
        }
    };
    match (fate, accepted) {
        (Fate::Taken | Fate::Waits | Fate::Overflowed, _) => 0,
        // The client left before any worker had its request, or the attempt was given up. Now a worker has it.
        (Fate::Gone | Fate::Foreign, Some((id, attempt))) => {
            shared.cancel(worker, id, attempt);
            limits::UNASKED_ANSWER
        }
        // A worker took it from the queue subject, and the frame that shows so was lost. Or it has made it all up, and
        // must not learn the request's id.
        (Fate::Foreign, None) if goes_on => {
            shared.disown(worker, stream, attempt);
            limits::UNASKED_ANSWER
        }
        (Fate::Gone | Fate::Foreign, None) => 1,
    }
}

fn reply(shared: &Shared, pings: &Pings, message: &Message, stream: u64, attempt: u32) {
    if message.status == Some(StatusCode::NO_RESPONDERS) {
        if stream != PING_STREAM {
            if let Some(inbox) = shared.streams.get(stream) {
                inbox.push(Event::NoResponders { attempt });
            }
        } else if let Some((worker, _)) = pings.unanswered(attempt) {
            shared.lost(&worker);
        }
        return;
    }
    // A pong shows that the process is alive, and which instance it is. Its streams' state comes in frames.
    match decode::<ControlReply>(&message.payload) {
        Ok(ControlReply::Pong(pong)) => {
            // Only who was asked is heard, and only of itself.
            if stream == PING_STREAM
                && let Some((worker, at)) = pings.answered(attempt, &pong.worker)
            {
                shared.view().answered(&worker, at, Instant::now());
                if shared.view().instance(&worker, pong.instance) {
                    shared.restarted(worker, pong.instance);
                }
            }
        }
        Ok(_) => {}
        Err(error) => shared.malformed(&message.subject, &error),
    }
}
