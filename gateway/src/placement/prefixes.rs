//! What the gateway knows of prompts: who holds which prefix, and its own decisions of the last seconds.

use tokenbus_placement::{Applied, DIRECTORY_BYTES, Directory, Holdings, News, Pick, Prompt, Recent, WorkerNumber};
use tokio::time::Instant;

/// Who holds which prefix, and what a decision needs to be made without new memory.
#[derive(Debug)]
pub struct Prefixes {
    directory: Directory,
    recent: Recent,
    /// Of the present request.
    pub(super) holdings: Holdings,
    /// The candidates of the present request.
    pub(super) pick: Pick,
    /// When times began to count.
    origin: Option<Instant>,
}

impl Default for Prefixes {
    fn default() -> Self {
        Self {
            directory: Directory::new(DIRECTORY_BYTES),
            recent: Recent::default(),
            holdings: Holdings::default(),
            pick: Pick::default(),
            origin: None,
        }
    }
}

impl Prefixes {
    /// A worker tells its cuts; `number` is set at its first news. False if something was missed, and the worker is to
    /// tell everything.
    pub(crate) fn heard(&mut self, number: &mut Option<WorkerNumber>, news: &News) -> bool {
        self.directory.sweep();
        if number.is_none() {
            *number = self.directory.join();
        }
        let Some(number) = number else { return true };
        self.directory.apply(number, news) == Applied::Known
    }

    /// A worker that is not known any more.
    pub(crate) fn left(&mut self, number: WorkerNumber) {
        self.directory.leave(number);
    }

    /// A prompt was placed.
    pub(crate) fn placed(&mut self, prompt: &Prompt, number: &mut Option<WorkerNumber>, now: Instant) {
        let now = self.ms(now);
        if number.is_none() {
            *number = self.directory.join();
        }
        if let Some(number) = number {
            self.recent.placed(prompt, *number, now);
        }
    }

    /// Looks who holds what of `prompt`.
    pub(super) fn look(&mut self, prompt: &Prompt, now: Instant) {
        let now = self.ms(now);
        self.pick.clear();
        self.holdings.clear();
        if !prompt.cuts().is_empty() {
            self.directory.look(prompt, &mut self.holdings);
            self.recent.add_to(prompt, now, &mut self.holdings);
        }
    }

    /// Milliseconds since the first time that was asked for.
    pub(super) fn ms(&mut self, now: Instant) -> u64 {
        let origin = *self.origin.get_or_insert(now);
        u64::try_from(now.saturating_duration_since(origin).as_millis()).unwrap_or(u64::MAX)
    }

    /// Cuts that are known, and the bytes of their tables.
    pub(crate) fn size(&self) -> (usize, usize) {
        (self.directory.cuts(), self.directory.bytes() + self.recent.bytes())
    }
}
