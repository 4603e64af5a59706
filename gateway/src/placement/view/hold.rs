//! Requests that wait for one worker, because it is full and sooner all the same.

use tokenbus_protocol::{Features, Name};
use tokio::time::Instant;

use super::View;
use crate::limits::SAY_WAITING_EVERY;

impl View {
    /// A request waits for this worker, which has `tokens` of its prompt to read.
    pub fn hold(&mut self, name: &Name, tokens: u32) {
        if let Some(worker) = self.workers.get_mut(name) {
            worker.line = worker.line.saturating_add(1);
            worker.line_tokens = worker.line_tokens.saturating_add(tokens);
        }
    }

    /// That request waits for it no longer.
    pub fn release(&mut self, name: &Name, tokens: u32) {
        if let Some(worker) = self.workers.get_mut(name) {
            worker.line = worker.line.saturating_sub(1);
            worker.line_tokens = worker.line_tokens.saturating_sub(tokens);
        }
    }

    /// Of `waiting` requests that wait for this worker, how many have a free slot; `None` if it cannot serve them now.
    pub fn slots_at(&self, name: &Name, model: &str, needs: Features, waiting: usize) -> Option<usize> {
        let worker = self.workers.get(name).filter(|worker| worker.does(model, needs))?;
        Some(waiting.min(worker.free() as usize))
    }

    /// A request that waited for this worker was called to its free slot.
    pub fn call_to(&mut self, name: &Name) {
        if let Some(worker) = self.workers.get_mut(name) {
            worker.called = worker.called.saturating_add(1);
        }
    }

    /// It was sent there, or takes no slot.
    pub fn came_to(&mut self, name: &Name) {
        if let Some(worker) = self.workers.get_mut(name) {
            worker.called = worker.called.saturating_sub(1);
        }
    }

    /// Whether a worker may not know that a request waits for it here. It counts as told now.
    pub fn is_uninformed(&mut self, name: &Name, now: Instant) -> bool {
        let worker = self.workers.get_mut(name);
        worker.is_some_and(|worker| {
            let due = worker.knows_waiting.is_none_or(|at| now >= at + SAY_WAITING_EVERY);
            if due {
                worker.knows_waiting = Some(now);
            }
            due
        })
    }
}

#[cfg(test)]
impl View {
    /// Requests that wait for this worker alone, and those that were called to it.
    pub(crate) fn held_at(&self, name: &Name) -> (u32, u32) {
        self.workers
            .get(name)
            .map_or((0, 0), |worker| (worker.line, worker.called))
    }
}
