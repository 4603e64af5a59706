//! The keys that seal carried reasoning, as the gateways share them. Pure.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use tokenbus_api::SealKey;

use super::limits::SEAL_KEYS;

/// Bytes of a key.
pub(super) const SECRET: usize = 32;

/// The keys, the one that seals first. Older ones open what they have sealed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct SealRing {
    keys: Vec<KeyEntry>,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct KeyEntry {
    /// Base64.
    secret: String,
    /// When it was made, in seconds of Unix time.
    made: u64,
}

impl fmt::Debug for KeyEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a key made at {}", self.made)
    }
}

impl SealRing {
    /// Whether there is no key, or the one that seals was made more than `age` seconds before `now`; with 0, it serves
    /// for ever.
    pub(super) fn is_due(&self, now: u64, age: u64) -> bool {
        let current = self.keys.first();
        current.is_none_or(|key| age > 0 && now.saturating_sub(key.made) >= age)
    }

    /// Puts a new key first.
    pub(super) fn renew(&mut self, secret: [u8; SECRET], now: u64) {
        let secret = STANDARD.encode(secret);
        self.keys.insert(0, KeyEntry { secret, made: now });
        self.keys.truncate(SEAL_KEYS);
    }

    /// Adds, behind its own, the keys of `others` that it lacks: they are known from before the ring was lost.
    pub(super) fn join(&mut self, others: &Self) {
        for key in &others.keys {
            if !self.keys.iter().any(|own| own.secret == key.secret) && self.keys.len() < SEAL_KEYS {
                self.keys.push(key.clone());
            }
        }
    }

    /// The keys; one that cannot be read is left out.
    pub(super) fn keys(&self) -> Vec<SealKey> {
        let secrets = self.keys.iter().filter_map(|key| {
            let bytes = STANDARD.decode(&key.secret).ok()?;
            <[u8; SECRET]>::try_from(bytes).ok()
        });
        secrets.map(|secret| SealKey::new(&secret)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(secrets: impl IntoIterator<Item = u8>) -> SealRing {
        let mut ring = SealRing::default();
        for secret in secrets {
            ring.renew([secret; SECRET], u64::from(secret));
        }
        ring
    }

    fn ids(ring: &SealRing) -> Vec<tokenbus_api::SealKeyId> {
        ring.keys().iter().map(SealKey::id).collect()
    }

    #[test]
    fn a_key_gets_a_successor_at_its_age_and_opens_what_it_sealed() {
        assert!(SealRing::default().is_due(0, 0), "there is none");
        let mut one = ring([10]);
        assert!(!one.is_due(19, 10) && one.is_due(20, 10));
        assert!(!one.is_due(u64::MAX, 0), "an age of 0 is for ever");
        assert!(!one.is_due(0, 10), "a clock may go wrong");
        let before = ids(&one);
        one.renew([20; SECRET], 20);
        assert!(!one.is_due(20, 10));
        assert_eq!(ids(&one).last(), before.first());
        assert_eq!(ids(&ring(0..100)).len(), SEAL_KEYS);
    }

    #[test]
    fn keys_that_only_one_gateway_still_knows_are_added_behind_the_others() {
        let mut wiped = ring([5]);
        wiped.join(&ring([1, 2]));
        assert_eq!(ids(&wiped), ids(&ring([1, 2, 5])));
        let same = wiped.clone();
        wiped.join(&ring([2]));
        assert_eq!(wiped, same);
        wiped.join(&ring(100..200));
        assert_eq!(ids(&wiped).len(), SEAL_KEYS, "but not for ever");
        assert_eq!(ids(&wiped).first(), ids(&ring([5])).first());
        assert!(!format!("{wiped:?}").contains("BQUF"), "secrets are not shown");
    }
}
