//! What a worker tells of the cuts it holds: one change after the other, 5 bytes each.
//!
//! Gateways know a cut by 32 bits of its hash and its length class. Two cuts are taken for one now and then, which costs
//! a request one wrong guess.

use crate::chain::Cut;

/// Bytes of a change on the wire.
pub const CHANGE_BYTES: usize = 5;

/// The bit of the class byte that says that the cut is gone.
const GONE: u8 = 0x80;

/// A cut as gateways know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShortCut {
    /// The upper half of its hash.
    pub hash: u32,
    /// Its length class: four for each doubling of its tokens.
    pub class: u8,
}

impl From<Cut> for ShortCut {
    fn from(cut: Cut) -> Self {
        Self::new(cut.hash, class(cut.tokens))
    }
}

impl ShortCut {
    /// The short form of a hash with this length class.
    pub(crate) fn new(hash: u64, class: u8) -> Self {
        #[allow(clippy::cast_possible_truncation, reason = "the upper half fits")]
        let hash = (hash >> 32) as u32;
        Self { hash, class }
    }

    /// The cut as one number.
    pub(crate) fn key(self) -> u64 {
        u64::from(self.class) << 32 | u64::from(self.hash)
    }
}

/// The length class of a prefix: 0 to 127, four for each doubling.
fn class(tokens: u32) -> u8 {
    let position = u64::from(tokens) + 1;
    let doubling = position.ilog2();
    let quarter = (position << 2 >> doubling) & 3;
    u8::try_from(u64::from(doubling) * 4 + quarter).map_or(127, |class| class.min(127))
}

/// A cut that a worker holds now, or no longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// The cut.
    pub cut: ShortCut,
    /// It is gone.
    pub gone: bool,
}

impl Change {
    /// The change as it travels.
    pub fn to_bytes(self) -> [u8; CHANGE_BYTES] {
        let [a, b, c, d] = self.cut.hash.to_le_bytes();
        [a, b, c, d, self.cut.class | if self.gone { GONE } else { 0 }]
    }
}

/// The changes in `bytes`; an incomplete last one is left out.
pub fn changes(bytes: &[u8]) -> impl ExactSizeIterator<Item = Change> + '_ {
    bytes
        .as_chunks::<CHANGE_BYTES>()
        .0
        .iter()
        .map(|[a, b, c, d, class]| Change {
            cut: ShortCut {
                hash: u32::from_le_bytes([*a, *b, *c, *d]),
                class: class & !GONE,
            },
            gone: class & GONE != 0,
        })
}

/// Changes in a row.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct News {
    /// A number that changes when the worker has forgotten everything.
    pub epoch: u64,
    /// The number of changes of this epoch before these; with `full`, those that the cuts sum up.
    pub from: u64,
    /// These are not changes but all cuts that are held.
    pub full: bool,
    /// The changes, [`CHANGE_BYTES`] each.
    pub changes: Vec<u8>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_grow_with_the_length_and_fit() {
        let classes: Vec<u8> = [0, 1, 2, 3, 4, 5, 6, 7, 8, 100, 128, 1000, 100_000, u32::MAX]
            .map(class)
            .to_vec();
        assert!(classes.is_sorted(), "{classes:?}");
        assert_eq!(class(0), 0);
        assert_eq!(class(1023), 40);
        assert_eq!(class(1279), 41);
        assert_eq!(class(u32::MAX), 127);
    }

    #[test]
    fn changes_travel_unchanged() {
        let cut = ShortCut {
            hash: 0x0102_0304,
            class: 127,
        };
        let all = [Change { cut, gone: false }, Change { cut, gone: true }];
        let bytes = all.map(Change::to_bytes).concat();
        assert_eq!(bytes.len(), 10);
        assert!(changes(&bytes).eq(all));
        assert_eq!(changes(&[0; 9]).len(), 1);
    }
}
