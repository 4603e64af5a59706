//! What the driver tells of its prompt: that a worker reads it, has read it, and had a part of it in its cache.

use tokenbus_api::cached_tokens;
use tokenbus_protocol::{Finish, Name};
use tokio::time::Instant;

use super::{Driver, Reading};
use crate::placement::Target;

impl Driver {
    /// The request goes to `target`, which has the part of the prompt to read that it does not hold.
    pub(super) fn begin_reading(&mut self, target: Option<Target>, now: Instant) {
        self.read();
        self.chosen = target;
        let Some(Target { worker, why }) = &self.chosen else {
            return;
        };
        self.shared.metrics.placed(why.reason.name());
        let uncached = why.tokens.saturating_sub(why.cached);
        if !self.call.prompt.cuts().is_empty() {
            self.shared.reads(worker, &self.call.prompt, uncached, now);
            self.reading = Some(Reading {
                tokens: uncached,
                taken: false,
            });
        }
    }

    /// `worker` took the request.
    pub(super) fn reading_begins(&mut self, worker: &Name) {
        let chosen = self.chosen.as_ref().filter(|chosen| chosen.worker == *worker);
        if let (Some(reading), Some(_)) = (&mut self.reading, chosen)
            && !reading.taken
        {
            reading.taken = true;
            self.shared.view().takes(worker, reading.tokens, true);
        }
    }

    /// The prompt was read, or will not be.
    pub(super) fn read(&mut self) {
        if let (Some(Reading { tokens, taken }), Some(chosen)) = (self.reading.take(), &self.chosen) {
            let mut view = self.shared.view();
            if taken {
                view.has_read(&chosen.worker, tokens);
            } else {
                view.takes(&chosen.worker, tokens, false);
            }
        }
    }

    /// Compares what the worker was expected to hold with what its engine found.
    pub(super) fn compare(&self, finish: &Finish) {
        let Some(Target { worker, why }) = &self.chosen else {
            return;
        };
        let told = finish.usage.as_ref().is_some_and(|usage| usage.get().contains("cache"));
        let Some(all) = finish.prompt_tokens.filter(|all| *all > 0 && told && why.claimed > 0) else {
            return;
        };
        // The engine's count, in the measure of the estimate.
        let found = cached_tokens(finish).min(all).saturating_mul(why.tokens.into()) / all;
        let found = u32::try_from(found).unwrap_or(u32::MAX);
        self.shared.view().found(worker, why.claimed, found);
    }
}
