//! The lines in which requests wait.

use std::collections::HashMap;
use std::sync::Arc;

use tokenbus_protocol::{Features, Name};
use tokio::time::Instant;

use super::line::Line;
use super::occupancy::{Bounds, Full, Occupancy};
use super::ticket::{LineKey, Ticket};
use super::turns::Place;
use crate::metrics::Class;

/// The waiting requests of one gateway. `T` wakes one.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(crate) struct WaitingRoom<T> {
    models: HashMap<String, Vec<(LineKey, Line<T>)>>,
    occupancy: Occupancy,
    /// By class.
    waiting: [usize; Class::ALL.len()],
    bytes: usize,
    next_order: u64,
}

impl<T> WaitingRoom<T> {
    /// An empty room with these bounds over all models.
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self {
            models: HashMap::new(),
            occupancy: Occupancy::new(bounds),
            waiting: [0; Class::ALL.len()],
            bytes: 0,
            next_order: 0,
        }
    }

    /// Takes a place in the order of arrival, for a request with a body of `bytes` bytes. It costs next to nothing until
    /// its `tokens` are set.
    pub(crate) fn ticket(
        &mut self,
        model: &str,
        priority: i32,
        tenant: Option<String>,
        bytes: usize,
        now: Instant,
    ) -> Ticket {
        self.next_order += 1;
        Ticket {
            order: self.next_order,
            since: now,
            model: model.to_owned(),
            line: Features::NONE.into(),
            priority,
            tenant,
            bytes,
            tokens: 0,
            limit: None,
            paused: false,
            begun: false,
            had_turn: false,
        }
    }

    /// Enters at `ticket`'s place. Returns the requests that it displaced by the rule of [`super::occupancy`]; they no
    /// longer wait.
    ///
    /// # Errors
    /// [`Full`] if there is no room.
    pub(crate) fn enter(&mut self, ticket: &Ticket, waker: T, now: Instant) -> Result<Vec<(Arc<Ticket>, T)>, Full> {
        self.leave(ticket);
        let ticket = Arc::new(ticket.clone());
        let mut displaced = Vec::new();
        for gone in self.occupancy.enter(&ticket)? {
            let place = self.remove(&gone, Line::leave);
            displaced.extend(place.map(|place| (gone, place.waker)));
        }
        let lines = self.models.entry(ticket.model.clone()).or_default();
        let at = lines.iter().position(|(line, _)| *line == ticket.line);
        let at = at.unwrap_or_else(|| {
            lines.push((ticket.line.clone(), Line::default()));
            lines.len() - 1
        });
        if let Some((_, line)) = lines.get_mut(at) {
            if let Some(waiting) = self.waiting.get_mut(ticket.class() as usize) {
                *waiting += 1;
            }
            self.bytes += ticket.bytes;
            line.enter(ticket, waker, now);
        }
        Ok(displaced)
    }

    /// Leaves without a turn. Does nothing if the request is not there.
    pub(crate) fn leave(&mut self, ticket: &Ticket) {
        if self.remove(ticket, Line::leave).is_some() {
            self.occupancy.leave(ticket);
        }
    }

    /// Leaves because its client has gone, or waits no longer. Does nothing if the request is not there.
    /// Returns whether it was.
    pub(crate) fn give_up(&mut self, ticket: &Ticket, now: Instant) -> bool {
        let waited = self.remove(ticket, |line, ticket| line.give_up(ticket, now)).is_some();
        if waited {
            self.occupancy.leave(ticket);
        }
        waited
    }

    /// Leaves with a turn that the request found by itself. Does nothing if the request is not there.
    pub(crate) fn take_turn(&mut self, ticket: &Ticket) {
        if self.remove(ticket, Line::take).is_some() {
            self.occupancy.leave(ticket);
        }
    }

    /// Takes out the request whose turn it is in this line.
    pub(crate) fn next(&mut self, model: &str, line: impl Into<LineKey>, now: Instant) -> Option<T> {
        let place = self.line(model, &line.into())?.next(now)?;
        self.one_less(&place.ticket);
        self.occupancy.leave(&place.ticket);
        Some(place.waker)
    }

    /// Takes everyone out of this line, in order. Nobody is charged, because there is no slot for them, and what tenants
    /// were charged before is remembered until the next request leaves: they are about to come back.
    pub(crate) fn dissolve(&mut self, model: &str, line: impl Into<LineKey>) -> Vec<T> {
        let places = self.line(model, &line.into()).map(Line::dissolve).unwrap_or_default();
        let mut wakers = Vec::with_capacity(places.len());
        for place in places {
            self.uncount(&place.ticket);
            self.occupancy.leave(&place.ticket);
            wakers.push(place.waker);
        }
        wakers
    }

    /// Takes a request out of its line.
    fn remove(
        &mut self,
        ticket: &Ticket,
        how: impl FnOnce(&mut Line<T>, &Ticket) -> Option<Place<T>>,
    ) -> Option<Place<T>> {
        let place = how(self.line(&ticket.model, &ticket.line)?, ticket)?;
        self.one_less(&place.ticket);
        Some(place)
    }

    /// Whether this request is next in its line; true also if it does not wait.
    pub(crate) fn is_next(&self, ticket: &Ticket, now: Instant) -> bool {
        let mut lines = self.models.get(&ticket.model).into_iter().flatten();
        let line = lines.find(|(line, _)| *line == ticket.line);
        let first = line.and_then(|(_, line)| line.first(now));
        first.is_none_or(|first| first.order == ticket.order)
    }

    /// Requests that go before a new one with this ticket, at least; `None` if nobody can tell.
    pub(crate) fn ahead(&self, ticket: &Ticket, now: Instant) -> Option<usize> {
        let mut lines = self.models.get(&ticket.model).into_iter().flatten();
        let line = lines.find(|(line, _)| *line == ticket.line);
        line.map_or(Some(0), |(_, line)| line.ahead(ticket, now))
    }

    /// Requests for its model that have their turn before a new one with this ticket if each goes first that came first,
    /// in all lines; counted up to `enough` in each.
    pub(crate) fn before(&self, ticket: &Ticket, enough: usize) -> usize {
        let lines = self.models.get(&ticket.model).into_iter().flatten();
        lines.map(|(_, line)| line.before(ticket, enough)).sum()
    }

    /// Requests that wait for `model`.
    pub(crate) fn waiting(&self, model: &str) -> usize {
        self.models
            .get(model)
            .map_or(0, |lines| lines.iter().map(|(_, line)| line.len()).sum())
    }

    /// Requests that wait for any worker of `model` with these needs.
    pub(crate) fn waiting_in(&self, model: &str, needs: Features) -> usize {
        self.lines(model)
            .find(|(known, _)| known.worker.is_none() && known.needs == needs)
            .map_or(0, |(_, waiting)| waiting)
    }

    /// Whether the first that waits for `worker` goes before all that it could serve and that wait for any. Those are in
    /// the lines with the needs of which `does` says so.
    pub(crate) fn worker_goes_first(
        &self,
        model: &str,
        worker: &Name,
        does: impl Fn(Features) -> bool,
        now: Instant,
    ) -> bool {
        let lines = || self.models.get(model).into_iter().flatten();
        let level = |line: &Line<T>| line.first(now).map(|first| first.level());
        let own = lines().filter(|(key, _)| key.worker.as_ref() == Some(worker));
        let others = lines().filter(|(key, _)| key.worker.is_none() && does(key.needs));
        let first = |levels: &mut dyn Iterator<Item = i64>| levels.min().unwrap_or(i64::MAX);
        first(&mut own.filter_map(|(_, line)| level(line))) <= first(&mut others.filter_map(|(_, line)| level(line)))
    }

    /// The lines in which requests wait for `model`, with how many in each.
    pub(crate) fn lines(&self, model: &str) -> impl Iterator<Item = (&LineKey, usize)> {
        let lines = self.models.get(model).into_iter().flatten();
        lines.map(|(key, line)| (key, line.len()))
    }

    /// Models for which requests wait.
    pub(crate) fn models(&self) -> impl Iterator<Item = &str> {
        let waiting = |lines: &Vec<(LineKey, Line<T>)>| lines.iter().any(|(_, line)| line.len() > 0);
        let models = self.models.iter().filter(move |(_, lines)| waiting(lines));
        models.map(|(model, _)| model.as_str())
    }

    /// Waiting requests over all models.
    pub(crate) fn len(&self) -> usize {
        self.waiting.iter().sum()
    }

    /// Waiting requests over all models, by class.
    pub(crate) fn by_class(&self) -> impl Iterator<Item = (Class, usize)> + use<T> {
        Class::ALL.into_iter().zip(self.waiting)
    }

    /// Bytes of their bodies.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Tenants with waiting requests that have not begun.
    pub(crate) fn tenants(&self) -> usize {
        self.occupancy.tenants()
    }

    /// Whether three quarters of the places and of the bytes are free.
    pub(crate) fn is_roomy(&self) -> bool {
        self.occupancy.is_roomy()
    }

    /// Whether nobody waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn line(&mut self, model: &str, line: &LineKey) -> Option<&mut Line<T>> {
        let mut lines = self.models.get_mut(model)?.iter_mut();
        lines.find(|(known, _)| known == line).map(|(_, queue)| queue)
    }

    fn uncount(&mut self, ticket: &Ticket) {
        if let Some(waiting) = self.waiting.get_mut(ticket.class() as usize) {
            *waiting -= 1;
        }
        self.bytes -= ticket.bytes;
    }

    fn one_less(&mut self, ticket: &Ticket) {
        self.uncount(ticket);
        if let Some(lines) = self.models.get_mut(&ticket.model) {
            lines.retain(|(_, queue)| queue.len() > 0);
            if lines.is_empty() {
                self.models.remove(&ticket.model);
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
#[path = "lines_tests.rs"]
mod tests;
