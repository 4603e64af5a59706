//! A circuit breaker: a server that fails and fails is left alone for a while, then tried once.

use std::time::{Duration, Instant};

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
    /// Hashes of the requests that the server failed on since its last success.
    failed: Vec<u64>,
    open_until: Option<Instant>,
    pause: Duration,
    trial: bool,
}

impl Breaker {
    pub(crate) fn new() -> Self {
        Self {
            failures: 0,
            failed: Vec::new(),
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
    /// tell its outcome with [`Self::success`], [`Self::failure`] or [`Self::abandoned`].
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

    /// The server answered this request, by its hash, with an error of its own (500). The request itself may be the cause,
    /// so it counts once, however often it comes back. True when that opened the circuit.
    pub(crate) fn failed_on(&mut self, request: u64, now: Instant) -> bool {
        if self.failed.contains(&request) {
            self.abandoned();
            return false;
        }
        if self.failed.len() < BREAKER_FAILURES as usize {
            self.failed.push(request);
        }
        self.failure(now)
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

    #[test]
    fn one_request_that_fails_again_and_again_does_not_open_it() {
        let start = Instant::now();
        let mut breaker = Breaker::new();
        for _ in 0..10 {
            for request in 1..u64::from(BREAKER_FAILURES) {
                assert!(!breaker.failed_on(request, start));
            }
        }
        assert_eq!(breaker.circuit(start), Circuit::Closed);
        assert!(breaker.failed_on(99, start), "many different ones tell of the server");
        assert!(breaker.failure(start + BREAKER_FIRST), "the trial failed");
        breaker.success();
        assert!(!breaker.failed_on(1, start));
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
