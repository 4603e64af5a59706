//! Requests that wait for room: bounded, by priority, fair between tenants, first come first
//! served within a tenant. Pure data.
//!
//! Requests of one model stand in one line, unless they need what only some of its workers can do:
//! those have a line of their own, so that room they cannot use does not wake them.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use tokenbus_protocol::Features;
use tokio::time::Instant;

use crate::limits::RETRY_AFTER;

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
    /// For whom.
    pub tenant: Option<String>,
}

/// The waiting requests of one gateway; `T` is what wakes one.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub struct WaitingRoom<T> {
    models: HashMap<String, Vec<(Features, Line<T>)>>,
    waiting: usize,
    bound: usize,
    next_order: u64,
}

#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
struct Line<T> {
    /// Lowest key first: the key is the negated priority.
    levels: BTreeMap<i64, Level<T>>,
    waiting: usize,
}

/// One priority's requests. Tenants take turns.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
struct Level<T> {
    tenants: HashMap<Option<String>, BTreeMap<u64, T>>,
    turns: VecDeque<Option<String>>,
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

/// The room is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

impl<T> WaitingRoom<T> {
    /// An empty room for at most `bound` requests, all models together.
    pub fn new(bound: usize) -> Self {
        Self {
            models: HashMap::new(),
            waiting: 0,
            bound,
            next_order: 0,
        }
    }

    /// A place in the order of arrival.
    pub fn ticket(&mut self, model: &str, priority: i32, tenant: Option<String>) -> Ticket {
        self.next_order += 1;
        Ticket {
            order: self.next_order,
            model: model.to_owned(),
            line: Features::NONE,
            priority,
            tenant,
        }
    }

    /// Waits at `ticket`'s place.
    ///
    /// # Errors
    /// [`Full`] when the room is.
    pub fn enter(&mut self, ticket: &Ticket, waker: T) -> Result<(), Full> {
        if self.waiting >= self.bound {
            return Err(Full);
        }
        let lines = self.models.entry(ticket.model.clone()).or_default();
        let at = lines.iter().position(|(line, _)| *line == ticket.line);
        let at = at.unwrap_or_else(|| {
            lines.push((ticket.line, Line::default()));
            lines.len() - 1
        });
        let Some((_, queue)) = lines.get_mut(at) else {
            return Ok(());
        };
        let level = queue.levels.entry(-i64::from(ticket.priority)).or_default();
        if !level.tenants.contains_key(&ticket.tenant) {
            level.turns.push_back(ticket.tenant.clone());
        }
        let places = level.tenants.entry(ticket.tenant.clone()).or_default();
        if places.insert(ticket.order, waker).is_none() {
            queue.waiting += 1;
            self.waiting += 1;
        }
        Ok(())
    }

    /// Leaves without having been woken. Nothing happens when it is not there.
    pub fn leave(&mut self, ticket: &Ticket) {
        let Some(queue) = self.line(&ticket.model, ticket.line) else {
            return;
        };
        let key = -i64::from(ticket.priority);
        let Some(level) = queue.levels.get_mut(&key) else {
            return;
        };
        if !level.remove(&ticket.tenant, ticket.order) {
            return;
        }
        if level.turns.is_empty() {
            queue.levels.remove(&key);
        }
        self.one_less(&ticket.model, ticket.line);
    }

    /// Takes out whose turn it is in this line.
    pub fn next(&mut self, model: &str, line: Features) -> Option<T> {
        let queue = self.line(model, line)?;
        let mut first = queue.levels.first_entry()?;
        let waker = first.get_mut().next()?;
        if first.get().turns.is_empty() {
            first.remove();
        }
        self.one_less(model, line);
        Some(waker)
    }

    /// Whether this one's turn is next in its line; also when it is not there at all.
    pub fn is_next(&self, ticket: &Ticket) -> bool {
        let lines = self.models.get(&ticket.model).into_iter().flatten();
        let line = lines
            .filter(|(line, _)| *line == ticket.line)
            .map(|(_, line)| line)
            .next();
        let first = line.and_then(Line::first);
        first.is_none_or(|(tenant, order)| *tenant == ticket.tenant && order == ticket.order)
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

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    fn line(&mut self, model: &str, line: Features) -> Option<&mut Line<T>> {
        let mut lines = self.models.get_mut(model)?.iter_mut();
        lines.find(|(known, _)| *known == line).map(|(_, queue)| queue)
    }

    fn one_less(&mut self, model: &str, line: Features) {
        self.waiting -= 1;
        if let Some(queue) = self.line(model, line) {
            queue.waiting -= 1;
        }
        if let Some(lines) = self.models.get_mut(model) {
            lines.retain(|(_, queue)| queue.waiting > 0);
            if lines.is_empty() {
                self.models.remove(model);
            }
        }
    }
}

impl<T> Line<T> {
    /// Whose turn is next.
    fn first(&self) -> Option<(&Option<String>, u64)> {
        let (_, level) = self.levels.first_key_value()?;
        let tenant = level.turns.front()?;
        let (order, _) = level.tenants.get(tenant)?.first_key_value()?;
        Some((tenant, *order))
    }
}

impl<T> Level<T> {
    fn remove(&mut self, tenant: &Option<String>, order: u64) -> bool {
        let Some(places) = self.tenants.get_mut(tenant) else {
            return false;
        };
        let found = places.remove(&order).is_some();
        if places.is_empty() {
            self.tenants.remove(tenant);
            self.turns.retain(|turn| turn != tenant);
        }
        found
    }

    fn next(&mut self) -> Option<T> {
        let tenant = self.turns.pop_front()?;
        let places = self.tenants.get_mut(&tenant)?;
        let (_, waker) = places.pop_first()?;
        if places.is_empty() {
            self.tenants.remove(&tenant);
        } else {
            self.turns.push_back(tenant);
        }
        Some(waker)
    }
}

/// How fast a model's requests end, over the last [`DrainRate::WINDOW`] seconds.
#[derive(Debug, Default)]
pub struct DrainRate {
    /// Second since `start` and requests that ended in it.
    seconds: VecDeque<(u64, u32)>,
    start: Option<Instant>,
}

impl DrainRate {
    /// Seconds that are looked back on.
    pub const WINDOW: u64 = 10;

    /// A request ended.
    pub fn ended(&mut self, now: Instant) {
        let second = self.second(now);
        match self.seconds.back_mut() {
            Some((last, count)) if *last == second => *count += 1,
            _ => self.seconds.push_back((second, 1)),
        }
        while self
            .seconds
            .front()
            .is_some_and(|(old, _)| old + Self::WINDOW <= second)
        {
            self.seconds.pop_front();
        }
    }

    /// When the last of `waiting` requests should have room. Without any end in the window nothing
    /// is known but that it takes longer than the window.
    pub fn retry_after(&mut self, waiting: usize, now: Instant) -> Duration {
        let second = self.second(now);
        let recent = self.seconds.iter().filter(|(old, _)| old + Self::WINDOW > second);
        let ended: u32 = recent.map(|(_, count)| count).sum();
        // A model that has been busy for less than the window has a shorter one.
        let first = self.seconds.front().map_or(second, |(old, _)| *old);
        let span = (second.saturating_sub(first) + 1).min(Self::WINDOW);
        let wait = if ended == 0 {
            Duration::from_secs(Self::WINDOW)
        } else {
            Duration::from_secs_f64((waiting as f64 + 1.0) * span as f64 / f64::from(ended))
        };
        wait.clamp(*RETRY_AFTER.start(), *RETRY_AFTER.end())
    }

    fn second(&mut self, now: Instant) -> u64 {
        let start = *self.start.get_or_insert(now);
        now.saturating_duration_since(start).as_secs()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    fn room(entries: &[(i32, Option<&str>, &'static str)]) -> WaitingRoom<&'static str> {
        let mut room = WaitingRoom::new(100);
        for (priority, tenant, waker) in entries {
            let ticket = room.ticket("m", *priority, tenant.map(str::to_owned));
            room.enter(&ticket, *waker).unwrap();
        }
        room
    }

    fn drain(room: &mut WaitingRoom<&'static str>) -> Vec<&'static str> {
        std::iter::from_fn(|| room.next("m", Features::NONE)).collect()
    }

    #[test]
    fn priority_first_then_first_come() {
        let mut room = room(&[
            (0, None, "a"),
            (5, None, "b"),
            (0, None, "c"),
            (5, None, "d"),
            (-1, None, "e"),
        ]);
        assert_eq!(drain(&mut room), ["b", "d", "a", "c", "e"]);
        assert!(room.is_empty());
    }

    #[test]
    fn tenants_take_turns() {
        let (x, y) = (Some("x"), Some("y"));
        let mut room = room(&[(0, x, "x1"), (0, x, "x2"), (0, x, "x3"), (0, y, "y1"), (0, None, "n1")]);
        assert_eq!(drain(&mut room), ["x1", "y1", "n1", "x2", "x3"]);
    }

    #[test]
    fn the_room_is_bounded_and_leaving_makes_room() {
        let mut room = WaitingRoom::new(2);
        let tickets: Vec<Ticket> = (0..3).map(|_| room.ticket("m", 0, None)).collect();
        room.enter(&tickets[0], 0).unwrap();
        room.enter(&tickets[1], 1).unwrap();
        assert_eq!(room.enter(&tickets[2], 2), Err(Full));
        room.leave(&tickets[0]);
        room.leave(&tickets[0]);
        assert_eq!(room.len(), 1);
        room.enter(&tickets[2], 2).unwrap();
        assert_eq!(
            (
                room.next("m", Features::NONE),
                room.next("m", Features::NONE),
                room.next("m", Features::NONE)
            ),
            (Some(1), Some(2), None)
        );
        assert_eq!(room.models().count(), 0, "an empty queue leaves nothing behind");
    }

    #[test]
    fn one_that_was_woken_in_vain_keeps_its_turn() {
        let mut room = WaitingRoom::new(10);
        let first = room.ticket("m", 0, None);
        let second = room.ticket("m", 0, None);
        room.enter(&second, "second").unwrap();
        room.enter(&first, "first").unwrap();
        assert_eq!(room.next("m", Features::NONE), Some("first"));
    }

    #[test]
    fn whose_turn_is_next_can_be_seen() {
        let mut room = WaitingRoom::new(10);
        let tickets: Vec<Ticket> = [(0, "x"), (0, "y"), (1, "y")]
            .map(|(priority, tenant)| room.ticket("m", priority, Some(tenant.to_owned())))
            .into();
        for (n, ticket) in tickets.iter().enumerate() {
            room.enter(ticket, n).unwrap();
        }
        for first in [2, 0, 1] {
            let next: Vec<bool> = tickets.iter().map(|ticket| room.is_next(ticket)).collect();
            assert!(next[first], "{next:?}");
            assert_eq!(next.iter().filter(|next| **next).count(), 1);
            assert_eq!(room.next("m", Features::NONE), Some(first));
        }
    }

    #[test]
    fn models_do_not_wait_for_each_other() {
        let mut room = WaitingRoom::new(10);
        let (a, b) = (room.ticket("a", 0, None), room.ticket("b", 9, None));
        room.enter(&a, "a").unwrap();
        room.enter(&b, "b").unwrap();
        assert_eq!((room.waiting("a"), room.waiting("b"), room.waiting("c")), (1, 1, 0));
        assert_eq!(room.next("a", Features::NONE), Some("a"));
    }

    #[test]
    fn requests_that_need_more_have_a_line_of_their_own() {
        let tools = Features::from(tokenbus_protocol::Feature::Tools);
        let mut room = WaitingRoom::new(10);
        let plain = room.ticket("m", 0, None);
        let picky = Ticket {
            line: tools,
            ..room.ticket("m", 9, None)
        };
        room.enter(&picky, "picky").unwrap();
        room.enter(&plain, "plain").unwrap();
        assert_eq!((room.waiting("m"), room.waiting_in("m", tools)), (2, 1));
        assert_eq!(room.lines("m").count(), 2);
        assert_eq!(room.next("m", Features::NONE), Some("plain"));
        assert_eq!(room.next("m", Features::NONE), None);
        room.leave(&picky);
        assert_eq!((room.len(), room.models().count()), (0, 0));
    }

    #[test]
    fn retry_after_is_the_time_that_the_queue_takes() {
        let start = Instant::now();
        let mut rate = DrainRate::default();
        assert_eq!(
            rate.retry_after(3, start),
            Duration::from_secs(10),
            "nothing has ended yet"
        );
        for tenth in 0..200 {
            rate.ended(start + Duration::from_millis(tenth * 100));
        }
        let now = start + Duration::from_secs_f64(19.9);
        assert_eq!(rate.retry_after(49, now), Duration::from_secs(5), "10 a second");
        assert_eq!(rate.retry_after(0, now), Duration::from_secs(1));
        assert_eq!(rate.retry_after(1_000_000, now), Duration::from_secs(60));
        assert_eq!(
            rate.retry_after(0, now + Duration::from_secs(100)),
            Duration::from_secs(10),
            "long ago"
        );
    }
}
