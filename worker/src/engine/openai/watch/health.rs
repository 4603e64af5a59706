//! Whether the server counts as up, decided from probes, failures and its process. Pure.

use std::time::{Duration, Instant};

use super::breaker::Circuit;
use super::probe::Finding;
use crate::engine::Health;
use crate::engine::openai::limits;
use crate::engine::openai::target::ServerKind;

/// What happened to the server's process, where there is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ProcessNews {
    /// It was started (again).
    Started,
    /// It is gone, and why.
    Gone(String),
}

/// Decides the health, and when to probe again.
#[derive(Debug)]
pub(crate) struct Tracker {
    health: Health,
    kind: ServerKind,
    /// Probes in a row without an answer.
    silent: u32,
    /// The pause before the next probe while the server is not up.
    pause: Duration,
    /// The process is gone: there is nothing to probe.
    gone: bool,
    /// A process of ours was started and has not been up in this life.
    starting: bool,
    discover_at: Instant,
    load_at: Instant,
}

impl Tracker {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            health: Health::Starting,
            kind: ServerKind::Unknown,
            silent: 0,
            pause: limits::PROBE_FIRST,
            gone: false,
            starting: false,
            discover_at: now,
            load_at: now,
        }
    }

    /// The health, with the circuit taken into account.
    pub(crate) fn health(&self, circuit: Circuit) -> Health {
        match (&self.health, circuit) {
            (Health::Ready, Circuit::Open(_)) => {
                Health::Down("its circuit is open: request after request failed".into())
            }
            (health, _) => health.clone(),
        }
    }

    /// Which probe is due at `now`: everything, or only whether it is up.
    pub(crate) fn wants_discovery(&self, now: Instant) -> bool {
        self.health != Health::Ready || now >= self.discover_at
    }

    /// Whether the load is to be asked for at `now`; if so, the next time is set.
    pub(crate) fn take_load_turn(&mut self, now: Instant) -> bool {
        let due = self.health == Health::Ready && now >= self.load_at;
        if due {
            self.load_at = now + limits::LOAD_INTERVAL;
        }
        due
    }

    /// Takes what a probe has found at `now`. `last_output` is when the server last sent a token.
    pub(crate) fn probed(&mut self, finding: &Finding, now: Instant, last_output: Option<Instant>) {
        if self.gone {
            // The answer of a process that is no more, or of a stranger on its port.
            return;
        }
        let was_up = self.health == Health::Ready;
        match finding {
            Finding::Healthy(discovery) => {
                self.silent = 0;
                if let Some(discovery) = discovery {
                    self.kind = discovery.kind;
                    self.discover_at = now + limits::REDISCOVER_INTERVAL;
                    self.health = Health::Ready;
                }
            }
            Finding::Loading => {
                self.silent = 0;
                self.health = Health::Starting;
            }
            Finding::Unwell(reason) | Finding::Refused(reason) => {
                self.silent = 0;
                // A server that we started ourselves does not listen at once.
                self.health = if self.health == Health::Starting {
                    Health::Starting
                } else {
                    Health::Down(reason.clone())
                };
            }
            Finding::Silent => {
                self.silent = self.silent.saturating_add(1);
                let lives = last_output.is_some_and(|at| now.saturating_duration_since(at) < limits::RECENT_OUTPUT);
                if self.health == Health::Ready && self.silent >= limits::SILENT_PROBES && !lives {
                    self.health = Health::Down("it does not answer".to_owned());
                }
            }
        }
        if self.health == Health::Ready {
            self.starting = false;
        }
        let longest = if self.starting {
            limits::PROBE_STARTING
        } else {
            limits::PROBE_INTERVAL
        };
        self.pause = if self.health == Health::Ready || was_up {
            limits::PROBE_FIRST
        } else {
            (self.pause * 2).min(longest)
        };
    }

    /// A request's connection failed: down until a probe says otherwise. True when it was up.
    pub(crate) fn connection_failed(&mut self) -> bool {
        let was_up = self.health == Health::Ready;
        if was_up {
            self.health = Health::Down("a connection to it failed".to_owned());
            self.pause = limits::PROBE_FIRST;
        }
        was_up
    }

    /// What was discovered may be no longer true: the next probe at or after `at` asks for it again.
    pub(crate) fn look_again(&mut self, at: Instant) {
        self.discover_at = self.discover_at.min(at);
    }

    /// The first probe of a server that nobody supervises has failed: it is not starting, it is away.
    pub(crate) fn give_up_start(&mut self, reason: &str) {
        if self.health == Health::Starting {
            self.health = Health::Down(reason.to_owned());
        }
    }

    /// News of the server's process.
    pub(crate) fn process(&mut self, news: &ProcessNews) {
        self.silent = 0;
        self.pause = limits::PROBE_FIRST;
        match news {
            ProcessNews::Started => {
                self.gone = false;
                self.starting = true;
                self.health = Health::Starting;
            }
            ProcessNews::Gone(reason) => {
                self.gone = true;
                self.health = Health::Down(reason.clone());
            }
        }
    }

    /// The pause until the next probe; `None` while there is nothing to probe.
    pub(crate) fn pause(&self) -> Option<Duration> {
        if self.gone {
            return None;
        }
        Some(match (&self.health, self.kind) {
            (Health::Ready, ServerKind::Unknown) => limits::PROBE_INTERVAL_UNKNOWN,
            (Health::Ready, _) => limits::PROBE_INTERVAL,
            _ => self.pause,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::openai::watch::probe::Discovery;
    use tokenbus_protocol::SlotsFrom;

    fn found(kind: ServerKind) -> Finding {
        Finding::Healthy(Some(Discovery {
            kind,
            models: Vec::new(),
            slots: None,
            slots_from: SlotsFrom::Engine,
        }))
    }

    fn unwell() -> Finding {
        Finding::Unwell("refused".to_owned())
    }

    fn up(now: Instant) -> Tracker {
        let mut tracker = Tracker::new(now);
        tracker.probed(&found(ServerKind::Vllm), now, None);
        assert_eq!(tracker.health(Circuit::Closed), Health::Ready);
        tracker
    }

    #[test]
    fn a_starting_server_is_probed_quickly_then_less_often() {
        let now = Instant::now();
        let mut tracker = Tracker::new(now);
        assert_eq!(tracker.pause(), Some(limits::PROBE_FIRST));
        let mut pauses = Vec::new();
        for _ in 0..10 {
            assert!(tracker.wants_discovery(now));
            tracker.probed(&unwell(), now, None);
            pauses.push(tracker.pause());
        }
        assert!(pauses.is_sorted());
        assert_eq!(pauses.last(), Some(&Some(limits::PROBE_INTERVAL)));
        assert_eq!(tracker.health(Circuit::Closed), Health::Starting);
    }

    #[test]
    fn a_process_of_ours_is_probed_quickly_until_it_was_up() {
        let now = Instant::now();
        let mut tracker = Tracker::new(now);
        for _ in 0..2 {
            tracker.process(&ProcessNews::Started);
            for finding in [unwell(), Finding::Loading, Finding::Silent].iter().cycle().take(1000) {
                assert!(tracker.pause().is_some_and(|pause| pause <= limits::PROBE_STARTING));
                tracker.probed(finding, now, None);
            }
            tracker.probed(&found(ServerKind::LlamaServer), now, None);
            assert_eq!(tracker.pause(), Some(limits::PROBE_INTERVAL));
            for _ in 0..10 {
                tracker.probed(&unwell(), now, None);
            }
            assert_eq!(tracker.pause(), Some(limits::PROBE_INTERVAL), "it was up before");
        }
    }

    #[test]
    fn loading_is_starting_also_for_a_server_that_was_up() {
        let now = Instant::now();
        let mut tracker = up(now);
        tracker.probed(&Finding::Loading, now, None);
        assert_eq!(tracker.health(Circuit::Closed), Health::Starting);
    }

    #[test]
    fn a_refused_connection_is_down_at_once() {
        let now = Instant::now();
        let mut tracker = up(now);
        tracker.probed(&unwell(), now, Some(now));
        assert_eq!(tracker.health(Circuit::Closed), Health::Down("refused".to_owned()));
        assert_eq!(tracker.pause(), Some(limits::PROBE_FIRST));
        assert!(tracker.wants_discovery(now), "what comes back may be another server");
        tracker.probed(&Finding::Healthy(None), now, None);
        assert!(
            matches!(tracker.health(Circuit::Closed), Health::Down(_)),
            "only a discovery makes it ready"
        );
        tracker.probed(&found(ServerKind::Vllm), now, None);
        assert_eq!(tracker.health(Circuit::Closed), Health::Ready);
    }

    #[test]
    fn silence_counts_only_after_a_while_and_not_while_tokens_come() {
        let start = Instant::now();
        let mut tracker = up(start);
        for _ in 1..limits::SILENT_PROBES {
            tracker.probed(&Finding::Silent, start, None);
            assert_eq!(tracker.health(Circuit::Closed), Health::Ready);
        }
        tracker.probed(&Finding::Silent, start, Some(start));
        assert_eq!(tracker.health(Circuit::Closed), Health::Ready, "it is at work");
        tracker.probed(&Finding::Silent, start + limits::RECENT_OUTPUT, Some(start));
        assert!(matches!(tracker.health(Circuit::Closed), Health::Down(_)));
    }

    #[test]
    fn an_answer_ends_the_silence() {
        let now = Instant::now();
        let mut tracker = up(now);
        for _ in 0..50 {
            for _ in 1..limits::SILENT_PROBES {
                tracker.probed(&Finding::Silent, now, None);
            }
            tracker.probed(&Finding::Healthy(None), now, None);
        }
        assert_eq!(tracker.health(Circuit::Closed), Health::Ready);
    }

    #[test]
    fn a_failed_request_marks_it_down_at_once() {
        let now = Instant::now();
        let mut tracker = up(now);
        assert!(tracker.connection_failed());
        assert!(!tracker.connection_failed(), "a second one says nothing new");
        assert!(matches!(tracker.health(Circuit::Closed), Health::Down(_)));
        let mut starting = Tracker::new(now);
        assert!(!starting.connection_failed());
        assert_eq!(starting.health(Circuit::Closed), Health::Starting);
    }

    #[test]
    fn an_open_circuit_is_down_and_a_half_open_one_is_not() {
        let now = Instant::now();
        let tracker = up(now);
        assert!(matches!(tracker.health(Circuit::Open(now)), Health::Down(_)));
        assert_eq!(tracker.health(Circuit::HalfOpen), Health::Ready);
        assert_eq!(Tracker::new(now).health(Circuit::Open(now)), Health::Starting);
    }

    #[test]
    fn a_dead_process_is_down_until_it_is_started_again() {
        let now = Instant::now();
        let mut tracker = up(now);
        tracker.process(&ProcessNews::Gone("exit status 1".to_owned()));
        assert_eq!(tracker.pause(), None);
        tracker.probed(&found(ServerKind::Vllm), now, None);
        assert_eq!(
            tracker.health(Circuit::Closed),
            Health::Down("exit status 1".to_owned())
        );
        tracker.process(&ProcessNews::Started);
        assert_eq!(tracker.health(Circuit::Closed), Health::Starting);
        assert_eq!(tracker.pause(), Some(limits::PROBE_FIRST));
    }

    #[test]
    fn a_server_that_is_up_is_probed_by_its_kind() {
        let now = Instant::now();
        assert_eq!(up(now).pause(), Some(limits::PROBE_INTERVAL));
        let mut provider = Tracker::new(now);
        provider.probed(&found(ServerKind::Unknown), now, None);
        assert_eq!(provider.pause(), Some(limits::PROBE_INTERVAL_UNKNOWN));
        assert!(!provider.wants_discovery(now));
        assert!(provider.wants_discovery(now + limits::REDISCOVER_INTERVAL));
        provider.look_again(now);
        assert!(provider.wants_discovery(now));
    }

    #[test]
    fn a_server_elsewhere_that_does_not_answer_is_down_not_starting() {
        let mut tracker = Tracker::new(Instant::now());
        tracker.give_up_start("refused");
        assert_eq!(tracker.health(Circuit::Closed), Health::Down("refused".to_owned()));
    }

    #[test]
    fn the_load_is_asked_for_in_turns() {
        let now = Instant::now();
        let mut tracker = up(now);
        assert!(tracker.take_load_turn(now));
        assert!(!tracker.take_load_turn(now));
        assert!(tracker.take_load_turn(now + limits::LOAD_INTERVAL));
        assert!(!Tracker::new(now).take_load_turn(now));
    }
}
