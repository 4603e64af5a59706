//! What a gateway does with requests: it sends them, lets them wait, and serves its lines.

use super::{Event, Hold, Simulation};
use crate::engine::Number;
use crate::policy::decide::{Ask, Choice};
use crate::time::{MILLISECOND, Nanos};

/// How often a request that waits for one worker looks whether that is still best.
const LOOK_EVERY: Nanos = 250 * MILLISECOND;

/// Workers that are told of a request that begins to wait for any.
const TELL: usize = 16;

/// How often a worker is told again.
const TELL_EVERY: Nanos = 1_000 * MILLISECOND;

impl Simulation<'_> {
    /// Sends a request that has just arrived, or was refused or lost, or lets it wait.
    pub(super) fn arrive(&mut self, now: Nanos, number: Number) {
        let gateway = self.home[number];
        let was_sent = self.outcome.fates[number].sent > 0;
        let waits = !was_sent && self.run.policy.workers_refuse() && !self.gateways[gateway].lines.is_free();
        if waits || !self.place(now, gateway, number, None) {
            self.refused_by[number] = 0;
            if self.holds[number].is_none() {
                self.gateways[gateway].lines.enter(number, was_sent);
                self.tell(now, gateway, None);
            }
        }
    }

    /// A request waits at a gateway, for this worker or for any: tells workers that do not know of one.
    pub(super) fn tell(&mut self, now: Nanos, gateway: usize, only: Option<usize>) {
        let link = self.run.cluster.link;
        let told = &mut self.gateways[gateway].told;
        let workers = only.map_or(0..told.len(), |worker| worker..worker + 1);
        let due = workers.filter(|worker| told[*worker].is_none_or(|at| now >= at + TELL_EVERY));
        let due: Vec<usize> = due.take(TELL).collect();
        for worker in due {
            told[worker] = Some(now);
            self.queue.push(now + link, Event::Waits(gateway, worker));
        }
    }

    /// Sends as many of the waiting requests as find a place now that a gateway has heard of `worker`: first those that
    /// wait for it, then the first of the others. Returns how many.
    pub(super) fn serve_line(&mut self, now: Nanos, gateway: usize, worker: usize) -> u32 {
        let mut sent = 0;
        while self.gateways[gateway].policy.is_open(worker) {
            let Some(number) = self.gateways[gateway].lines.next_held(worker) else {
                break;
            };
            self.release(number);
            if self.place(now, gateway, number, Some(worker)) {
                sent += 1;
            } else if self.holds[number].is_none() {
                self.gateways[gateway].lines.enter(number, false);
            }
        }
        while let Some(number) = self.gateways[gateway].lines.next_of_any() {
            if self.place(now, gateway, number, None) {
                sent += 1;
            } else if self.holds[number].is_none() {
                self.gateways[gateway].lines.back(number);
                break;
            }
        }
        sent
    }

    /// A request that waits for one worker looks whether that is still best. After its time, it waits for none.
    pub(super) fn look_again(&mut self, now: Nanos, number: Number) {
        let gateway = self.home[number];
        let Some(Hold { worker, until }) = self.holds[number] else {
            return;
        };
        let early = now < until;
        if early && !self.gateways[gateway].lines.is_free() {
            self.queue.push(until.min(now + LOOK_EVERY), Event::Look(number));
            return;
        }
        self.gateways[gateway].lines.release(number, worker);
        self.release(number);
        self.held_out[number] |= !early;
        if !self.place(now, gateway, number, None) && self.holds[number].is_none() {
            self.gateways[gateway].lines.enter(number, false);
        }
    }

    /// It does not wait for one worker any more.
    pub(super) fn release(&mut self, number: Number) {
        if let Some(Hold { worker, .. }) = self.holds[number].take() {
            self.gateways[self.home[number]].policy.held(number, worker, false);
        }
    }

    /// Sends a request, or lets it wait for the worker that is best. False if it was not sent.
    pub(super) fn place(&mut self, now: Nanos, gateway: usize, number: Number, turn_at: Option<usize>) -> bool {
        let ask = Ask {
            number,
            request: &self.run.requests[number],
            refused_by: self.refused_by[number],
            turn_at,
            may_hold: !self.held_out[number] && self.outcome.fates[number].lost == 0,
            now,
            truth: &self.fleet,
        };
        let policy = &mut self.gateways[gateway].policy;
        let worker = match policy.place(&ask) {
            Choice::Worker(worker) => worker,
            Choice::Wait => return false,
            Choice::Hold(worker, bound) => {
                policy.held(number, worker, true);
                let until = now + bound;
                self.holds[number] = Some(Hold { worker, until });
                self.gateways[gateway].lines.hold(number, worker);
                self.queue.push(until.min(now + LOOK_EVERY), Event::Look(number));
                self.tell(now, gateway, Some(worker));
                return false;
            }
        };
        policy.sent(&ask, worker);
        self.outcome.fates[number].sent += 1;
        self.queue
            .push(now + self.run.cluster.link, Event::Deliver(number, worker));
        true
    }
}
