//! What workers tell the gateways: their room with each answer, offers of slots, and news.

use super::{Event, Simulation};
use crate::offers::PATIENCE;
use crate::reporter::Room;
use crate::time::{MILLISECOND, Nanos, seconds};

/// How often a worker sends what its engine generates.
pub(super) const BATCH_EVERY: Nanos = 50 * MILLISECOND;

/// A worker whose engine has so many tokens more or less to read than gateways can know speaks before its next status …
const NEWS_TOKENS: f32 = 1024.0;

/// … but no sooner after the last one than this.
const NEWS_SOON: Nanos = 20 * MILLISECOND;

impl Simulation<'_> {
    pub(super) fn active(&self, worker: usize) -> u32 {
        u32::try_from(self.fleet.engine(worker).active()).unwrap_or(u32::MAX)
    }

    pub(super) fn free(&self, worker: usize) -> u32 {
        self.run.cluster.engines[worker]
            .slots
            .saturating_sub(self.active(worker))
    }

    pub(super) fn room(&self, worker: usize, gateway: usize, now: Nanos) -> Room {
        Room {
            active: self.active(worker),
            free: self.offers.free_for(worker, gateway, self.free(worker)),
            pending: self.fleet.pending(worker, now),
        }
    }

    /// What a worker generates comes to the gateways in batches, each with its room.
    pub(super) fn batch(&mut self, now: Nanos, worker: usize) {
        for gateway in 0..self.gateways.len() {
            if self.streams[worker][gateway] > 0 {
                let room = self.room(worker, gateway, now);
                self.gateways[gateway].policy.room(worker, room, now);
            }
        }
        if self.fleet.lives(worker) {
            self.queue.push(now + BATCH_EVERY, Event::Batch(worker));
        }
    }

    /// Offers the free slots of a worker to the gateways that wait, in turn.
    pub(super) fn offer(&mut self, now: Nanos, worker: usize) {
        let link = self.run.cluster.link;
        if !self.run.policy.workers_refuse() || !self.fleet.lives(worker) {
            return;
        }
        let free = self.free(worker);
        let offered = self.offers.offer(worker, free, now);
        if !offered.is_empty() {
            self.queue.push(now + PATIENCE, Event::Lapse(worker));
        }
        for (gateway, slots) in offered {
            let room = self.room(worker, gateway, now);
            self.queue.push(now + link, Event::Offer(gateway, worker, slots, room));
        }
    }

    /// A worker that has much more or less to read than it told says so.
    pub(super) fn speak_soon(&mut self, now: Nanos, worker: usize) {
        let (at, told) = self.spoke[worker];
        // What gateways believe by now.
        #[expect(clippy::cast_possible_truncation, reason = "an estimate needs no more digits")]
        let read = (seconds(now - at) * self.run.cluster.engines[worker].prefill_rate) as f32;
        if let Some(pending) = self.fleet.pending(worker, now)
            && (pending - (told - read).max(0.0)).abs() >= NEWS_TOKENS
            && now >= at + NEWS_SOON
        {
            self.say(now, worker, false);
        }
    }

    /// A worker's status: to all gateways, each of which may miss it.
    pub(super) fn speak(&mut self, now: Nanos, worker: usize) {
        if !self.fleet.lives(worker) {
            return;
        }
        self.wake(now, worker);
        self.say(now, worker, true);
        self.queue
            .push(now + self.run.cluster.status_every, Event::Status(worker));
    }

    pub(super) fn say(&mut self, now: Nanos, worker: usize, full: bool) {
        self.spoke[worker] = (now, self.fleet.pending(worker, now).unwrap_or(0.0));
        let mut report = self.fleet.report(worker, now, full);
        for gateway in 0..self.gateways.len() {
            if self.rng.f64() >= self.run.cluster.status_loss {
                let at = now + self.run.cluster.link;
                report.free = self.offers.free_for(worker, gateway, self.free(worker));
                self.queue
                    .push(at, Event::Heard(gateway, worker, Box::new(report.clone())));
            }
        }
    }
}
