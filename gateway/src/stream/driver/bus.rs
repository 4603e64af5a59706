//! What the driver sends over the bus, and its wait while the bus is away.

use std::sync::Arc;

use tokio::time::Instant;

use super::super::message::{self, Envelope};
use super::{Driver, Pending, Published, Step};
use crate::limits;
use crate::placement::Target;

impl Driver {
    /// Waits while the bus is away, but not for ever: its credentials may have ended. A stream that has begun waits
    /// longer; a request that no worker took is better retried by its client, or at another gateway.
    pub(super) async fn bus_up(&mut self) {
        if self.shared.bus.is_connected() {
            self.bus_away_since = None;
            return;
        }
        // The caller may drop this wait and begin it again.
        let since = *self.bus_away_since.get_or_insert_with(Instant::now);
        let mut patience = self.shared.bus_patience;
        if self.state.has_begun() {
            patience = patience.max(limits::BEGUN_BUS_PATIENCE);
        }
        let until = self.state.deadline().min(since + patience);
        let mut link = self.shared.bus.link();
        // The caller checks the connection again, timeout or not.
        let back = tokio::time::timeout_at(until, link.wait_for(|link| link.connected)).await;
        if back.is_ok() {
            self.bus_away_since = None;
        }
    }

    /// Publishes the next attempt, to a worker or to the queue group.
    pub(super) async fn publish(&mut self, target: Option<Target>, now: Instant) {
        self.begin_reading(target.clone(), now);
        let why = target.as_ref().map(|target| target.why.to_string());
        let target = target.map(|target| target.worker);
        let shared = Arc::clone(&self.shared);
        let patience = shared.patience(target.as_ref(), &self.call.model);
        let attempt = match self.state.publish(target.clone(), now, patience) {
            Ok(attempt) => attempt,
            Err(error) => return self.state.fail(error, &mut self.actions),
        };
        let subject = match &target {
            Some(worker) => shared
                .subjects
                .request_to(self.call.kind.family(), &self.call.model, worker),
            None => shared.subjects.request(self.call.kind.family(), &self.call.model),
        };
        let number = attempt.attempt;
        let reply = shared.subjects.reply(&shared.gateway, self.number, number);
        let envelope = Envelope {
            gateway: &shared.gateway,
            stream: self.number,
            number: self.call.way.attempts(),
            max_payload: shared.bus.max_payload(),
            now,
        };
        let message = match message::request(&self.call, attempt, &envelope) {
            Ok((message, part)) => {
                self.part = part;
                message
            }
            Err(error) => return self.state.fail(error, &mut self.actions),
        };
        self.inbox.sent(number, target.clone());
        self.call.way.sent(now, number, target.as_ref(), why.as_deref());
        if let Some(worker) = target {
            shared.view().placed(&worker, now);
            self.pending.push(Pending {
                attempt: number,
                worker,
            });
        }
        self.come();
        if self.published.is_empty() {
            self.published.reserve_exact(1); // usually the only one
        } else if self.published.len() >= limits::MAX_OPEN {
            self.published.remove(0);
        }
        self.published.push(Published {
            attempt: number,
            at: now,
        });
        shared.metrics.attempts().inc();
        if number > 0 {
            shared.metrics.republishes().inc();
        }
        if let Err(error) = shared.bus.publish_with_reply(subject, reply, message).await {
            tracing::warn!(id = %self.call.id, attempt = number, %error, "request not published");
        }
    }

    /// Sends the next part of a body that is too large for one message.
    pub(super) async fn send_part(&mut self) {
        let Some(Step::Parts { attempt, worker, next }) = self.steps.front_mut() else {
            return;
        };
        let start = (*next as usize).saturating_mul(self.part);
        let Some(rest) = self.call.body.get(start..).filter(|rest| !rest.is_empty()) else {
            self.steps.pop_front();
            return;
        };
        let data = rest.get(..self.part).unwrap_or(rest);
        let part = message::part(self.call.id, *attempt, *next, data);
        *next += 1;
        let subject = self.shared.subjects.control(worker);
        let shared = Arc::clone(&self.shared);
        match part {
            Ok(bytes) => {
                if let Err(error) = shared.bus.publish(subject, bytes).await {
                    tracing::warn!(id = %self.call.id, %error, "part of a request not published");
                }
            }
            Err(error) => tracing::error!(id = %self.call.id, %error, "part of a request not encoded"),
        }
    }
}
