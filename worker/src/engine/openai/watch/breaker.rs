//! A circuit breaker: a server that fails and fails is left alone for a while, then tried once.
//!
//! A connection that fails or a time-out speaks against the server. An answer with an error of its own (500) may be the
//! request's fault, and many of them one client's. So these only make the server suspect: it is asked something small,
//! and its answer decides.

use std::time::{Duration, Instant};

use super::question::{Topic, Verdict};
use crate::engine::openai::limits::{BREAKER_FAILURES, BREAKER_FIRST, BREAKER_LONGEST};

/// How the circuit stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Circuit {
    /// Requests flow.
    Closed,
    /// None flow until then.
    Open(Instant),
    /// One may try; its outcome decides.
    HalfOpen,
}

/// Whether a request may flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    /// It may.
    Flows,
    /// It may, and its outcome decides whether others may.
    Trial,
    /// It may not.
    Refused,
}

/// Decides from outcomes whether requests flow.
#[derive(Debug)]
pub(crate) struct Breaker {
    failures: u32,
    /// Hashes of the requests that the server answered with errors of its own since its last success.
    failed: Vec<u64>,
    /// What the server is to be asked, because it did so often.
    suspect: Option<Topic>,
    open_until: Option<Instant>,
    pause: Duration,
    trial: bool,
}

impl Breaker {
    pub(crate) fn new() -> Self {
        Self {
            failures: 0,
            failed: Vec::new(),
            suspect: None,
            open_until: None,
            pause: BREAKER_FIRST,
            trial: false,
        }
    }

    /// How the circuit stands at `now`.
    pub(crate) fn circuit(&self, now: Instant) -> Circuit {
        match self.open_until {
            None => Circuit::Closed,
            Some(until) if now < until => Circuit::Open(until),
            Some(_) => Circuit::HalfOpen,
        }
    }

    /// Whether one more request may flow at `now`. Half open, the first that asks is the trial;
    /// tell its outcome with [`Self::success`], [`Self::failure`], [`Self::failed_on`] or [`Self::abandoned`].
    pub(crate) fn admit(&mut self, now: Instant) -> Admission {
        match self.circuit(now) {
            Circuit::Closed => Admission::Flows,
            Circuit::HalfOpen if !self.trial => {
                self.trial = true;
                Admission::Trial
            }
            Circuit::Open(_) | Circuit::HalfOpen => Admission::Refused,
        }
    }

    /// The server answered as a healthy one does. True when that closed the circuit.
    pub(crate) fn success(&mut self) -> bool {
        let was_open = self.open_until.is_some();
        *self = Self::new();
        was_open
    }

    /// The server failed at `now`. True when that opened the circuit.
    pub(crate) fn failure(&mut self, now: Instant) -> bool {
        self.failures = self.failures.saturating_add(1);
        match self.circuit(now) {
            // Requests sent before it opened; they say nothing new.
            Circuit::Open(_) => false,
            Circuit::HalfOpen => {
                self.pause = (self.pause * 2).min(BREAKER_LONGEST);
                self.open(now)
            }
            Circuit::Closed if self.failures >= BREAKER_FAILURES => self.open(now),
            Circuit::Closed => false,
        }
    }

    /// The server answered this request, by its hash, with an error of its own (500). It counts once, however often it
    /// comes back. True when the server became suspect.
    pub(crate) fn failed_on(&mut self, request: u64, topic: Topic, now: Instant) -> bool {
        match self.circuit(now) {
            Circuit::Open(_) => return false,
            Circuit::HalfOpen => {}
            Circuit::Closed => {
                if !self.failed.contains(&request) {
                    self.failed.push(request);
                }
                if self.failed.len() < BREAKER_FAILURES as usize {
                    return false;
                }
            }
        }
        self.failed.clear();
        self.suspect.replace(topic).is_none()
    }

    /// What the server is to be asked, if it is suspect.
    pub(crate) fn suspect(&self) -> Option<&Topic> {
        self.suspect.as_ref()
    }

    /// The suspect server was asked. True when that opened or closed the circuit. If it has answered a request in the
    /// meantime, it is no longer suspect.
    pub(crate) fn asked(&mut self, verdict: Verdict, now: Instant) -> bool {
        if self.suspect.take().is_none() {
            return false;
        }
        match verdict {
            Verdict::Works => self.success(),
            Verdict::Fails => {
                self.failures = self.failures.max(BREAKER_FAILURES - 1);
                self.failure(now)
            }
            Verdict::Silent => {
                self.abandoned();
                false
            }
        }
    }

    /// The trial ended without proving anything: it was cancelled.
    pub(crate) fn abandoned(&mut self) {
        self.trial = false;
    }

    fn open(&mut self, now: Instant) -> bool {
        self.open_until = Some(now + self.pause);
        self.trial = false;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(start: Instant) -> Breaker {
        let mut breaker = Breaker::new();
        for _ in 0..BREAKER_FAILURES {
            assert_eq!(breaker.admit(start), Admission::Flows);
            breaker.failure(start);
        }
        breaker
    }

    fn topic() -> Topic {
        Topic {
            kind: tokenbus_protocol::RequestKind::Chat,
            upstream: "m".to_owned(),
        }
    }

    /// Different requests are answered with errors of the server's own, until it is suspect.
    fn suspected(breaker: &mut Breaker, now: Instant) {
        for request in 1..u64::from(BREAKER_FAILURES) {
            assert!(!breaker.failed_on(request, topic(), now));
        }
        assert!(
            breaker.failed_on(99, topic(), now),
            "many different ones raise a suspicion"
        );
        assert_eq!(breaker.suspect(), Some(&topic()));
    }

    #[test]
    fn one_request_that_fails_again_and_again_says_nothing() {
        let start = Instant::now();
        let mut breaker = Breaker::new();
        for _ in 0..10 {
            for request in 1..u64::from(BREAKER_FAILURES) {
                assert!(!breaker.failed_on(request, topic(), start));
            }
        }
        assert_eq!((breaker.suspect(), breaker.circuit(start)), (None, Circuit::Closed));
    }

    #[test]
    fn many_requests_that_fail_do_not_open_it_if_the_server_answers_another() {
        let start = Instant::now();
        let mut breaker = Breaker::new();
        for verdict in [Verdict::Works, Verdict::Silent] {
            for _ in 0..10 {
                suspected(&mut breaker, start);
                assert_eq!(
                    breaker.circuit(start),
                    Circuit::Closed,
                    "it flows until the server was asked"
                );
                assert!(!breaker.asked(verdict, start));
                assert_eq!((breaker.suspect(), breaker.circuit(start)), (None, Circuit::Closed));
            }
        }
        // Somebody's request succeeded while it was asked.
        suspected(&mut breaker, start);
        breaker.success();
        assert!(!breaker.asked(Verdict::Fails, start));
        assert_eq!(breaker.circuit(start), Circuit::Closed);
    }

    #[test]
    fn a_server_that_fails_when_it_is_asked_is_left_alone() {
        let start = Instant::now();
        let mut breaker = Breaker::new();
        suspected(&mut breaker, start);
        assert!(breaker.asked(Verdict::Fails, start));
        assert_eq!(breaker.circuit(start), Circuit::Open(start + BREAKER_FIRST));
        assert!(!breaker.failed_on(5, topic(), start), "sent before it opened");
        // The trial fails too: again the server's own answer decides, and nothing flows until then.
        let mut later = start + BREAKER_FIRST;
        for works in [false, true] {
            assert_eq!(breaker.admit(later), Admission::Trial);
            assert!(breaker.failed_on(99, topic(), later));
            assert_eq!(breaker.admit(later), Admission::Refused);
            let verdict = if works { Verdict::Works } else { Verdict::Fails };
            assert!(breaker.asked(verdict, later));
            assert_eq!(breaker.circuit(later) == Circuit::Closed, works);
            later += 2 * BREAKER_FIRST;
        }
    }

    #[test]
    fn failures_in_a_row_open_it() {
        let start = Instant::now();
        let mut breaker = Breaker::new();
        for count in 1..=BREAKER_FAILURES {
            assert_eq!(breaker.failure(start), count == BREAKER_FAILURES);
        }
        assert_eq!(breaker.circuit(start), Circuit::Open(start + BREAKER_FIRST));
        assert_eq!(breaker.admit(start), Admission::Refused);
        assert!(!breaker.failure(start), "late failures do not prolong it");
        assert_eq!(breaker.circuit(start), Circuit::Open(start + BREAKER_FIRST));
    }

    #[test]
    fn a_success_between_failures_keeps_it_closed() {
        let start = Instant::now();
        let mut breaker = Breaker::new();
        for _ in 0..100 {
            for _ in 1..BREAKER_FAILURES {
                assert!(!breaker.failure(start));
            }
            assert!(!breaker.success());
        }
        assert_eq!(breaker.admit(start), Admission::Flows);
    }

    #[test]
    fn half_open_lets_exactly_one_try() {
        let start = Instant::now();
        let mut breaker = opened(start);
        let later = start + BREAKER_FIRST;
        assert_eq!(breaker.circuit(later), Circuit::HalfOpen);
        assert_eq!(breaker.admit(later), Admission::Trial);
        assert_eq!(breaker.admit(later), Admission::Refused);
        assert!(breaker.success());
        assert_eq!(breaker.circuit(later), Circuit::Closed);
        assert_eq!(breaker.admit(later), Admission::Flows);
        assert_eq!(breaker.admit(later), Admission::Flows);
    }

    #[test]
    fn a_failed_trial_doubles_the_pause_up_to_the_longest() {
        let mut now = Instant::now();
        let mut breaker = opened(now);
        let mut pause = BREAKER_FIRST;
        for _ in 0..10 {
            now += pause;
            assert_eq!(breaker.admit(now), Admission::Trial);
            assert!(breaker.failure(now));
            pause = (pause * 2).min(BREAKER_LONGEST);
            assert_eq!(breaker.circuit(now), Circuit::Open(now + pause));
        }
        assert_eq!(pause, BREAKER_LONGEST);
    }

    #[test]
    fn a_cancelled_trial_lets_the_next_one_try() {
        let start = Instant::now();
        let mut breaker = opened(start);
        let later = start + BREAKER_FIRST;
        assert_eq!(breaker.admit(later), Admission::Trial);
        breaker.abandoned();
        assert_eq!(breaker.admit(later), Admission::Trial);
    }
}
