//! A bounded memory of what was seen lately: the oldest entry gives way to a new one.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// Remembers the last `capacity` keys with a value each.
#[derive(Debug)]
pub(crate) struct Seen<K, V> {
    entries: HashMap<K, V>,
    order: VecDeque<K>,
    capacity: usize,
}

impl<K: Hash + Eq + Copy, V> Seen<K, V> {
    /// An empty memory for `capacity` keys, at least one.
    pub(crate) fn new(capacity: usize) -> Self {
        let capacity = capacity.max(1);
        Self {
            // Twice the room: where each new entry replaces an old one, a table that is more than half full
            // grows one day, and takes a step in memory and time.
            entries: HashMap::with_capacity(capacity.saturating_mul(2)),
            order: VecDeque::with_capacity(capacity),
            capacity,
        }
    }

    /// What is remembered of `key`.
    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        self.entries.get(key)
    }

    /// Remembers `value` for `key`. A known key gets the value that `merge` makes of both and
    /// keeps its age.
    pub(crate) fn put(&mut self, key: K, value: V, merge: impl FnOnce(&mut V, V)) {
        if let Some(old) = self.entries.get_mut(&key) {
            merge(old, value);
            return;
        }
        if self.order.len() >= self.capacity
            && let Some(oldest) = self.order.pop_front()
        {
            self.entries.remove(&oldest);
        }
        self.order.push_back(key);
        self.entries.insert(key, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_gives_way() {
        let mut seen = Seen::new(3);
        for key in 0..5 {
            seen.put(key, key * 10, |_, _| {});
        }
        assert_eq!(seen.get(&0), None);
        assert_eq!(seen.get(&1), None);
        assert_eq!((seen.get(&2), seen.get(&4)), (Some(&20), Some(&40)));
        assert_eq!((seen.entries.len(), seen.order.len()), (3, 3));
    }

    #[test]
    fn the_room_is_taken_once() {
        let mut seen = Seen::new(1000);
        let room = seen.entries.capacity();
        for key in 0..100_000 {
            seen.put(key, (), |(), ()| {});
        }
        assert!(seen.entries.capacity() <= room && seen.order.capacity() == 1000);
    }

    #[test]
    fn a_known_key_is_merged_and_takes_no_second_place() {
        let mut seen = Seen::new(2);
        seen.put('a', 1, |_, _| {});
        seen.put('a', 5, |old, new| *old = (*old).max(new));
        seen.put('a', 3, |old, new| *old = (*old).max(new));
        seen.put('b', 0, |_, _| {});
        assert_eq!((seen.get(&'a'), seen.order.len()), (Some(&5), 2));
    }
}
