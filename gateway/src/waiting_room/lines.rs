//! The lines in which requests wait.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use tokenbus_protocol::Features;

use super::occupancy::{Bounds, Full, Ledger};

/// One waiting request's place. Kept across wakes that came to nothing, so that it does not lose
/// its turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    /// Order of arrival, over all models.
    pub order: u64,
    /// The model.
    pub model: String,
    /// What it needs that not all workers of the model can do: its line.
    pub line: Features,
    /// Higher is served earlier.
    pub priority: i32,
    /// For whom. Those who name nobody are one tenant.
    pub tenant: Option<String>,
    /// Bytes of its body, which lies in memory while it waits.
    pub bytes: usize,
    /// A worker has had it before: it is served before all that no worker has had, and let in always.
    pub begun: bool,
}

impl Ticket {
    /// Its level in its line; the lowest is served first.
    fn level(&self) -> i64 {
        if self.begun {
            i64::MIN
        } else {
            -i64::from(self.priority)
        }
    }
}

/// The waiting requests of one gateway; `T` is what wakes one.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub struct WaitingRoom<T> {
    models: HashMap<String, Vec<(Features, Line<T>)>>,
    ledger: Ledger,
    waiting: usize,
    bytes: usize,
    next_order: u64,
}

#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
struct Line<T> {
    /// Lowest key first: [`Ticket::level`].
    levels: BTreeMap<i64, Level<T>>,
    waiting: usize,
}

/// One priority's requests. Tenants take turns.
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
    /// An empty room with these bounds, all models together.
    pub fn new(bounds: Bounds) -> Self {
        Self {
            models: HashMap::new(),
            ledger: Ledger::new(bounds),
            waiting: 0,
            bytes: 0,
            next_order: 0,
        }
    }

    /// A place in the order of arrival, for a request with a body of this many bytes.
    pub fn ticket(&mut self, model: &str, priority: i32, tenant: Option<String>, bytes: usize) -> Ticket {
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

    /// Waits at `ticket`'s place. What had to give way for it, by the rule of [`super::occupancy`], is
    /// returned: it waits no longer.
    ///
    /// # Errors
    /// [`Full`] when there is no room for it.
    pub fn enter(&mut self, ticket: &Ticket, waker: T) -> Result<Vec<(Arc<Ticket>, T)>, Full> {
        self.leave(ticket);
        let ticket = Arc::new(ticket.clone());
        let mut displaced = Vec::new();
        for gone in self.ledger.enter(&ticket)? {
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

    /// Leaves without having been woken. Nothing happens when it is not there.
    pub fn leave(&mut self, ticket: &Ticket) {
        if self.take(ticket).is_some() {
            self.ledger.leave(ticket);
        }
    }

    /// Takes it out of its line.
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

    /// Takes out whose turn it is in this line.
    pub fn next(&mut self, model: &str, line: Features) -> Option<T> {
        let queue = self.line(model, line)?;
        let mut first = queue.levels.first_entry()?;
        let place = first.get_mut().next()?;
        if first.get().turns.is_empty() {
            first.remove();
        }
        self.one_less(&place.ticket);
        self.ledger.leave(&place.ticket);
        Some(place.waker)
    }

    /// Whether this one's turn is next in its line; also when it is not there at all.
    pub fn is_next(&self, ticket: &Ticket) -> bool {
        let mut lines = self.models.get(&ticket.model).into_iter().flatten();
        let line = lines.find(|(line, _)| *line == ticket.line);
        let first = line.and_then(|(_, line)| line.first());
        first.is_none_or(|first| first.order == ticket.order)
    }

    /// Requests that wait for `model`.
    pub fn waiting(&self, model: &str) -> usize {
        self.models
            .get(model)
            .map_or(0, |lines| lines.iter().map(|(_, line)| line.waiting).sum())
    }

    /// Requests that wait for `model` in this line.
    pub fn waiting_in(&self, model: &str, line: Features) -> usize {
        self.lines(model)
            .find(|(known, _)| *known == line)
            .map_or(0, |(_, waiting)| waiting)
    }

    /// The lines in which requests wait for `model`, with how many in each.
    pub fn lines(&self, model: &str) -> impl Iterator<Item = (Features, usize)> {
        let lines = self.models.get(model).into_iter().flatten();
        lines.map(|(features, line)| (*features, line.waiting))
    }

    /// Models that somebody waits for.
    pub fn models(&self) -> impl Iterator<Item = &str> {
        self.models.keys().map(String::as_str)
    }

    /// Requests that wait, all models together.
    pub fn len(&self) -> usize {
        self.waiting
    }

    /// Bytes of their bodies.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Tenants of which anything waits that has not begun.
    pub fn tenants(&self) -> usize {
        self.ledger.tenants()
    }

    /// Whether three of four places, and of four bytes, are free.
    pub fn is_roomy(&self) -> bool {
        self.ledger.is_roomy()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
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
    /// Whose turn is next.
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
