//! What workers tell of the prefixes that they hold and of their pace, and what becomes of the prompts sent to them.

use tokenbus_placement::{News, Prompt};
use tokenbus_protocol::{MAX_MODEL_NAME, Name, WorkerNews};
use tokio::time::Instant;

use super::super::prefixes::Prefixes;
use super::View;
use crate::limits::{ASK_PREFIXES_EVERY, PACES};

/// Weight of one worker's news in the prefill rate of its model.
const NEWS_WEIGHT: f32 = 0.1;

impl View {
    /// A worker tells what is new. True if something was missed and it is to be asked for everything; not more often than
    /// every [`ASK_PREFIXES_EVERY`].
    pub(crate) fn told_news(&mut self, name: &Name, news: WorkerNews, prefixes: &mut Prefixes, now: Instant) -> bool {
        self.left.drain(..).for_each(|number| prefixes.left(number));
        let now_ms = self.begin_ms(now);
        let Some(worker) = self.workers.get_mut(name) else {
            return false;
        };
        #[allow(clippy::cast_precision_loss, reason = "an estimate needs no more digits")]
        worker.reading.reported(news.pending as f32, false, now_ms);
        worker.paces = news.paces;
        worker.paces.retain(|pace| pace.model.len() <= MAX_MODEL_NAME);
        worker.paces.truncate(PACES);
        for pace in &worker.paces {
            let rate = pace.prefill.filter(|rate| rate.is_finite() && *rate > 0.0);
            if let (Some(rate), Some(model)) = (rate, self.models.get_mut(pace.model.as_str())) {
                let mean = model.prefill.get_or_insert(rate);
                *mean += (rate - *mean) * NEWS_WEIGHT;
            }
            if let Some(model) = self.models.get_mut(pace.model.as_str()) {
                model.busy += (f32::from(pace.busy.min(100)) / 100.0 - model.busy) * NEWS_WEIGHT;
            }
        }
        let cuts = News {
            epoch: news.epoch,
            from: news.from,
            full: news.full,
            changes: news.changes.into_vec(),
        };
        let missed = !prefixes.heard(&mut worker.number, &cuts);
        let due = worker.asked_at.is_none_or(|asked| now >= asked + ASK_PREFIXES_EVERY);
        if missed && due {
            worker.asked_at = Some(now);
        }
        missed && due
    }

    /// A prompt was sent to this worker, which has `uncached` tokens of it to read.
    pub(crate) fn reads(&mut self, name: &Name, prompt: &Prompt, uncached: u32, prefixes: &mut Prefixes, now: Instant) {
        if let Some(worker) = self.workers.get_mut(name) {
            worker.reading.sent(uncached);
            prefixes.placed(prompt, &mut worker.number, now);
        }
    }

    /// The worker took that prompt (`taken`), or will not.
    pub(crate) fn takes(&mut self, name: &Name, uncached: u32, taken: bool) {
        if let Some(worker) = self.workers.get_mut(name) {
            if taken {
                worker.reading.taken(uncached);
            } else {
                worker.reading.unsent(uncached);
            }
        }
    }

    /// The worker has read a prompt that it took.
    pub(crate) fn has_read(&mut self, name: &Name, uncached: u32) {
        if let Some(worker) = self.workers.get_mut(name) {
            worker.reading.read(uncached);
        }
    }

    /// Of `claimed` tokens of a prompt, the worker had `found` in its cache.
    pub(crate) fn found(&mut self, name: &Name, claimed: u32, found: u32) {
        if let Some(worker) = self.workers.get_mut(name) {
            worker.trust.observe(claimed, found);
        }
    }
}
