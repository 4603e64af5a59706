//! What a worker's answer to a roll call means for one stream.
//!
//! The answer is a frame among the others: what was sent before it has arrived before it, or is lost. So it shows at
//! once that the last frames are missing; otherwise only a silence would.

use tokenbus_protocol::{LeftCause, Name};
use tokio::time::Instant;

use super::super::event::Action;
use super::super::phase::Phase;
use super::StreamState;

impl StreamState {
    /// `worker` holds this stream at `place` (attempt and next frame), or does not hold it.
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
                    self.lost(&reason, LeftCause::FramesLost, actions);
                }
                _ => self.lost("its last frames were lost", LeftCause::FramesLost, actions),
            },
            Phase::Placing { .. } => {
                // The worker took an attempt, and its `Accepted` is lost.
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
