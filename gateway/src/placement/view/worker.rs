//! What is known of one worker.

use tokenbus_protocol::{Features, Room};
use tokio::time::Instant;

use super::super::able;
use super::super::accept_clock::AcceptClock;
use super::super::refusals::Refusals;
use super::super::score::WorkerLoad;

#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct Worker {
    /// Each model with its features; no features if the worker did not announce them.
    pub(super) models: Vec<(String, Features)>,
    pub(super) ready: bool,
    pub(super) slots: u32,
    pub(super) room: Room,
    pub(super) room_at: Instant,
    pub(super) ttft_ms: f64,
    /// Our requests that were published to it and not answered yet.
    pub(super) pending: u32,
    /// Our streams that run there.
    pub(super) in_flight: u32,
    /// Requests that it refused.
    pub(super) refusals: Refusals,
    pub(super) heard: Instant,
    pub(super) pinged: Option<Instant>,
    /// Its answer times.
    pub(super) clock: AcceptClock,
    /// When it was last pinged only for a measurement.
    pub(super) measured_at: Option<Instant>,
    pub(super) in_snapshot: bool,
    /// When NATS began to know nobody under its name; `None` once it is heard again.
    pub(super) gone: Option<Instant>,
    /// The instance that was seen last.
    pub(super) instance: Option<u64>,
}

impl Worker {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            models: Vec::new(),
            ready: true,
            slots: 0,
            room: Room::default(),
            room_at: now,
            ttft_ms: 0.0,
            pending: 0,
            in_flight: 0,
            refusals: Refusals::default(),
            heard: now,
            pinged: None,
            clock: AcceptClock::default(),
            measured_at: None,
            in_snapshot: false,
            gone: None,
            instance: None,
        }
    }

    /// It tells of its room. What is believed of it holds until it tells again.
    pub(super) fn tells(&mut self, room: Room, now: Instant) {
        self.room = Room {
            free: self.refusals.believed(room.free, now),
            ..room
        };
    }

    pub(super) fn free(&self) -> u32 {
        self.room.free.saturating_sub(self.pending)
    }

    /// Its features for `model`; `None` if it does not serve the model.
    pub(super) fn serves(&self, model: &str) -> Option<Features> {
        let model = self.models.iter().find(|(name, _)| self.ready && name == model);
        model.map(|(_, features)| *features)
    }

    pub(super) fn does(&self, model: &str, needs: Features) -> bool {
        self.serves(model).is_some_and(|features| able::does(features, needs))
    }

    pub(super) fn load(&self) -> WorkerLoad {
        WorkerLoad {
            slots: self.slots,
            free: self.free(),
            queued: self.room.queued,
            ttft_ms: self.ttft_ms,
            prefix: 0.0,
        }
    }
}
