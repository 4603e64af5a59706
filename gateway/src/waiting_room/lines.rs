//! The lines in which requests wait.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use tokenbus_protocol::Features;

use super::occupancy::{Bounds, Full, Occupancy};
use super::ticket::Ticket;

/// The waiting requests of one gateway. `T` wakes one.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(crate) struct WaitingRoom<T> {
    models: HashMap<String, Vec<(Features, Line<T>)>>,
    occupancy: Occupancy,
    waiting: usize,
    bytes: usize,
    next_order: u64,
}

#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
struct Line<T> {
    /// The lowest key comes first: [`Ticket::level`].
    levels: BTreeMap<i64, Level<T>>,
    waiting: usize,
}

/// The requests of one priority. Tenants take turns.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
struct Level<T> {
    tenants: HashMap<Option<String>, BTreeMap<u64, Place<T>>>,
    turns: VecDeque<Option<String>>,
}

#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
struct Place<T> {
    ticket: Arc<Ticket>,
    waker: T,
}

impl<T> Default for Line<T> {
    fn default() -> Self {
        Self {
            levels: BTreeMap::new(),
            waiting: 0,
        }
    }
}

impl<T> Default for Level<T> {
    fn default() -> Self {
        Self {
            tenants: HashMap::new(),
            turns: VecDeque::new(),
        }
    }
}

impl<T> WaitingRoom<T> {
    /// An empty room with these bounds over all models.
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self {
            models: HashMap::new(),
            occupancy: Occupancy::new(bounds),
            waiting: 0,
            bytes: 0,
            next_order: 0,
        }
    }

    /// Takes a place in the order of arrival, for a request with a body of `bytes` bytes.
    pub(crate) fn ticket(&mut self, model: &str, priority: i32, tenant: Option<String>, bytes: usize) -> Ticket {
        self.next_order += 1;
        Ticket {
            order: self.next_order,
            model: model.to_owned(),
            line: Features::NONE,
            priority,
            tenant,
            bytes,
            begun: false,
        }
    }

    /// Enters at `ticket`'s place. Returns the requests that it displaced by the rule of [`super::occupancy`]; they no
    /// longer wait.
    ///
    /// # Errors
    /// [`Full`] if there is no room.
    pub(crate) fn enter(&mut self, ticket: &Ticket, waker: T) -> Result<Vec<(Arc<Ticket>, T)>, Full> {
        self.leave(ticket);
        let ticket = Arc::new(ticket.clone());
        let mut displaced = Vec::new();
        for gone in self.occupancy.enter(&ticket)? {
            displaced.extend(self.take(&gone).map(|waker| (gone, waker)));
        }
        let lines = self.models.entry(ticket.model.clone()).or_default();
        let at = lines.iter().position(|(line, _)| *line == ticket.line);
        let at = at.unwrap_or_else(|| {
            lines.push((ticket.line, Line::default()));
            lines.len() - 1
        });
        let Some((_, queue)) = lines.get_mut(at) else {
            return Ok(displaced);
        };
        let level = queue.levels.entry(ticket.level()).or_default();
        if !level.tenants.contains_key(&ticket.tenant) {
            level.turns.push_back(ticket.tenant.clone());
        }
        queue.waiting += 1;
        self.waiting += 1;
        self.bytes += ticket.bytes;
        let places = level.tenants.entry(ticket.tenant.clone()).or_default();
        places.insert(ticket.order, Place { ticket, waker });
        Ok(displaced)
    }

    /// Leaves without having been woken. Does nothing if the request is not there.
    pub(crate) fn leave(&mut self, ticket: &Ticket) {
        if self.take(ticket).is_some() {
            self.occupancy.leave(ticket);
        }
    }

    /// Takes a request out of its line.
    fn take(&mut self, ticket: &Ticket) -> Option<T> {
        let queue = self.line(&ticket.model, ticket.line)?;
        let key = ticket.level();
        let level = queue.levels.get_mut(&key)?;
        let place = level.remove(&ticket.tenant, ticket.order)?;
        if level.turns.is_empty() {
            queue.levels.remove(&key);
        }
        self.one_less(&place.ticket);
        Some(place.waker)
    }

    /// Takes out the request whose turn it is in this line.
    pub(crate) fn next(&mut self, model: &str, line: Features) -> Option<T> {
        let queue = self.line(model, line)?;
        let mut first = queue.levels.first_entry()?;
        let place = first.get_mut().next()?;
        if first.get().turns.is_empty() {
            first.remove();
        }
        self.one_less(&place.ticket);
        self.occupancy.leave(&place.ticket);
        Some(place.waker)
    }

    /// Whether this request is next in its line; true also if it does not wait.
    pub(crate) fn is_next(&self, ticket: &Ticket) -> bool {
        let mut lines = self.models.get(&ticket.model).into_iter().flatten();
        let line = lines.find(|(line, _)| *line == ticket.line);
        let first = line.and_then(|(_, line)| line.first());
        first.is_none_or(|first| first.order == ticket.order)
    }

    /// Requests that wait for `model`.
    pub(crate) fn waiting(&self, model: &str) -> usize {
        self.models
            .get(model)
            .map_or(0, |lines| lines.iter().map(|(_, line)| line.waiting).sum())
    }

    /// Requests that wait for `model` in this line.
    pub(crate) fn waiting_in(&self, model: &str, line: Features) -> usize {
        self.lines(model)
            .find(|(known, _)| *known == line)
            .map_or(0, |(_, waiting)| waiting)
    }

    /// The lines in which requests wait for `model`, with how many in each.
    pub(crate) fn lines(&self, model: &str) -> impl Iterator<Item = (Features, usize)> {
        let lines = self.models.get(model).into_iter().flatten();
        lines.map(|(features, line)| (*features, line.waiting))
    }

    /// Models for which requests wait.
    pub(crate) fn models(&self) -> impl Iterator<Item = &str> {
        self.models.keys().map(String::as_str)
    }

    /// Waiting requests over all models.
    pub(crate) fn len(&self) -> usize {
        self.waiting
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
        self.waiting == 0
    }

    fn line(&mut self, model: &str, line: Features) -> Option<&mut Line<T>> {
        let mut lines = self.models.get_mut(model)?.iter_mut();
        lines.find(|(known, _)| *known == line).map(|(_, queue)| queue)
    }

    fn one_less(&mut self, ticket: &Ticket) {
        self.waiting -= 1;
        self.bytes -= ticket.bytes;
        if let Some(queue) = self.line(&ticket.model, ticket.line) {
            queue.waiting -= 1;
        }
        if let Some(lines) = self.models.get_mut(&ticket.model) {
            lines.retain(|(_, queue)| queue.waiting > 0);
            if lines.is_empty() {
                self.models.remove(&ticket.model);
            }
        }
    }
}

impl<T> Line<T> {
    /// The request whose turn is next.
    fn first(&self) -> Option<&Ticket> {
        let (_, level) = self.levels.first_key_value()?;
        let places = level.tenants.get(level.turns.front()?)?;
        let (_, place) = places.first_key_value()?;
        Some(&place.ticket)
    }
}

impl<T> Level<T> {
    fn remove(&mut self, tenant: &Option<String>, order: u64) -> Option<Place<T>> {
        let places = self.tenants.get_mut(tenant)?;
        let found = places.remove(&order);
        if places.is_empty() {
            self.tenants.remove(tenant);
            self.turns.retain(|turn| turn != tenant);
        }
        found
    }

    fn next(&mut self) -> Option<Place<T>> {
        let tenant = self.turns.pop_front()?;
        let places = self.tenants.get_mut(&tenant)?;
        let (_, place) = places.pop_first()?;
        if places.is_empty() {
            self.tenants.remove(&tenant);
        } else {
            self.turns.push_back(tenant);
        }
        Some(place)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
#[path = "lines_tests.rs"]
mod tests;
