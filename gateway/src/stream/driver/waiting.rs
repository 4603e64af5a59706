//! The stream's reports to the waiting room, and of the workers that it left.

use std::time::Duration;

use tokenbus_protocol::Name;
use tokio::time::Instant;

use super::Driver;
use crate::call::{CallError, Stage};
use crate::waiting_room::NotAdmitted;

impl Driver {
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
    pub(super) fn not_admitted(&mut self, refused: NotAdmitted) {
        self.leave_line();
        let model = self.call.model.clone();
        let starting = self.shared.view().starting(&model, Instant::now());
        let later = |retry_after: Duration| starting.map_or(retry_after, |start| retry_after.max(start));
        let error = match refused {
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
