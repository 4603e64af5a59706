//! Whether clients leave the waiting room faster than it empties, and how long they wait before.
//!
//! A line that is longer than its clients wait serves nobody: whoever has its turn is about to leave, and what is
//! generated for it is not read. Such a line is full, however many places the room has.
//!
//! One client that leaves says nothing. Only when more have left of late than had an answer, the line is kept as short as
//! they wait. From then on few leave, so those that are refused show that the crowd is still there, and the measured
//! time grows until clients leave again or nobody has to be refused.
//!
//! A refusal helps only if its client stays away for a while. One that asks again at once would keep the gateway busy with
//! nothing else. So as many are refused at once as clients have left and had an answer, and of the others one in five;
//! the rest hear of it later.

use std::time::Duration;

use tokio::time::Instant;

use crate::limits::{LEAVERS, LEAVERS_COUNT, PATIENCE_DOUBLES, PATIENCE_KNOWN};

/// How the clients that wait for one model behave. All counts fade.
#[derive(Debug, Default)]
pub(super) struct Crowd {
    /// The time up to which the counts have faded.
    at: Option<Instant>,
    /// Clients that left.
    left: f64,
    /// Seconds that they waited together.
    waited: f64,
    /// Requests that were refused because of those.
    refused: f64,
    /// Requests that were answered.
    answered: f64,
    /// Requests that may be refused at once.
    credit: f64,
    /// When the last client left, and when the last one left or was refused.
    left_at: Option<Instant>,
    gone_at: Option<Instant>,
}

impl Crowd {
    /// A client has left without an answer, after so long.
    pub(super) fn left(&mut self, waited: Duration, now: Instant) {
        self.fade(now);
        self.left += 1.0;
        self.waited += waited.as_secs_f64();
        self.credit += 1.0;
        (self.left_at, self.gone_at) = (Some(now), Some(now));
    }

    /// A request was answered.
    pub(super) fn answered(&mut self, now: Instant) {
        self.fade(now);
        self.answered += 1.0;
        // Its client asks again, and another one comes back as it was told.
        self.credit += 2.0;
    }

    /// A request is refused because clients do not wait so long. Returns whether it may hear so at once.
    pub(super) fn refuse(&mut self, now: Instant) -> bool {
        self.fade(now);
        self.refused += 1.0;
        self.gone_at = Some(now);
        let at_once = self.credit >= 1.0;
        // Who hears nothing cannot obey: now and then one is told all the same.
        self.credit += if at_once { -1.0 } else { 0.25 };
        at_once
    }

    /// How long clients wait, if more of them leave, or would, than have an answer.
    pub(super) fn patience(&mut self, now: Instant) -> Option<Duration> {
        self.fade(now);
        // However large it was, it is not there any more.
        if self.gone_at.is_none_or(|at| now >= at + PATIENCE_KNOWN) {
            *self = Self::default();
            return None;
        }
        let gone = self.left + self.refused;
        if gone < LEAVERS || gone <= self.answered || self.left <= 0.0 {
            return None;
        }
        let quiet = now.saturating_duration_since(self.left_at?).as_secs_f64();
        let grown = (quiet / PATIENCE_DOUBLES.as_secs_f64()).exp2();
        Duration::try_from_secs_f64(self.waited / self.left * grown).ok()
    }

    fn fade(&mut self, now: Instant) {
        let passed = self.at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        if !passed.is_zero() {
            let keep = (-passed.as_secs_f64() / LEAVERS_COUNT.as_secs_f64()).exp();
            let refused = [&mut self.refused, &mut self.credit];
            let others = [&mut self.left, &mut self.waited, &mut self.answered];
            for count in refused.into_iter().chain(others) {
                *count *= keep;
            }
        }
        self.at = Some(self.at.map_or(now, |at| at.max(now)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(start: Instant, seconds: f64) -> Instant {
        start + Duration::from_secs_f64(seconds)
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_few_who_leave_are_no_crowd() {
        let (mut crowd, start) = (Crowd::default(), Instant::now());
        for step in 0..200 {
            let now = after(start, f64::from(step) * 0.1);
            crowd.answered(now);
            // Half as many leave as have an answer.
            if step % 2 == 0 {
                crowd.left(SECOND, now);
            }
            assert_eq!(crowd.patience(now), None);
        }
    }

    #[test]
    fn a_crowd_is_known_by_its_patience_as_long_as_it_is_there() {
        let (mut crowd, start) = (Crowd::default(), Instant::now());
        for step in 0..40 {
            crowd.left(SECOND, after(start, f64::from(step) * 0.01));
        }
        let now = after(start, 0.4);
        let known = crowd.patience(now).map(|patience| patience.as_secs_f64());
        assert!(known.is_some_and(|known| (0.9..1.1).contains(&known)), "{known:?}");
        // Nobody leaves any more, because those that would are refused.
        for step in 0..100 {
            let now = after(start, 0.4 + f64::from(step) * 0.1);
            crowd.answered(now);
            assert!(crowd.refuse(now) && crowd.refuse(now));
        }
        let now = after(start, 10.4);
        let grown = crowd.patience(now).map(|patience| patience.as_secs_f64());
        assert!(grown.is_some_and(|grown| (1.5..2.5).contains(&grown)), "{grown:?}");
        // It has gone.
        for step in 0..50 {
            crowd.answered(after(now, f64::from(step) * 0.1));
        }
        assert_eq!(crowd.patience(after(now, 5.0)), None);
    }

    #[test]
    fn what_was_long_ago_is_forgotten() {
        let (mut crowd, start) = (Crowd::default(), Instant::now());
        for _ in 0..1000 {
            crowd.left(SECOND, start);
        }
        assert_eq!(crowd.patience(after(start, 3600.0)), None);
        crowd.left(SECOND, after(start, 3600.0));
        assert_eq!(crowd.patience(after(start, 3600.0)), None);
    }
}
