//! Where a stream that looks for a worker goes: pure, over what is known of the workers and of those
//! who wait.
//!
//! Requests wait in line for room, and only for room: where nobody is left who could serve a line,
//! everyone in it looks for himself, and is told. So whoever looks in vain, or hears that a worker is
//! gone, calls the whole line; and the first of a line looks every now and then although nobody called it,
//! since a call is a message and can be lost.

use tokenbus_protocol::{Features, Name};
use tokio::time::Instant;

use super::state::StreamState;
use crate::call::CallError;
use crate::limits::NO_WORKER_RETRY;
use crate::placement::able::Able;
use crate::placement::{Choice, Tried, View};
use crate::waiting_room::{Ticket, WaitingRoom};

/// A request that looks for a worker.
#[derive(Debug, Clone, Copy)]
pub struct Seeker<'a> {
    /// The model.
    pub model: &'a str,
    /// What the engine must be able to do.
    pub needs: Features,
    /// Its place in the order of arrival, once it has waited.
    pub ticket: Option<&'a Ticket>,
    /// It stands in the waiting room.
    pub in_room: bool,
    /// The connection to the bus came back a moment ago: workers may still be on their way.
    pub recovering: bool,
    /// NATS is a cluster of servers: one may have died under all workers at once.
    pub clustered: bool,
}

/// Where it goes.
#[derive(Debug, Clone, PartialEq)]
pub enum Goes {
    /// To this worker; `None`: to the model's queue subject.
    To(Option<Name>),
    /// Into the line of those who wait for room; where it is there already, it stays.
    InLine,
    /// Nowhere yet: no worker is there, and it may wait for one.
    Pause {
        /// It has just found out.
        first: bool,
    },
    /// It has failed.
    Fails(CallError),
}

/// Where `seeker` goes now.
pub fn seek<T>(
    state: &mut StreamState,
    seeker: &Seeker<'_>,
    view: &View,
    room: &WaitingRoom<T>,
    now: Instant,
    random: &mut fastrand::Rng,
) -> Goes {
    if !may_look(state, seeker, view, room) {
        return Goes::InLine;
    }
    let tried = Tried {
        excluded: state.excluded(),
        untaken: state.untaken(),
    };
    match view.choose(seeker.model, seeker.needs, tried, now, random) {
        Choice::Wait => {
            state.found_worker();
            Goes::InLine
        }
        Choice::Cannot(missing) => unsupported(seeker, missing),
        Choice::Gone => without_worker(state, seeker, view, now),
        Choice::Queue if state.queue_empty() => without_worker(state, seeker, view, now),
        Choice::Queue => Goes::To(None),
        Choice::Worker(worker) => Goes::To(Some(worker)),
    }
}

/// Whether it is its turn. Nobody waits behind others for a worker that is not there.
fn may_look<T>(state: &StreamState, seeker: &Seeker<'_>, view: &View, room: &WaitingRoom<T>) -> bool {
    let waiting = seeker.ticket.filter(|_| seeker.in_room);
    let is_new = seeker.ticket.is_none() && state.untaken() == 0 && !state.has_begun();
    match waiting {
        Some(ticket) => room.is_next(ticket) || !view.could(seeker.model, seeker.needs),
        None if is_new && !room.is_empty() => {
            let line = view.distinguishing(seeker.model, seeker.needs);
            room.waiting_in(seeker.model, line) == 0 || !view.could(seeker.model, seeker.needs)
        }
        // It was called, is in the middle of its tries, or has begun and goes before all that have not.
        None => true,
    }
}

fn without_worker(state: &mut StreamState, seeker: &Seeker<'_>, view: &View, now: Instant) -> Goes {
    let first = !state.is_without_worker();
    let returning = seeker.clustered && view.may_return(seeker.model, seeker.needs, now);
    if state.may_wait_for_worker(now, seeker.recovering || returning) {
        return Goes::Pause { first };
    }
    // Without snapshots a model's workers may be known, and none of them listen to its kind.
    if let (false, Able::None(missing)) = (view.is_fresh(now), view.able(seeker.model, seeker.needs)) {
        return unsupported(seeker, missing);
    }
    let model = seeker.model.to_owned();
    Goes::Fails(if view.models().contains_key(seeker.model) || !view.is_fresh(now) {
        CallError::NoWorker {
            model,
            retry_after: NO_WORKER_RETRY,
        }
    } else {
        CallError::UnknownModel {
            model,
            known: view.models().keys().cloned().collect(),
        }
    })
}

fn unsupported(seeker: &Seeker<'_>, missing: Features) -> Goes {
    Goes::Fails(CallError::Unsupported {
        model: seeker.model.to_owned(),
        missing,
    })
}

/// Takes out of the line whoever looks now: as many as there is room for, or all where nobody could serve them.
pub fn call<T>(view: &View, room: &mut WaitingRoom<T>, model: &str) -> Vec<T> {
    let lines: Vec<(Features, usize)> = room.lines(model).collect();
    let mut called = Vec::new();
    for (line, waiting) in lines {
        let count = if view.could(model, line) {
            waiting.min(view.free(model, line) as usize)
        } else {
            waiting
        };
        called.extend((0..count).map_while(|_| room.next(model, line)));
    }
    called
}

/// Takes everyone out of the line of a request that found no worker.
pub fn call_line<T>(view: &View, room: &mut WaitingRoom<T>, model: &str, needs: Features) -> Vec<T> {
    let line = view.distinguishing(model, needs);
    std::iter::from_fn(|| room.next(model, line)).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
#[path = "seek_model_tests.rs"]
mod model;
