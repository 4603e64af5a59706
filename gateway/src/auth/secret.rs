//! How API keys are generated, and the hash that is stored of one.
//!
//! A key has 256 random bits, so a plain SHA-256 is as safe at rest as any slower hash. The time of a table lookup
//! reveals nothing, because whoever guesses keys cannot choose their hashes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest as _, Sha256};

/// Prefix of all keys, so that a misplaced one is recognized.
pub(crate) const PREFIX: &str = "tb-";

/// Characters after the prefix: 62^43 is a little more than 2^256.
const LENGTH: usize = 43;

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// The system gives no random numbers.
#[derive(Debug, thiserror::Error)]
#[error("the system has no random numbers: {0}")]
pub struct NoRandomness(#[from] getrandom::Error);

/// A key as its client has it. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Generates a new key.
    ///
    /// # Errors
    /// [`NoRandomness`].
    pub fn draw() -> Result<Self, NoRandomness> {
        let mut text = String::with_capacity(PREFIX.len() + LENGTH);
        text.push_str(PREFIX);
        let mut bytes = [0; 64];
        while text.len() < PREFIX.len() + LENGTH {
            getrandom::fill(&mut bytes)?;
            // 248 is four times 62. Larger bytes would make some letters likelier than others.
            let fair = bytes.iter().filter(|byte| **byte < 248);
            let letters = fair.filter_map(|byte| ALPHABET.get(usize::from(*byte % 62)));
            let missing = PREFIX.len() + LENGTH - text.len();
            text.extend(letters.take(missing).map(|letter| char::from(*letter)));
        }
        Ok(Self(text))
    }

    /// The key, to be shown once to whoever asked for it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// The SHA-256 of a key, written as `sha256:` and 64 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyHash([u8; 32]);

/// The text is not the hash of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a hash is sha256: followed by 64 hex digits")]
pub struct InvalidHash;

impl KeyHash {
    /// The hash of `secret`.
    pub fn of(secret: &[u8]) -> Self {
        Self(Sha256::digest(secret).into())
    }
}

impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, ..] = self.0;
        write!(f, "KeyHash({a:02x}{b:02x}{c:02x}…)")
    }
}

impl FromStr for KeyHash {
    type Err = InvalidHash;

    fn from_str(text: &str) -> Result<Self, InvalidHash> {
        let digits = text.strip_prefix("sha256:").ok_or(InvalidHash)?;
        if digits.len() != 64 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(InvalidHash);
        }
        let mut hash = [0; 32];
        for (at, byte) in hash.iter_mut().enumerate() {
            let pair = digits.get(2 * at..2 * at + 2).ok_or(InvalidHash)?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| InvalidHash)?;
        }
        Ok(Self(hash))
    }
}

impl Serialize for KeyHash {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for KeyHash {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_long_unlike_and_of_letters_and_digits() {
        let keys: std::collections::HashSet<String> =
            (0..200).map(|_| Secret::draw().unwrap().expose().to_owned()).collect();
        assert_eq!(keys.len(), 200);
        let mut seen = [0_u32; 128];
        for key in &keys {
            let random = key.strip_prefix(PREFIX).unwrap();
            assert_eq!(random.len(), LENGTH);
            assert!(random.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{key}");
            random.bytes().for_each(|byte| seen[usize::from(byte)] += 1);
        }
        // 8600 letters over 62: each is expected 139 times.
        for letter in ALPHABET {
            let times = seen[usize::from(*letter)];
            assert!((70..230).contains(&times), "{}: {times}", char::from(*letter));
        }
    }

    #[test]
    fn a_hash_is_what_sha256sum_says_and_comes_back() {
        let hash = KeyHash::of(b"abc");
        let text = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hash.to_string(), text);
        assert_eq!(text.parse::<KeyHash>().unwrap(), hash);
        assert_eq!(
            text.to_uppercase().replace("SHA256", "sha256").parse::<KeyHash>(),
            Ok(hash)
        );
        for bad in [
            "",
            "sha256:",
            &text[..70],
            &text[7..],
            &format!("{text}0"),
            &text.replace('b', "ü"),
        ] {
            assert_eq!(bad.parse::<KeyHash>(), Err(InvalidHash), "{bad}");
        }
    }

    #[test]
    fn neither_a_key_nor_a_whole_hash_is_shown_by_accident() {
        let secret = Secret::draw().unwrap();
        assert!(!format!("{secret:?}").contains(&secret.expose()[3..]));
        let hash = KeyHash::of(secret.expose().as_bytes());
        assert!(format!("{hash:?}").len() < 30);
    }
}
