//! What can be read off a stream's state.

use tokenbus_protocol::Name;

use super::super::phase::Phase;
use super::StreamState;

impl StreamState {
    /// Whether a worker is to be chosen. An `Action::Place` is void when it is not any more.
    pub fn is_choosing(&self) -> bool {
        matches!(self.phase, Phase::Choosing)
    }

    /// Whether nobody was subscribed to the queue subject when it was last tried.
    pub fn queue_empty(&self) -> bool {
        self.queue_empty
    }

    /// Workers that should not be tried again now.
    pub fn excluded(&self) -> &[Name] {
        &self.excluded
    }

    /// Publishes since the stream last waited or ran; nobody has taken any of them.
    pub fn untaken(&self) -> usize {
        self.tries
    }

    /// Whether some worker has had it.
    pub fn has_begun(&self) -> bool {
        self.begun
    }

    /// Whether it has found no worker since it last had one or waited for room.
    pub fn is_without_worker(&self) -> bool {
        self.without_worker.is_some()
    }

    /// Whether it is given to a worker, which may not have answered yet.
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
