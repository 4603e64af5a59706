//! What follows when a run ends before its answer: another attempt, or an error.

use tokenbus_protocol::{EngineError, ErrorCode, LeftCause};
use tokio::time::Instant;

use super::super::delivered::Delivered;
use super::super::event::Action;
use super::super::losses::Blame;
use super::super::phase::{Phase, Run};
use super::{LeftRun, StreamState};
use crate::call::{CallError, Output};

/// The code of a worker's error when the engine closed the connection of a request that it had taken.
const DIED: &str = "engine_died";

impl StreamState {
    /// The run's engine failed, or its worker hands the stream over.
    pub(super) fn on_error(&mut self, error: EngineError, now: Instant, actions: &mut Vec<Action>) {
        let handed_over = error.code == ErrorCode::Draining;
        let died = error.engine_code.as_deref() == Some(DIED);
        let blame = match &self.phase {
            _ if handed_over => Blame::Nobody,
            Phase::Running(run) if died && run.is_death(now) => Blame::Death,
            _ if error.code == ErrorCode::Internal => Blame::OwnError,
            _ => Blame::Engine,
        };
        let cause = if handed_over {
            LeftCause::HandedOver
        } else {
            LeftCause::Engine
        };
        let Some(run) = self.end_run(blame, cause, &error.message) else {
            return;
        };
        if self.losses.is_deadly() {
            return self.fail(CallError::Deadly, actions);
        }
        // A run that failed to resume may still succeed from the start.
        let resumed = self.in_one_piece && self.delivered.is_resumed();
        if !(error.retryable || resumed) || (!handed_over && self.losses.too_many()) {
            return self.fail(CallError::Engine(error), actions);
        }
        let goes_on = self.can_resume(&run) && (handed_over || !resumed);
        if self.delivered.any() && !goes_on && !self.begin_anew(actions) {
            return self.fail(CallError::Engine(error), actions);
        }
        self.excluded.push(run.worker);
        self.place(actions);
    }

    /// The run is lost: continues elsewhere if possible.
    pub(super) fn lost(&mut self, reason: &str, cause: LeftCause, actions: &mut Vec<Action>) {
        let Some(run) = self.end_run(Blame::Worker, cause, reason) else {
            return;
        };
        actions.push(Action::Cancel {
            worker: run.worker.clone(),
            attempt: run.attempt,
        });
        let why_not = if self.losses.too_many() {
            Some("it was lost too often")
        } else if self.delivered.any() && !self.can_resume(&run) && !self.begin_anew(actions) {
            Some(self.not_resumable.unwrap_or("its engine cannot continue an answer"))
        } else {
            None
        };
        if let Some(why_not) = why_not {
            return self.fail(
                CallError::WorkerLost {
                    reason: format!("{reason}, and {why_not}"),
                },
                actions,
            );
        }
        self.excluded.push(run.worker);
        self.place(actions);
    }

    fn end_run(&mut self, blame: Blame, cause: LeftCause, why: &str) -> Option<Run> {
        match std::mem::replace(&mut self.phase, Phase::Choosing) {
            Phase::Running(run) => {
                self.floor = self.floor.max(run.attempt + 1);
                self.losses.lost(run.blamed(blame));
                self.moving = true;
                self.left = Some(LeftRun {
                    worker: run.worker.clone(),
                    attempt: run.attempt,
                    cause,
                    why: why.to_owned(),
                });
                self.delivered.seam();
                Some(run)
            }
            other => {
                self.phase = other;
                None
            }
        }
    }

    /// The bus is or was away: a loss of this run is not its worker's fault from now on.
    pub(super) fn note_bus_away(&mut self) {
        if let Phase::Running(run) = &mut self.phase {
            run.bus_was_away = true;
        }
    }

    /// Begins the answer anew, if it is in one piece: the client has seen nothing of it. True if so.
    pub(super) fn begin_anew(&mut self, actions: &mut Vec<Action>) -> bool {
        if self.in_one_piece {
            self.losses.begun_anew();
            self.delivered = Delivered::new(self.not_resumable.is_none());
            // No attempt may resume what is void now.
            self.open.clear();
            self.floor = self.next_attempt;
            actions.push(Action::Output(Output::Anew));
        }
        self.in_one_piece
    }

    fn can_resume(&self, run: &Run) -> bool {
        run.resumable && self.not_resumable.is_none() && self.delivered.resume().is_ok()
    }
}
