//! Counts a stream's losses, up to the bound that ends it.

use crate::limits::{MAX_DEATHS, MAX_OWN_ERRORS, MAX_RUNS};

/// Why a run ended before its answer did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Blame {
    /// The worker died, hangs, or gave the request back.
    Worker,
    /// The engine failed, perhaps because of the request.
    Engine,
    /// The engine answered with an error of its own (500), most likely because of the request.
    OwnError,
    /// The engine died soon after it got the request, and without output.
    Death,
    /// The bus was away, or the worker drained.
    Nobody,
}

/// The losses of one stream. A long answer meets many faults and keeps its progress. So only losses in a row without
/// progress are bounded, and failures for which the request itself may be to blame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Losses {
    /// Runs lost since the answer last grew.
    in_vain: u32,
    /// Runs whose engine failed; progress does not make up for them.
    failures: u32,
    /// Failed runs whose engine answered with an error of its own.
    own_errors: u32,
    /// Failed runs whose engine died of the request, it seems.
    deaths: u32,
    /// The answer was begun anew, so growth is no progress.
    anew: bool,
}

impl Losses {
    /// The answer grew.
    pub(super) fn progress(&mut self) {
        if !self.anew {
            self.in_vain = 0;
        }
    }

    /// A run was lost.
    pub(super) fn lost(&mut self, blame: Blame) {
        match blame {
            Blame::Worker => self.in_vain += 1,
            Blame::Engine => self.failures += 1,
            Blame::OwnError => {
                self.failures += 1;
                self.own_errors += 1;
            }
            Blame::Death => {
                self.failures += 1;
                self.deaths += 1;
            }
            Blame::Nobody => {}
        }
    }

    /// The answer begins anew.
    pub(super) fn begun_anew(&mut self) {
        self.anew = true;
    }

    /// Whether engines die of the request.
    pub(super) fn is_deadly(self) -> bool {
        self.deaths >= MAX_DEATHS
    }

    /// Whether the stream must end.
    pub(super) fn too_many(self) -> bool {
        self.is_deadly() || self.own_errors >= MAX_OWN_ERRORS || self.in_vain + self.failures >= MAX_RUNS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(blames: &[Option<Blame>]) -> bool {
        let mut losses = Losses::default();
        for blame in blames {
            match blame {
                Some(blame) => losses.lost(*blame),
                None => losses.progress(),
            }
        }
        losses.too_many()
    }

    #[test]
    fn losses_without_progress_are_bounded() {
        let lost = Some(Blame::Worker);
        assert!(!after(&[lost, lost]));
        assert!(after(&[lost, lost, lost]));
        assert!(!after(&[lost, lost, None, lost, lost, None, lost, lost]));
    }

    #[test]
    fn progress_does_not_make_up_for_an_engine_that_fails() {
        let failed = Some(Blame::Engine);
        assert!(after(&[failed, None, failed, None, failed]));
        assert!(!after(&[failed, Some(Blame::Worker), None, failed]));
    }

    #[test]
    fn fewer_deaths_end_it_than_losses() {
        let died = Some(Blame::Death);
        assert!(!after(&[died]) && !after(&[died, Some(Blame::Engine)]));
        assert!(after(&[died, None, died]));
    }

    #[test]
    fn an_error_of_an_engines_own_is_tried_elsewhere_once() {
        let own = Some(Blame::OwnError);
        assert!(!after(&[own]) && !after(&[Some(Blame::Worker), own]));
        assert!(after(&[own, None, own]));
    }

    #[test]
    fn a_bus_that_is_away_costs_nothing() {
        assert!(!after(&[Some(Blame::Nobody); 100]));
    }

    #[test]
    fn answers_are_not_begun_anew_for_ever() {
        let mut losses = Losses::default();
        for _ in 0..MAX_RUNS {
            assert!(!losses.too_many());
            losses.lost(Blame::Worker);
            losses.begun_anew();
            losses.progress();
        }
        assert!(losses.too_many());
    }
}
