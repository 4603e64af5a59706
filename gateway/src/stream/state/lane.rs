//! The state machine's side of the fast path: opens the lane, and books what has passed it.

use super::super::phase::Phase;
use super::StreamState;
use crate::fast_path::lane::{Lane, Passed};
use crate::fast_path::splice::Splice;

impl StreamState {
    /// A lane for the current run, from its next frame on.
    pub(crate) fn lane(&self, splice: &Splice) -> Option<Lane> {
        match &self.phase {
            Phase::Running(run) => Some(Lane {
                attempt: run.attempt,
                worker: run.worker.clone(),
                next_seq: run.next_seq,
                keep_text: self.not_resumable.is_none(),
                splice: splice.clone(),
                last: run.heard,
            }),
            _ => None,
        }
    }

    /// Text of the current run has passed the lane and will be delivered.
    pub(crate) fn on_passed(&mut self, passed: &Passed) {
        if let Phase::Running(run) = &mut self.phase {
            run.next_seq = run.next_seq.wrapping_add(passed.frames);
            run.heard = passed.heard.unwrap_or(run.heard);
            run.silent_since = run.silent_since.filter(|_| passed.frames == 0);
            let flowed = run.heard;
            self.flowed(flowed);
            self.losses.progress();
            self.delivered.add_text(&passed.text, passed.sent + passed.tokens);
        }
    }
}
