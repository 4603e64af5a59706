//! Questions about a stream's state.

use tokenbus_protocol::Name;

use super::super::phase::Phase;
use super::StreamState;

impl StreamState {
    /// Whether a worker is to be chosen. If not, a pending `Action::Place` is void.
    pub(crate) fn is_choosing(&self) -> bool {
        matches!(self.phase, Phase::Choosing)
    }

    /// Whether the queue subject had no subscriber at the last try.
    pub(crate) fn queue_empty(&self) -> bool {
        self.queue_empty
    }

    /// Workers that should not be tried again now.
    pub(crate) fn excluded(&self) -> &[Name] {
        &self.excluded
    }

    /// Publishes since the stream last waited or ran; no worker took any of them.
    pub(crate) fn untaken(&self) -> usize {
        self.tries
    }

    /// Whether any worker ever took it.
    pub(crate) fn has_begun(&self) -> bool {
        self.begun
    }

    /// Whether it has found no worker since it last had one or waited for a slot.
    pub(crate) fn is_without_worker(&self) -> bool {
        self.without_worker.is_some()
    }

    /// Whether it was given to a worker, which may not have answered yet.
    pub(crate) fn is_under_way(&self) -> bool {
        matches!(self.phase, Phase::Placing { .. } | Phase::Running(_))
    }

    /// Whether it has ended.
    pub(crate) fn is_done(&self) -> bool {
        matches!(self.phase, Phase::Done)
    }

    /// The worker that runs it.
    pub(crate) fn worker(&self) -> Option<&Name> {
        match &self.phase {
            Phase::Running(run) => Some(&run.worker),
            _ => None,
        }
    }
}
