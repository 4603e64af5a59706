//! Which keys hold: those in the bucket, and for a time those that vanished from it without being
//! revoked. Pure; a time is an argument.
//!
//! A key that is revoked leaves a mark in its bucket (a tombstone). A bucket that is empty without
//! such marks, or another one than before, was wiped: by accident, or with the server that kept it.
//! The keys of yesterday are then the better guess, but not for ever.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use tokio::time::Instant;

use super::super::key_table::KeyEntry;
use super::super::limits::KEYS_HOLD;

/// What is known of the keys of one bucket.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// Which bucket it was.
    mark: Option<i128>,
    known: BTreeMap<String, KeyEntry>,
    held: BTreeMap<String, Held>,
    /// All keys were lost, and none has come back.
    bereft: bool,
}

/// A key that vanished.
#[derive(Debug)]
struct Held {
    entry: KeyEntry,
    until: Instant,
}

impl Ledger {
    /// All of the bucket `mark` was read: `entries`, and keys that were `revoked`. Returns how many
    /// keys were lost with it.
    pub(super) fn read(
        &mut self,
        mark: i128,
        entries: BTreeMap<String, KeyEntry>,
        revoked: &BTreeSet<String>,
        now: Instant,
    ) -> usize {
        let another = self.mark.replace(mark).is_some_and(|before| before != mark);
        // What is missing from a bucket that has others was revoked while nobody looked, and its
        // mark was cleared away.
        let wiped = another || entries.is_empty();
        let before = std::mem::replace(&mut self.known, entries);
        let mut lost = 0;
        for (name, entry) in before {
            if wiped && !self.known.contains_key(&name) && !revoked.contains(&name) {
                let until = now + KEYS_HOLD;
                self.held.insert(name, Held { entry, until });
                lost += 1;
            }
        }
        let known = &self.known;
        self.held
            .retain(|name, _| !known.contains_key(name) && !revoked.contains(name));
        self.bereft &= self.known.is_empty();
        lost
    }

    /// Whether a key of this name counts.
    pub(super) fn has(&self, name: &str) -> bool {
        self.known.contains_key(name) || self.held.contains_key(name)
    }

    /// Keys that are in the bucket.
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    /// A key was made, or changed.
    pub(super) fn put(&mut self, name: &str, entry: KeyEntry) {
        self.held.remove(name);
        self.known.insert(name.to_owned(), entry);
        self.bereft = false;
    }

    /// A key was revoked.
    pub(super) fn revoke(&mut self, name: &str) {
        self.held.remove(name);
        self.known.remove(name);
    }

    /// Lets go of keys that were held for long enough; returns how many.
    pub(super) fn lapse(&mut self, now: Instant) -> usize {
        let before = self.held.len();
        self.held.retain(|_, held| now < held.until);
        let lapsed = before - self.held.len();
        self.bereft |= lapsed > 0 && self.held.is_empty() && self.known.is_empty();
        lapsed
    }

    /// How many keys are held, and until when the first of them.
    pub(super) fn held(&self) -> Option<(usize, Instant)> {
        let first = self.held.values().map(|held| held.until).min()?;
        Some((self.held.len(), first))
    }

    /// Whether all keys were lost and held for as long as they may, and none has come since: nobody
    /// can be told from a stranger.
    pub(super) fn is_bereft(&self) -> bool {
        self.bereft
    }

    /// The keys that hold. Where one that is held is in the bucket under another name, that counts.
    pub(super) fn entries(&self) -> BTreeMap<String, KeyEntry> {
        let mut entries = self.known.clone();
        if !self.held.is_empty() {
            let hashes: HashSet<_> = self.known.values().map(|entry| &entry.hash).collect();
            for (name, held) in &self.held {
                if !hashes.contains(&held.entry.hash) {
                    entries.insert(name.clone(), held.entry.clone());
                }
            }
        }
        entries
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use super::super::super::secret::KeyHash;
    use super::*;

    fn entries(names: &str) -> BTreeMap<String, KeyEntry> {
        let entry = |name: &str| (name.to_owned(), KeyEntry::new(KeyHash::of(name.as_bytes())));
        names.split_whitespace().map(entry).collect()
    }

    fn revoked(names: &str) -> BTreeSet<String> {
        names.split_whitespace().map(str::to_owned).collect()
    }

    fn holds(ledger: &Ledger) -> String {
        ledger.entries().into_keys().collect::<Vec<_>>().join(" ")
    }

    /// A ledger that has read a bucket with these keys.
    fn after(names: &str, now: Instant) -> Ledger {
        let mut ledger = Ledger::default();
        assert_eq!(ledger.read(1, entries(names), &revoked(""), now), 0);
        ledger
    }

    #[test]
    fn keys_of_a_wiped_bucket_hold_for_a_time() {
        let now = Instant::now();
        for mark in [1, 2] {
            let mut ledger = after("a b", now);
            assert_eq!(ledger.read(mark, entries(""), &revoked(""), now), 2);
            assert_eq!(holds(&ledger), "a b");
            assert_eq!(ledger.held(), Some((2, now + KEYS_HOLD)));
            // Found empty again, it is no news, and no longer time.
            let later = now + KEYS_HOLD / 2;
            assert_eq!(ledger.read(mark, entries(""), &revoked(""), later), 0);
            assert_eq!((ledger.lapse(later), ledger.is_bereft()), (0, false));
            assert_eq!((ledger.lapse(now + KEYS_HOLD), ledger.is_bereft()), (2, true));
            assert_eq!(holds(&ledger), "");
            ledger.put("c", entries("c")["c"].clone());
            assert_eq!((holds(&ledger).as_str(), ledger.is_bereft()), ("c", false));
        }
    }

    #[test]
    fn keys_that_are_revoked_are_not_lost() {
        let now = Instant::now();
        let mut ledger = after("a b", now);
        ledger.revoke("a");
        ledger.revoke("b");
        assert_eq!(
            (holds(&ledger).as_str(), ledger.held(), ledger.is_bereft()),
            ("", None, false)
        );
        // Revoked while nobody looked: the marks tell, or others are there still.
        let mut ledger = after("a b", now);
        assert_eq!(ledger.read(1, entries(""), &revoked("a b"), now), 0);
        let mut ledger = after("a b", now);
        assert_eq!(ledger.read(1, entries("b"), &revoked(""), now), 0);
        assert_eq!(holds(&ledger), "b");
    }

    #[test]
    fn a_bucket_that_is_filled_again_takes_over_key_by_key() {
        let now = Instant::now();
        let mut ledger = after("a b c d", now);
        assert_eq!(ledger.read(2, entries("a"), &revoked("b"), now), 2);
        assert_eq!(holds(&ledger), "a c d");
        ledger.put("e", entries("c")["c"].clone());
        assert_eq!(holds(&ledger), "a d e", "one secret, one name");
        ledger.revoke("d");
        assert_eq!(holds(&ledger), "a e");
        assert_eq!(ledger.lapse(now + KEYS_HOLD + Duration::from_secs(1)), 1);
        assert_eq!(
            (holds(&ledger).as_str(), ledger.is_bereft(), ledger.len()),
            ("a e", false, 2)
        );
        assert!(ledger.has("a") && !ledger.has("c"));
    }
}
