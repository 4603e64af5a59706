//! The loops that bring what the bus says to the streams and the view, and send what has no stream
//! to wait for it. Each owns its subscription and ends only with it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_nats::{Message, StatusCode, Subscriber};
use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _};
use tokenbus_protocol::{
    BatchReader, Body, Capacity, Control, ControlReply, Event as ClusterEvent, EventKind, Frame, FreeHint, Held, Name,
    Out, Ping, RollCall, Subjects, decode, encode,
};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::limits;
use crate::shared::{Shared, unix_seconds};
use crate::stream::demux::Inboxes;
use crate::stream::event::Event;
use crate::stream::inbox::{Fate, Inbox};

/// How often silent workers are looked for. A timer and not an event: silence has none.
const SILENCE_TICK: Duration = Duration::from_millis(150);

/// After a reconnect, time for workers to reconnect as well before silence means anything.
const RECONNECT_GRACE: Duration = Duration::from_millis(1500);

/// Stream number of pings in reply subjects: no stream has it.
const PING_STREAM: u64 = 0;

/// Demultiplexes all that comes back to this gateway.
pub async fn frames(shared: Arc<Shared>, mut subscription: Subscriber, pings: Arc<Pings>) {
    let (mut touched, mut scratch) = (Vec::new(), Vec::new());
    while let Some(message) = subscription.next().await {
        let now = Instant::now();
        // What is there already is looked at first: what several messages bring for one stream leaves
        // in one write.
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
            Err(error) => malformed(shared, &message.subject, &error),
        },
        Some(Out::Reply { stream, attempt }) => reply(shared, pings, message, stream, attempt),
        None => malformed(shared, &message.subject, &"no such subject"),
    }
}

/// Sends what one message brought: for each stream all of it in one write.
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
        malformed(shared, worker.as_str(), &error);
    }
    if let Some(instance) = life {
        shared.roll_call.answered(worker);
        if shared.view().instance(worker, instance) {
            restarted(shared, worker.clone(), instance);
        }
    }
    match room {
        Some(room) => shared.room(worker, room, now),
        None => shared.view().alive(worker, now),
    }
}

/// Tells each stream what `worker` says of it, in the place among the frames where it says so.
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
                // Its reader may be stuck in a write to a client that does not read, and what comes on
                // for it would hold up everybody else.
                Fate::Overflowed => shared.cancel(worker, inbox.call(), attempt),
                Fate::Gone | Fate::Taken => {}
            }
            fate
        }
    };
    // The client left before any worker had its request; now one has it.
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
            lost(shared, &worker);
        }
        return;
    }
    // A pong says that the process is there, and which life of it; what it does for its streams it
    // says in frames.
    match decode::<ControlReply>(&message.payload) {
        Ok(ControlReply::Pong(pong)) => {
            if let Some((worker, at)) = pings.answered(attempt).filter(|_| stream == PING_STREAM) {
                shared.view().answered(&worker, at, Instant::now());
            }
            if shared.view().instance(&pong.worker, pong.instance) {
                restarted(shared, pong.worker, pong.instance);
            }
        }
        Ok(_) => {}
        Err(error) => malformed(shared, &message.subject, &error),
    }
}

fn restarted(shared: &Shared, worker: Name, instance: u64) {
    tracing::warn!(%worker, "worker was restarted");
    shared.streams.broadcast(&Event::WorkerInstance { worker, instance });
}

fn lost(shared: &Shared, worker: &Name) {
    tracing::warn!(%worker, "worker lost");
    shared.gone(worker);
    shared.streams.broadcast(&Event::WorkerGone { worker: worker.clone() });
}

/// Takes in capacity snapshots.
pub async fn capacity(shared: Arc<Shared>, mut subscription: Subscriber) {
    while let Some(message) = subscription.next().await {
        take_snapshot(&shared, &message.payload);
    }
}

/// Takes in one snapshot.
pub fn take_snapshot(shared: &Shared, payload: &[u8]) {
    match decode::<Capacity>(payload) {
        Ok(capacity) => {
            let now = Instant::now();
            let changed = shared.view().snapshot(&capacity, now, unix_seconds());
            for (worker, instance) in changed {
                restarted(shared, worker, instance);
            }
            shared.wake_all();
        }
        Err(error) => malformed(shared, "capacity", &error),
    }
}

/// Takes in hints that a full worker has room again.
pub async fn free(shared: Arc<Shared>, mut subscription: Subscriber) {
    while let Some(message) = subscription.next().await {
        let now = Instant::now();
        let Some(model) = Subjects::parse_free(&message.subject) else {
            malformed(&shared, &message.subject, &"no such subject");
            continue;
        };
        if shared.waiting(&model) == 0 {
            continue;
        }
        match decode::<FreeHint>(&message.payload) {
            Ok(hint) => {
                shared.view().learnt(&hint.worker, &model, now, unix_seconds());
                shared.room(&hint.worker, hint.room, now);
            }
            Err(error) => malformed(&shared, &message.subject, &error),
        }
    }
}

/// Takes in what the coordinator saw: a lost worker shortens the wait for its streams.
pub async fn events(shared: Arc<Shared>, mut subscription: Subscriber) {
    while let Some(message) = subscription.next().await {
        match decode::<ClusterEvent>(&message.payload) {
            Ok(ClusterEvent {
                kind: EventKind::WorkerLost,
                worker: Some(worker),
                ..
            }) => {
                // The coordinator may be the one that is cut off: whoever was heard a moment ago
                // is not lost. How long a moment is, on the worker's link, was measured.
                let (heard, late) = {
                    let view = shared.view();
                    (view.heard(&worker), view.lateness(&worker))
                };
                let silent = heard.is_some_and(|at| at.elapsed() > RECONNECT_GRACE + late);
                if silent {
                    lost(&shared, &worker);
                }
            }
            Ok(_) => {}
            Err(error) => malformed(&shared, "event", &error),
        }
    }
}

/// Pings under way: which worker an answer is about, and when it was pinged.
#[derive(Debug, Default)]
pub struct Pings(std::sync::Mutex<std::collections::VecDeque<(u32, Name, Instant)>>);

/// Pings that are remembered; an answer comes within a round trip or not at all.
const PINGS: usize = 1024;

impl Pings {
    fn table(&self) -> std::sync::MutexGuard<'_, std::collections::VecDeque<(u32, Name, Instant)>> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn add(&self, number: u32, worker: Name) {
        let mut table = self.table();
        if table.len() >= PINGS {
            table.pop_front();
        }
        table.push_back((number, worker, Instant::now()));
    }

    /// Who was pinged by `number`, and when; it is then forgotten.
    fn answered(&self, number: u32) -> Option<(Name, Instant)> {
        let mut table = self.table();
        let at = table.iter().position(|(ping, ..)| *ping == number)?;
        table.remove(at).map(|(_, worker, at)| (worker, at))
    }
}

/// Pings workers that run streams of ours and are silent. NATS answers "no responders" for one
/// whose process or connection is gone; one that hangs is found by its streams' stall timers. After a
/// reconnect of this gateway it asks each of them what it has, until it says so. A worker that is new
/// here is pinged a few times, so that it is known how long it takes to answer before it is asked for anything.
pub async fn liveness(shared: Arc<Shared>, pings: Arc<Pings>) {
    let call = Control::RollCall(RollCall {
        gateway: shared.gateway.clone(),
    });
    let (Ok(ping), Ok(call)) = (encode(&Control::Ping(Ping {})), encode(&call)) else {
        return;
    };
    let (ping, call) = (Bytes::from(ping), Bytes::from(call));
    let mut tick = tokio::time::interval(SILENCE_TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut link = shared.bus.link();
    let mut number: u32 = 0;
    let mut quiet_until = None;
    loop {
        tick.tick().await;
        let now = Instant::now();
        if link.has_changed().unwrap_or(false) {
            let link = link.borrow_and_update().clone();
            if !link.connected {
                shared.streams.broadcast(&Event::LinkLost);
            }
            if link.connected && link.epoch > 1 {
                shared.streams.broadcast(&Event::LinkRestored);
                let serving = shared.view().busy_with_ours();
                shared.roll_call.begin(serving, now + limits::AFTER_RECONNECT);
            }
            quiet_until = Some(now + RECONNECT_GRACE);
        }
        for worker in shared.roll_call.due(now) {
            if let Err(error) = shared.bus.publish(shared.subjects.control(&worker), call.clone()).await {
                tracing::debug!(%error, "roll call not sent");
            }
        }
        if quiet_until.is_some_and(|until| now < until) {
            continue;
        }
        let asked = {
            let (mut view, now) = (shared.view(), Instant::now());
            let mut asked = view.silent(limits::PING_AFTER, now);
            asked.extend(view.unmeasured(limits::MEASURE_AT_ONCE, limits::PING_AFTER, now));
            asked
        };
        for worker in asked {
            number = number.wrapping_add(1);
            let subject = shared.subjects.control(&worker);
            let answer = shared.subjects.reply(&shared.gateway, PING_STREAM, number);
            pings.add(number, worker);
            if let Err(error) = shared.bus.publish_with_reply(subject, answer, ping.clone()).await {
                tracing::debug!(%error, "ping not sent");
            }
        }
    }
}

/// Sends what nobody waits for: cancels.
pub async fn courier(shared: Arc<Shared>, mut outgoing: mpsc::Receiver<(String, Bytes)>) {
    while let Some((subject, payload)) = outgoing.recv().await {
        if let Err(error) = shared.bus.publish(subject, payload).await {
            tracing::warn!(%error, "cancel not sent");
        }
    }
}

fn malformed(shared: &Shared, subject: &str, error: &dyn std::fmt::Display) {
    shared.bus.metrics().malformed.inc();
    tracing::warn!(subject, %error, "malformed message");
}
