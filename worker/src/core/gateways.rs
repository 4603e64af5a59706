//! The worker and its gateways: streams of one that is gone are stopped, and one that may have lost
//! frames is told what is here.

use std::collections::BTreeMap;
use std::time::Instant;

use tokenbus_protocol::{Body, ErrorCode, Frame, Held, HeldStream, Name, Offer, WorkerState};
use uuid::Uuid;

use crate::core::timers::Due;
use crate::core::{Core, refusal};
use crate::limits;
use crate::outbox::Press;
use crate::report::metrics::Outcome;

impl Core {
    /// NATS found nobody subscribed as `gateway`: after a while its streams are stopped.
    pub(crate) fn on_missing_gateway(&mut self, gateway: &Name, now: Instant) {
        if self.watch.missed(gateway, now) {
            self.abandon(gateway, now);
        }
    }

    /// Probes the gateways that have streams here. `connection` is the number of the worker's
    /// connection to NATS, `None` while there is none.
    pub(crate) fn probe_gateways(&mut self, connection: Option<u64>, now: Instant) {
        let present = self.jobs.values().map(|job| &job.gateway);
        for gateway in self.watch.due(now, connection, present) {
            self.parts.outboxes.probe(&gateway);
        }
    }

    /// Tells `gateway` which of its streams are here, in a frame behind all that was sent of them.
    pub(crate) fn call_roll(&mut self, gateway: &Name, now: Instant) {
        let own = self.jobs.values().filter(|job| job.gateway == *gateway);
        let streams: Vec<HeldStream> = own.map(|job| job.stream.held()).collect();
        if streams.len() > limits::HELD_STREAMS {
            return;
        }
        let instance = self.parts.identity.instance;
        let frame = Frame {
            stream: 0,
            attempt: 0,
            seq: 0,
            body: Body::Held(Held { instance, streams }),
        };
        let Some(outbox) = self.parts.outboxes.of(gateway, now) else {
            return;
        };
        if let Err(error) = outbox.push(&frame, Press::Answer) {
            tracing::debug!(%error, %gateway, "the list of its streams was not sent");
        }
    }

    /// Offers the free slots to the waiting gateways, in turn.
    pub(crate) fn offer_slots(&mut self, now: Instant) {
        if !self.turns.is_on() {
            return;
        }
        if self.state() != WorkerState::Ready {
            self.turns.clear();
            self.parts.outboxes.keep_nothing();
        }
        for gateway in self.turns.lapse(now) {
            self.parts.metrics.lapsed_offers.inc();
            self.note_kept(&gateway);
        }
        let offered = self.turns.offer(self.admission.free(), now);
        if !offered.is_empty() {
            self.timers.set(now + limits::OFFER_PATIENCE, Due::Offer);
        }
        let mut slots = BTreeMap::<Name, u32>::new();
        for gateway in offered {
            self.parts.metrics.offers.inc();
            *slots.entry(gateway).or_default() += 1;
        }
        for (gateway, slots) in slots {
            self.offer(&gateway, slots, now);
        }
        self.parts.load.set_by_turns(self.turns.is_on());
    }

    fn offer(&mut self, gateway: &Name, slots: u32, now: Instant) {
        let Some(outbox) = self.parts.outboxes.of(gateway, now) else {
            return self.turns.decline(gateway, slots);
        };
        outbox.set_kept(self.turns.kept_for(gateway));
        let frame = Frame {
            stream: 0,
            attempt: 0,
            seq: 0,
            body: Body::Offer(Offer { slots }),
        };
        // An offer that is not heard lapses.
        if let Err(error) = outbox.push(&frame, Press::Answer) {
            tracing::debug!(%error, %gateway, "a free slot was not offered");
        }
    }

    /// A gateway has no request for `slots` of the slots that were offered.
    pub(crate) fn on_decline(&mut self, gateway: &Name, slots: u32) {
        self.turns.decline(gateway, slots);
        self.note_kept(gateway);
    }

    /// A request of `gateway` came, which uses up a slot that was kept for it.
    pub(crate) fn redeem(&mut self, gateway: &Name) {
        if self.turns.redeem(gateway) {
            self.note_kept(gateway);
        }
    }

    fn note_kept(&self, gateway: &Name) {
        self.parts.outboxes.set_kept(gateway, self.turns.kept_for(gateway));
    }

    /// The connection to NATS was lost and is back: frames may be missing, and where no more follow
    /// nobody would notice.
    pub(crate) fn on_reconnected(&mut self, now: Instant) {
        self.claim(now);
        for gateway in self.parts.outboxes.gateways() {
            self.call_roll(&gateway, now);
        }
    }

    fn abandon(&mut self, gateway: &Name, now: Instant) {
        let of_it = self.jobs.iter().filter(|(_, job)| job.gateway == *gateway);
        let left: Vec<Uuid> = of_it.map(|(id, _)| *id).collect();
        tracing::warn!(%gateway, streams = left.len(), "gateway lost: its streams are stopped");
        self.parts.metrics.gateways_lost.inc();
        // For the case that it comes back in this moment: it knows at once, and goes on elsewhere.
        let error = refusal(ErrorCode::WorkerOverloaded, "The worker lost sight of the gateway");
        for id in left {
            self.end(id, Some(error.clone()), Outcome::GatewayLost, now);
        }
        self.turns.forget(gateway);
        self.parts.outboxes.close_one(gateway);
    }
}

#[cfg(test)]
#[path = "gateways_tests.rs"]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests;
