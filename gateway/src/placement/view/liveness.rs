//! Which workers are alive: their silence, the pings, and their answer times.

use tokenbus_protocol::{Features, Name};
use tokio::time::{Duration, Instant};

use super::super::able;
use super::View;
use super::worker::Worker;
use crate::limits::WORKER_RETURN;

impl View {
    /// Whether a worker with these features left so recently that it may only have lost its connection. In a cluster of
    /// NATS servers, one server may have died under all workers.
    pub fn may_return(&self, model: &str, needs: Features, now: Instant) -> bool {
        let away = |worker: &&Worker| worker.gone.is_some_and(|gone| now < gone + WORKER_RETURN);
        self.workers.values().filter(away).any(|worker| {
            let mut models = worker.models.iter();
            models.any(|(name, features)| **name == *model && able::does(*features, needs))
        })
    }

    /// Workers that run our streams and were silent, and not pinged, for `silence`. They count as pinged now.
    pub fn silent(&mut self, silence: Duration, now: Instant) -> Vec<Name> {
        let quiet = |worker: &Worker| {
            worker.in_flight > 0
                && now >= worker.heard + silence
                && worker.pinged.is_none_or(|pinged| now >= pinged + silence)
        };
        let mut silent = Vec::new();
        for (name, worker) in self.workers.iter_mut().filter(|(_, worker)| quiet(worker)) {
            worker.pinged = Some(now);
            silent.push(name.clone());
        }
        silent
    }

    /// At most `at_most` ready workers whose answer time is not measured well. They count as asked now, and are not
    /// returned again before `every` has passed.
    pub fn unmeasured(&mut self, at_most: usize, every: Duration, now: Instant) -> Vec<Name> {
        let due = |worker: &Worker| {
            worker.ready && !worker.clock.is_set() && worker.measured_at.is_none_or(|asked| now >= asked + every)
        };
        let mut unmeasured = Vec::new();
        for (name, worker) in self.workers.iter_mut().filter(|(_, worker)| due(worker)).take(at_most) {
            worker.measured_at = Some(now);
            unmeasured.push(name.clone());
        }
        unmeasured
    }

    /// Whether any worker runs our streams or is not measured well: whether time alone can make [`Self::silent`] or
    /// [`Self::unmeasured`] name one.
    pub fn needs_watching(&self) -> bool {
        let watched = |worker: &Worker| worker.in_flight > 0 || (worker.ready && !worker.clock.is_set());
        self.workers.values().any(watched)
    }

    /// A worker answers a message of the time `asked`.
    pub fn answered(&mut self, name: &Name, asked: Instant, now: Instant) {
        if let Some(worker) = self.workers.get_mut(name) {
            worker.clock.observe(asked, now);
        }
    }

    /// How long to wait for an answer of `target`; `None` means whichever worker of `model` takes the request, so the
    /// slowest counts. `first` applies where nothing was measured.
    pub fn patience(&self, target: Option<&Name>, model: &str, first: Duration) -> Duration {
        let patience = |worker: &Worker| worker.clock.patience(first);
        let all = || self.workers.values().filter(|worker| worker.serves(model).is_some());
        let longest = match target {
            Some(name) => self.workers.get(name).map(patience),
            None => all().map(patience).max(),
        };
        longest.unwrap_or(first)
    }

    /// How late messages of this worker may be, from its measurements.
    pub fn lateness(&self, name: &Name) -> Duration {
        let worker = self.workers.get(name);
        worker.map_or(Duration::ZERO, |worker| worker.clock.patience(Duration::ZERO))
    }

    /// Workers that run our streams, or may have taken one.
    pub fn busy_with_ours(&self) -> Vec<Name> {
        let busy = self
            .workers
            .iter()
            .filter(|(_, worker)| worker.in_flight + worker.pending > 0);
        busy.map(|(name, _)| name.clone()).collect()
    }

    /// When this worker was last heard.
    pub fn heard(&self, name: &Name) -> Option<Instant> {
        self.workers.get(name).map(|worker| worker.heard)
    }
}
