//! Questions about a stream's state.

use tokenbus_protocol::Name;

use super::super::phase::Phase;
use super::StreamState;

impl StreamState {
    /// Whether a worker is to be chosen. If not, a pending `Action::Place` is void.
    pub fn is_choosing(&self) -> bool {
        matches!(self.phase, Phase::Choosing)
    }

    /// Whether the queue subject had no subscriber at the last try.
    pub fn queue_empty(&self) -> bool {
        self.queue_empty
    }

    /// Workers that should not be tried again now.
    pub fn excluded(&self) -> &[Name] {
        &self.excluded
    }

    /// Publishes since the stream last waited or ran; no worker took any of them.
    pub fn untaken(&self) -> usize {
        self.tries
    }

    /// Whether any worker ever took it.
    pub fn has_begun(&self) -> bool {
        self.begun
    }

    /// Whether it has found no worker since it last had one or waited for a slot.
    pub fn is_without_worker(&self) -> bool {
        self.without_worker.is_some()
    }

    /// Whether it was given to a worker, which may not have answered yet.
    pub fn is_under_way(&self) -> bool {
        matches!(self.phase, Phase::Placing { .. } | Phase::Running(_))
    }

    /// Whether it has ended.
    pub fn is_done(&self) -> bool {
        matches!(self.phase, Phase::Done)
    }

    /// The worker that runs it.
    pub fn worker(&self) -> Option<&Name> {
        match &self.phase {
            Phase::Running(run) => Some(&run.worker),
            _ => None,
        }
    }
}
