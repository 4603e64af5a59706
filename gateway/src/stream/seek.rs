//! Decides where a stream that seeks a worker goes. Pure, over the view of the workers and the waiting room.
//!
//! Requests wait in line for a free slot, and for a worker where that starts one. When otherwise no worker is left that could serve a line, everyone
//! in it seeks again and gets an answer. So a stream that seeks in vain, or learns that a worker is gone, wakes the whole
//! line. The first of a line also looks now and then by itself, because a wake-up depends on a message, which can be
//! lost.

use tokenbus_placement::Prompt;
use tokenbus_protocol::{Features, Name};
use tokio::time::Instant;

use super::state::StreamState;
use crate::call::CallError;
use crate::limits::NO_WORKER_RETRY;
use crate::placement::able::Able;
use crate::placement::{Ask, Choice, Prefixes, Target, Tried, View};
use crate::waiting_room::{LineKey, Ticket, WaitingRoom};

/// A request that seeks a worker.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seeker<'a> {
    /// The model.
    pub model: &'a str,
    /// What the engine must be able to do.
    pub needs: Features,
    /// Its prompt.
    pub prompt: &'a Prompt,
    /// A hash of the client's session, if it named one.
    pub session: Option<u64>,
    /// Its place in the order of arrival, if it has waited.
    pub ticket: Option<&'a Ticket>,
    /// It is in the waiting room.
    pub in_room: bool,
    /// It waits for one worker, or did until it was called to a slot there.
    pub hold: Option<&'a Hold>,
    /// It has waited for one worker as long as it should, and waits for none any more.
    pub held_out: bool,
    /// The connection to the bus came back a moment ago: workers may still be reconnecting.
    pub recovering: bool,
    /// The present time.
    pub now: Instant,
    /// NATS is a cluster: one server may have died and disconnected all workers at once.
    pub clustered: bool,
}

/// Where a seeking request goes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Destination {
    /// To this worker, or with `None` to the model's queue subject.
    To(Option<Target>),
    /// Into the line of the waiting room for any worker, or it stays there.
    InLine,
    /// Into the line for one worker, or it stays there.
    Hold(Hold),
    /// Where it is in the waiting room.
    Stay,
    /// No worker is there, and the request may wait for one.
    Pause {
        /// It has only now found out.
        first: bool,
    },
    /// The request fails.
    Fails(CallError),
}

/// One worker that a request waits for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Hold {
    /// The worker.
    pub worker: Name,
    /// Tokens of the prompt that it has to read.
    pub tokens: u32,
    /// Until when it waits for no other.
    pub until: Instant,
}

/// Decides where `seeker` goes now.
pub(crate) fn seek<T>(
    state: &mut StreamState,
    seeker: &Seeker<'_>,
    view: &View,
    room: &WaitingRoom<T>,
    prefixes: &mut Prefixes,
    random: &mut fastrand::Rng,
) -> Destination {
    let now = seeker.now;
    if !may_look(state, seeker, view, (room, now)) {
        return if seeker.in_room {
            Destination::Stay
        } else {
            Destination::InLine
        };
    }
    // Waiting is what starts a worker. Nobody needs to be asked whether there is one already: it would be in a snapshot.
    if view.starting(seeker.model, now).is_some() {
        state.found_worker();
        return Destination::InLine;
    }
    let line = view.distinguishing(seeker.model, seeker.needs);
    let others = room
        .waiting_in(seeker.model, line)
        .saturating_sub(usize::from(seeker.in_room));
    let tried = Tried {
        excluded: state.excluded(),
        untaken: state.untaken(),
        waiting: others + 1,
        overdue: seeker
            .ticket
            .is_some_and(|ticket| view.is_overdue(seeker.model, ticket.since, now)),
        may_hold: !seeker.held_out && !state.has_begun() && state.untaken() == 0,
        turn_at: seeker.hold.filter(|_| !seeker.in_room).map(|hold| &hold.worker),
    };
    let ask = Ask {
        model: seeker.model,
        needs: seeker.needs,
        prompt: seeker.prompt,
        session: seeker.session,
    };
    match view.choose(&ask, tried, prefixes, now, random) {
        Choice::Wait => {
            state.found_worker();
            // Its own worker's next slot is as good as any.
            if seeker.in_room && seeker.hold.is_some() && !seeker.held_out {
                Destination::Stay
            } else {
                Destination::InLine
            }
        }
        Choice::Hold(held) => {
            state.found_worker();
            // However often it looks, it waits no longer than was right at first.
            let until = now + held.bound;
            Destination::Hold(Hold {
                worker: held.worker,
                tokens: held.tokens,
                until: seeker.hold.map_or(until, |hold| hold.until.min(until)),
            })
        }
        Choice::Cannot(missing) => unsupported(seeker, missing),
        Choice::Gone => without_worker(state, seeker, view, now),
        Choice::Queue if state.queue_empty() => without_worker(state, seeker, view, now),
        Choice::Queue => Destination::To(None),
        Choice::Worker(target) => Destination::To(Some(target)),
    }
}

/// Whether it is the request's turn. Nobody waits behind others for a worker that is not there.
fn may_look<T>(state: &StreamState, seeker: &Seeker<'_>, view: &View, (room, now): (&WaitingRoom<T>, Instant)) -> bool {
    let waiting = seeker.ticket.filter(|_| seeker.in_room);
    let is_new = seeker.ticket.is_none() && state.untaken() == 0 && !state.has_begun();
    match waiting {
        // What it waits for may not be best any more; but it does not overtake those that wait for any worker.
        Some(ticket) if ticket.line.worker.is_some() && !seeker.held_out => {
            let line = view.distinguishing(seeker.model, seeker.needs);
            room.waiting_in(seeker.model, line) == 0 || !view.could(seeker.model, seeker.needs)
        }
        Some(ticket) if ticket.line.worker.is_some() => true,
        Some(ticket) => room.is_next(ticket, now) || !view.could(seeker.model, seeker.needs),
        None if is_new && !room.is_empty() => {
            let line = view.distinguishing(seeker.model, seeker.needs);
            room.waiting_in(seeker.model, line) == 0 || !view.could(seeker.model, seeker.needs)
        }
        // It was woken, is in the middle of its tries, or has begun and so goes before all that have not.
        None => true,
    }
}

fn without_worker(state: &mut StreamState, seeker: &Seeker<'_>, view: &View, now: Instant) -> Destination {
    let first = !state.is_without_worker();
    let returning = seeker.clustered && view.may_return(seeker.model, seeker.needs, now);
    let early = view.knows_nothing(now);
    if state.may_wait_for_worker(now, seeker.recovering || returning || early) {
        return Destination::Pause { first };
    }
    // Without snapshots, workers of the model may be known of which none serves this kind of request.
    if let (false, Able::None(missing)) = (view.is_fresh(now), view.able(seeker.model, seeker.needs))
        && !missing.unmarked().is_empty()
    {
        return unsupported(seeker, missing.unmarked());
    }
    let model = seeker.model.to_owned();
    // The queue subject of the model had no worker just now. So what the gateway has heard is enough, with a coordinator
    // or without. One that has heard of no model at all may be cut off from those who know.
    let heard = view.is_fresh(now) || !view.models().is_empty();
    Destination::Fails(if view.models().contains_key(seeker.model) || !heard {
        CallError::NoWorker {
            model,
            retry_after: NO_WORKER_RETRY,
        }
    } else {
        CallError::UnknownModel {
            model,
            known: view.models().keys().map(|name| name.to_string()).collect(),
        }
    })
}

fn unsupported(seeker: &Seeker<'_>, missing: Features) -> Destination {
    Destination::Fails(CallError::Unsupported {
        model: seeker.model.to_owned(),
        missing,
    })
}

/// Requests that were taken out of their lines, to wake them.
#[derive(Debug)]
pub(crate) struct Called<T> {
    /// There is a free slot of the worker that they waited for, for each of these.
    pub have_own: Vec<(Name, T)>,
    /// There is a free slot for each of these: it is their turn, and their tenants are charged for it.
    pub have_turn: Vec<T>,
    /// No worker could serve these. They look for themselves, and keep their turn.
    pub look: Vec<T>,
}

/// Takes requests out of the lines of `model`: as many as there are free slots, or all if no worker could serve them and
/// none is started. A worker's slots go first to those that wait for it alone, unless others go before these.
pub(crate) fn take_from_lines<T>(view: &mut View, room: &mut WaitingRoom<T>, model: &str, now: Instant) -> Called<T> {
    let mut called = Called {
        have_own: Vec::new(),
        have_turn: Vec::new(),
        look: Vec::new(),
    };
    if view.starting(model, now).is_some() {
        return called;
    }
    let mut lines: Vec<(LineKey, usize)> = room.lines(model).map(|(key, len)| (key.clone(), len)).collect();
    lines.sort_by_key(|(key, _)| key.worker.is_none());
    for (line, waiting) in lines {
        let LineKey { needs, worker } = &line;
        match worker {
            Some(worker) => match view.slots_at(worker, model, *needs, waiting) {
                Some(slots) => take_own(view, room, (model, worker, &line), slots, &mut called, now),
                None => called.look.extend(room.dissolve(model, &line)),
            },
            None if view.could(model, *needs) => {
                let count = view.slots_for(model, *needs, waiting);
                let next = (0..count).map_while(|_| room.next(model, &line, now));
                called.have_turn.extend(next);
            }
            None => called.look.extend(room.dissolve(model, &line)),
        }
    }
    called
}

/// Takes out those that wait for one worker, as many as it has slots for them.
fn take_own<T>(
    view: &mut View,
    room: &mut WaitingRoom<T>,
    (model, worker, line): (&str, &Name, &LineKey),
    slots: usize,
    called: &mut Called<T>,
    now: Instant,
) {
    for _ in 0..slots {
        let does = |needs| view.slots_at(worker, model, needs, 1).is_some();
        if !room.worker_goes_first(model, worker, does, now) {
            return;
        }
        let Some(next) = room.next(model, line, now) else {
            return;
        };
        view.call_to(worker);
        called.have_own.push((worker.clone(), next));
    }
}

/// Takes everyone out of the line of a request that found no worker.
pub(crate) fn take_line<T>(view: &View, room: &mut WaitingRoom<T>, model: &str, needs: Features) -> Called<T> {
    Called {
        have_own: Vec::new(),
        have_turn: Vec::new(),
        look: room.dissolve(model, view.distinguishing(model, needs)),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
#[path = "seek_model_tests.rs"]
mod model;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
#[path = "seek_hold_tests.rs"]
mod hold;
