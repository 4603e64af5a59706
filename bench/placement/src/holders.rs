//! Which workers hold which segments: one number of 128 bits for each segment.

use rustc_hash::FxHashMap;

use crate::cache::Change;
use crate::prompt::Segment;

/// Most workers of a simulated cluster.
pub const WORKERS: usize = 128;

/// A set of workers.
pub type Set = u128;

/// The holders of all segments.
#[derive(Debug, Default)]
pub struct Holders(FxHashMap<u64, Set>);

impl Holders {
    /// A worker's cache has changed.
    pub fn apply(&mut self, worker: usize, changes: &[Change]) {
        for change in changes {
            if change.came {
                *self.0.entry(change.id).or_default() |= 1 << worker;
            } else if let Some(set) = self.0.get_mut(&change.id) {
                *set &= !(1 << worker);
                if *set == 0 {
                    self.0.remove(&change.id);
                }
            }
        }
    }

    /// A worker holds nothing any more.
    pub fn forget(&mut self, worker: usize) {
        self.0.retain(|_, set| {
            *set &= !(1 << worker);
            *set != 0
        });
    }

    /// Workers that hold a part of the first segment.
    pub fn of_first(&self, prompt: &[Segment]) -> Set {
        prompt
            .first()
            .and_then(|segment| self.0.get(&segment.id))
            .copied()
            .unwrap_or(0)
    }

    /// Calls `each` for each worker that holds a beginning of `prompt`, with the number of segments of which it holds
    /// at least a part.
    pub fn depths(&self, prompt: &[Segment], mut each: impl FnMut(usize, usize)) {
        let mut still: Set = Set::MAX;
        for (depth, segment) in prompt.iter().enumerate() {
            let set = self.0.get(&segment.id).copied().unwrap_or(0) & still;
            if depth > 0 {
                members(still & !set, |worker| each(worker, depth));
            }
            still = set;
            if still == 0 {
                return;
            }
        }
        members(still, |worker| each(worker, prompt.len()));
    }
}

/// Calls `each` for each member of the set, from the lowest up.
pub fn members(mut set: Set, mut each: impl FnMut(usize)) {
    while set != 0 {
        each(set.trailing_zeros() as usize);
        set &= set - 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depths_are_those_of_a_common_beginning() {
        let segment = |id| Segment {
            id,
            tokens: 16,
            opens_message: true,
        };
        let came = |id| Change { id, came: true };
        let mut holders = Holders::default();
        holders.apply(0, &[came(1), came(2), came(3)]);
        holders.apply(5, &[came(1), came(3)]);
        holders.apply(9, &[came(2)]);
        let depths = |holders: &Holders| {
            let mut found = Vec::new();
            holders.depths(&[segment(1), segment(2), segment(3)], |worker, depth| {
                found.push((worker, depth));
            });
            found
        };
        assert_eq!(depths(&holders), [(5, 1), (0, 3)]);
        holders.forget(0);
        assert_eq!(depths(&holders), [(5, 1)]);
    }
}
