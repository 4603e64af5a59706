//! What a worker's list of the streams that it has means for one of them.
//!
//! The list is a frame among the others: what was sent before it has arrived before it, or is lost. So
//! it tells at once what would otherwise only be noticed by a silence: that last frames are missing.

use tokenbus_protocol::Name;
use tokio::time::Instant;

use super::super::event::Action;
use super::super::losses::Blame;
use super::super::phase::Phase;
use super::StreamState;

impl StreamState {
    /// `worker` has attempt and next frame `place` of this stream, or nothing of it.
    pub(super) fn on_held(
        &mut self,
        worker: &Name,
        instance: u64,
        place: Option<(u32, u32)>,
        now: Instant,
        actions: &mut Vec<Action>,
    ) {
        match &mut self.phase {
            Phase::Running(run) if run.worker == *worker && run.instance == instance => match place {
                Some((attempt, next)) if attempt == run.attempt && next <= run.next_seq => run.heard = now,
                Some((attempt, next)) if attempt == run.attempt => {
                    let reason = format!("{} frames from it were lost", next - run.next_seq);
                    self.lost(&reason, Blame::Worker, actions);
                }
                _ => self.lost("its last frames were lost", Blame::Worker, actions),
            },
            Phase::Placing { .. } => {
                // It took an attempt that nobody knows to be taken: `Accepted` is lost.
                let lost = place.filter(|(attempt, _)| self.open.iter().any(|open| open.attempt == *attempt));
                if let Some((attempt, _)) = lost {
                    actions.push(Action::Cancel {
                        worker: worker.clone(),
                        attempt,
                    });
                    self.retire(attempt, Some(worker), actions);
                }
            }
            _ => {}
        }
    }
}
