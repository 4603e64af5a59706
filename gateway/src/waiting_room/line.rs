//! One line: requests that the same workers can serve, by class. A request that has begun goes first, then the highest
//! priority. Whoever waits ages into the next class in use, so no class starves another.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use tokio::time::Instant;

use super::ticket::{BEGUN, Ticket};
use super::turns::{Place, Turns};
use crate::limits::AGEING;

/// The requests of one line.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct Line<T> {
    /// The lowest key comes first: [`Ticket::level`].
    classes: BTreeMap<i64, Turns<T>>,
    /// By order of arrival.
    seats: HashMap<u64, Seat>,
    /// When each ages next.
    ages: BTreeSet<(Instant, u64)>,
}

#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
struct Seat {
    ticket: Arc<Ticket>,
    class: i64,
    ages: Instant,
}

impl<T> Default for Line<T> {
    fn default() -> Self {
        Self {
            classes: BTreeMap::new(),
            seats: HashMap::new(),
            ages: BTreeSet::new(),
        }
    }
}

impl<T> Line<T> {
    /// Requests in it.
    pub(super) fn len(&self) -> usize {
        self.seats.len()
    }

    /// Adds a request, in the class to which its waiting has brought it.
    pub(super) fn enter(&mut self, ticket: Arc<Ticket>, waker: T, now: Instant) {
        let (order, mut ages) = (ticket.order, ticket.since + AGEING);
        let mut class = ticket.level();
        while ages <= now {
            class = self.above(class);
            ages += AGEING;
        }
        self.ages.insert((ages, order));
        let seat = Seat {
            ticket: Arc::clone(&ticket),
            class,
            ages,
        };
        self.seats.insert(order, seat);
        self.classes.entry(class).or_default().enter(Place { ticket, waker });
    }

    /// Takes out a request that does not get a turn.
    pub(super) fn leave(&mut self, ticket: &Ticket) -> Option<Place<T>> {
        self.remove(ticket, Turns::leave)
    }

    /// Takes out a request whose client has left.
    pub(super) fn give_up(&mut self, ticket: &Ticket, now: Instant) -> Option<Place<T>> {
        self.remove(ticket, |turns, ticket| turns.given_up(ticket, now))
    }

    /// Takes out a request that gets its turn.
    pub(super) fn take(&mut self, ticket: &Ticket) -> Option<Place<T>> {
        self.remove(ticket, Turns::take)
    }

    /// Takes out the request whose turn it is.
    pub(super) fn next(&mut self, now: Instant) -> Option<Place<T>> {
        self.age(now);
        let first = Arc::clone(self.first(now)?);
        self.take(&first)
    }

    /// Takes everyone out, in the order of arrival. The charges of their tenants stay.
    pub(super) fn dissolve(&mut self) -> Vec<Place<T>> {
        self.ages.clear();
        let mut seats: Vec<_> = self.seats.drain().collect();
        seats.sort_unstable_by_key(|(order, _)| *order);
        let mut places = Vec::with_capacity(seats.len());
        for (_, seat) in seats {
            let turns = self.classes.get_mut(&seat.class);
            places.extend(turns.and_then(|turns| turns.leave(&seat.ticket)));
        }
        places
    }

    /// The request whose turn is next.
    pub(super) fn first(&self, now: Instant) -> Option<&Arc<Ticket>> {
        self.classes.values().find_map(|turns| turns.first(now))
    }

    /// Requests that go before a new one with this ticket, at least.
    pub(super) fn ahead(&self, ticket: &Ticket, now: Instant) -> Option<usize> {
        let level = ticket.level();
        let before = self.classes.range(..level).map(|(_, turns)| turns.len());
        let beside = self
            .classes
            .get(&level)
            .map_or(Some(0), |turns| turns.ahead(&ticket.tenant, now));
        beside.map(|beside| before.sum::<usize>() + beside)
    }

    /// Requests that have their turn before a new one with this ticket if each goes first that came first; counted up to
    /// `enough`.
    pub(super) fn before(&self, ticket: &Ticket, enough: usize) -> usize {
        let classes = self.classes.range(..=ticket.level());
        let mut before = 0;
        for (level, turns) in classes {
            before += if *level == ticket.level() {
                turns.before(&ticket.tenant, enough)
            } else {
                turns.len()
            };
            if before >= enough {
                break;
            }
        }
        before
    }

    fn remove(
        &mut self,
        ticket: &Ticket,
        how: impl FnOnce(&mut Turns<T>, &Ticket) -> Option<Place<T>>,
    ) -> Option<Place<T>> {
        let seat = self.seats.remove(&ticket.order)?;
        self.ages.remove(&(seat.ages, ticket.order));
        let turns = self.classes.get_mut(&seat.class)?;
        let place = how(turns, &seat.ticket);
        if turns.is_empty() {
            self.classes.remove(&seat.class);
        }
        place
    }

    /// Moves whoever has waited long into the next class.
    fn age(&mut self, now: Instant) {
        while let Some(&(at, order)) = self.ages.first()
            && at <= now
        {
            self.ages.remove(&(at, order));
            let Some(seat) = self.seats.get(&order) else { continue };
            let (ticket, old) = (Arc::clone(&seat.ticket), seat.class);
            let class = self.above(old);
            let ages = at + AGEING;
            self.ages.insert((ages, order));
            if class != old
                && let Some(turns) = self.classes.get_mut(&old)
            {
                let place = turns.leave(&ticket);
                if turns.is_empty() {
                    self.classes.remove(&old);
                }
                if let Some(place) = place {
                    self.classes.entry(class).or_default().enter(place);
                }
            }
            if let Some(seat) = self.seats.get_mut(&order) {
                seat.class = class;
                seat.ages = ages;
            }
        }
    }

    /// The next class in use that goes before `class`; the same if there is none.
    fn above(&self, class: i64) -> i64 {
        let used = self.classes.range(..class).filter(|(_, turns)| !turns.is_empty());
        let mut above = used.map(|(class, _)| *class);
        above.next_back().filter(|above| *above != BEGUN).unwrap_or(class)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
#[path = "line_tests.rs"]
mod tests;
