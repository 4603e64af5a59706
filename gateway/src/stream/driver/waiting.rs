//! The stream in the waiting room, what it reports there, and of the workers that it left.

use std::time::Duration;

use tokenbus_protocol::Name;
use tokio::time::Instant;

use super::Driver;
use crate::call::{CallError, Stage};
use crate::limits;
use crate::stream::seek::Hold;
use crate::waiting_room::NotAdmitted;

impl Driver {
    /// Enters the waiting room, or stays in it: in the line for any worker, or in that for one.
    pub(super) fn stand_in_line(&mut self, hold: Option<Hold>, now: Instant) {
        self.come();
        let worker = hold.as_ref().map(|hold| &hold.worker);
        if !self.in_room || worker != self.hold.as_ref().map(|hold| &hold.worker) {
            self.release();
            let ticket = self.ticket.get_or_insert_with(|| self.shared.ticket(&self.call, now));
            ticket.paused = self.paused;
            let (needs, begun) = (self.call.all_needs(), self.state.has_begun());
            if let Err(refused) = self.shared.enter(ticket, (needs, worker), begun, &self.inbox, now) {
                self.in_room = false;
                return self.not_admitted(refused, now);
            }
            if let Some(Hold { worker, tokens, .. }) = &hold {
                self.shared.view().hold(worker, *tokens);
            }
            if !self.in_room {
                self.call.way.waits(now);
            }
            self.in_room = true;
        }
        self.hold = hold;
        if let Some(Hold { worker, until, .. }) = &self.hold {
            let left = until.saturating_duration_since(now);
            self.state.wait(now, left.min(limits::HOLD_LOOK));
            self.shared.say_that_it_waits_for(worker, now);
        } else {
            self.state.wait(now, limits::WAIT_RETRY);
            self.shared
                .say_that_it_waits(&self.call.model, self.call.all_needs(), now);
        }
        // A slot that became free between the look and the entry woke nobody.
        self.shared.wake(&self.call.model);
    }

    /// It waits for one worker no longer.
    pub(super) fn release(&mut self) {
        if let Some(Hold { worker, tokens, .. }) = self.hold.as_ref().filter(|_| self.in_room) {
            self.shared.view().release(worker, *tokens);
        }
    }

    /// Leaves the line for a worker.
    pub(super) fn take_turn(&mut self) {
        self.release();
        self.hold = None;
        if let Some(ticket) = self.ticket.as_mut().filter(|_| self.in_room) {
            self.shared.take_turn(ticket);
            ticket.had_turn = true;
            self.in_room = false;
        }
    }

    pub(super) fn leave_line(&mut self) {
        self.release();
        self.hold = None;
        if let Some(ticket) = self.ticket.as_ref().filter(|_| self.in_room) {
            self.shared.leave(ticket);
            self.in_room = false;
            self.call.way.waits_no_longer(Instant::now());
        }
    }

    /// Reports when workers begin and end the request, for the drain rate.
    pub(super) fn follow_run(&mut self, now: Instant) {
        let model = &self.call.model;
        match self.under_way {
            None if self.state.is_under_way() => {
                self.under_way = Some(now);
                self.shared.run_began(model, now);
            }
            Some(since) if !self.state.is_under_way() && !self.state.is_choosing() => {
                self.under_way = None;
                let ended = self.state.is_done() && self.running.is_some();
                self.shared.run_over(model, since, ended, now);
            }
            _ => {}
        }
    }

    /// The waiting room does not take it, or took its place away.
    pub(super) fn not_admitted(&mut self, refused: NotAdmitted, now: Instant) {
        self.leave_line();
        let model = self.call.model.clone();
        let starting = || self.shared.view().starting(&self.call.model, Instant::now());
        let later = |retry_after: Duration| starting().map_or(retry_after, |start| retry_after.max(start));
        let error = match refused {
            NotAdmitted::Later => {
                // It comes anew.
                self.ticket = None;
                self.paused = true;
                return self.state.wait(now, limits::REFUSAL_PAUSE);
            }
            NotAdmitted::Full { retry_after } => CallError::Full {
                model,
                retry_after: later(retry_after),
            },
            NotAdmitted::TooLate { wait, retry_after } => CallError::WaitTooLong {
                model,
                wait,
                retry_after: later(retry_after),
            },
        };
        self.state.fail(error, &mut self.actions);
    }

    /// What the client is told of `error`. Who has waited in vain for a worker to start learns when it is expected.
    pub(super) fn told(&self, error: CallError, now: Instant) -> CallError {
        if !matches!(error, CallError::Deadline { stage: Stage::Queue }) {
            return error;
        }
        let model = self.call.model.clone();
        match self.shared.view().starting(&model, now) {
            Some(retry_after) => CallError::NoWorker { model, retry_after },
            None => error,
        }
    }

    /// Records that the stream left a worker, and that another one took it. `old` is where it was.
    pub(super) fn follow_moves(&mut self, old: Option<Name>, now: Instant) {
        if let Some(old) = old.filter(|_| !self.state.is_done()) {
            self.left = Some(old);
        }
        if let Some(new) = &self.running {
            let mut left = self.shared.left();
            left.back(new);
            if let Some(old) = self.left.take().filter(|old| old != new) {
                left.note(&old, true, now);
                self.shared.tell_waiting.ring();
            }
        }
    }

    /// Records that the stream ends with `error` because no other worker took it.
    pub(super) fn failed(&mut self, error: &CallError, now: Instant) {
        let lost = self
            .running
            .clone()
            .filter(|_| matches!(error, CallError::WorkerLost { .. }));
        if let Some(worker) = self.left.take().or(lost) {
            self.shared.left().note(&worker, false, now);
            self.shared.tell_waiting.ring();
        }
    }
}
