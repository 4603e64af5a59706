//! The election of the leader: a state machine over heartbeats, the lease and the time.
//!
//! Every coordinator sends a heartbeat twice a second that says whether it leads; a leader that hears no other and holds
//! the lease, once a second. These rules hold with and without
//! JetStream:
//!
//! 1. A coordinator that hears a leader follows it.
//! 2. Of two leaders that hear each other, the one with the lower id stays.
//! 3. When no leader is heard, the lease decides. Without JetStream, the lowest live id leads, after it has
//!    listened for a while.
//! 4. A leader that was cut off from NATS or asleep for longer than the others wait stops leading and begins again
//!    as a follower.
//!
//! The lease makes rule 3 safe when heartbeats are lost or late. Heartbeats make rules 1 and 2 work when JetStream
//! goes away and returns while somebody leads.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tokenbus_protocol::{CoordinatorBeat, Name};

use crate::limits::{BEAT_ALONE, BEAT_PERIOD, LISTEN_FIRST, MAX_PEERS, PEER_LOST_AFTER};

/// What this coordinator knows of the lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LeaseState {
    /// Not asked yet.
    Unknown,
    /// JetStream is absent or does not answer.
    Absent,
    /// Another coordinator holds it.
    Taken,
    /// This coordinator holds it.
    Held {
        /// When it expires unless renewed.
        until: Instant,
    },
}

impl LeaseState {
    /// Whether this coordinator holds the lease at `now`.
    fn holds(self, now: Instant) -> bool {
        matches!(self, Self::Held { until } if now < until)
    }
}

/// The result of the election at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// This coordinator leads.
    pub(crate) leading: bool,
    /// The leader, if known.
    pub(crate) leader: Option<Name>,
    /// Whether this coordinator should try to get or keep the lease.
    pub(crate) campaign: bool,
}

/// One coordinator's view of the election.
#[derive(Debug)]
pub(crate) struct Election {
    me: Name,
    peers: BTreeMap<Name, Peer>,
    connected: bool,
    listening_since: Instant,
    decided: Instant,
    leading: bool,
}

#[derive(Debug)]
struct Peer {
    heard: Instant,
    leading: bool,
    /// When it stopped leading. It is then no candidate for the time after which a silent peer counts as gone.
    resigned: Option<Instant>,
}

impl Election {
    /// The election as seen by `me`, not connected yet.
    pub(crate) fn new(me: Name, now: Instant) -> Self {
        Self {
            me,
            peers: BTreeMap::new(),
            connected: false,
            listening_since: now,
            decided: now,
            leading: false,
        }
    }

    /// The connection to NATS came up or went down.
    pub(crate) fn link(&mut self, connected: bool, now: Instant) {
        if self.connected != connected {
            self.connected = connected;
            self.begin_again(now);
        }
    }

    fn begin_again(&mut self, now: Instant) {
        self.leading = false;
        self.peers.clear();
        self.listening_since = now;
    }

    /// Takes a heartbeat. Returns whether its sender is new and should hear from this coordinator at once.
    pub(crate) fn heard(&mut self, beat: CoordinatorBeat, now: Instant) -> bool {
        if beat.coordinator == self.me {
            return false;
        }
        self.prune(now);
        let CoordinatorBeat { coordinator, leading } = beat;
        if let Some(peer) = self.peers.get_mut(&coordinator) {
            if leading {
                peer.resigned = None;
            } else if peer.leading {
                peer.resigned = Some(now);
            }
            peer.leading = leading;
            peer.heard = now;
            return false;
        }
        if self.peers.len() >= MAX_PEERS {
            return false;
        }
        self.peers.insert(
            coordinator,
            Peer {
                heard: now,
                leading,
                resigned: None,
            },
        );
        true
    }

    fn prune(&mut self, now: Instant) {
        let since = |then: Instant| now.saturating_duration_since(then);
        self.peers.retain(|_, peer| since(peer.heard) < PEER_LOST_AFTER);
        for peer in self.peers.values_mut() {
            peer.resigned = peer.resigned.filter(|then| since(*then) < PEER_LOST_AFTER);
        }
    }

    /// Decides who leads at `now`. To be called with each own heartbeat, with each one received, and when the lease
    /// or the connection changes.
    pub(crate) fn decide(&mut self, lease: LeaseState, now: Instant) -> Verdict {
        // While the lease is held, nobody else can have taken it.
        let guarded = self.leading && lease.holds(now);
        let slept = !guarded && now.saturating_duration_since(self.decided) >= PEER_LOST_AFTER;
        self.decided = now;
        if !self.connected {
            return Verdict {
                leading: false,
                leader: None,
                campaign: false,
            };
        }
        if slept {
            self.begin_again(now);
        }
        self.prune(now);
        let rival = self
            .peers
            .iter()
            .find(|(_, peer)| peer.leading)
            .map(|(id, _)| id.clone());
        self.leading = if self.leading {
            self.stays(rival.as_ref(), lease, now)
        } else {
            self.rises(&rival, lease, now)
        };
        let campaign = self.leading || rival.is_none();
        let leader = if self.leading { Some(self.me.clone()) } else { rival };
        Verdict {
            leading: self.leading,
            leader,
            campaign,
        }
    }

    fn stays(&self, rival: Option<&Name>, lease: LeaseState, now: Instant) -> bool {
        if rival.is_some_and(|rival| *rival < self.me) {
            return false;
        }
        match lease {
            LeaseState::Held { .. } => lease.holds(now),
            LeaseState::Taken => false,
            LeaseState::Absent | LeaseState::Unknown => true,
        }
    }

    fn rises(&self, rival: &Option<Name>, lease: LeaseState, now: Instant) -> bool {
        if rival.is_some() {
            return false;
        }
        match lease {
            LeaseState::Held { .. } => lease.holds(now),
            LeaseState::Unknown | LeaseState::Taken => false,
            LeaseState::Absent => {
                let listened = now.saturating_duration_since(self.listening_since) >= LISTEN_FIRST;
                let candidates = self.peers.iter().filter(|(_, peer)| peer.resigned.is_none());
                listened && candidates.map(|(id, _)| id).all(|id| self.me < *id)
            }
        }
    }

    /// Until when a verdict of `now` is valid: as long as the others wait for a silent leader, or as long as the lease
    /// keeps them from leading.
    pub(crate) fn valid_until(&self, lease: LeaseState, now: Instant) -> Instant {
        let waited_for = now + PEER_LOST_AFTER;
        match lease {
            LeaseState::Held { until } if self.leading => until.max(waited_for),
            _ => waited_for,
        }
    }

    /// Time between two heartbeats, and between two renewals of the lease.
    pub(crate) fn pace(&self, lease: LeaseState, now: Instant) -> Duration {
        if self.leading && self.peers.is_empty() && lease.holds(now) {
            BEAT_ALONE
        } else {
            BEAT_PERIOD
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use crate::limits::LEASE;
    use crate::registry::fixture::at;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    fn election(me: &str) -> Election {
        let mut election = Election::new(name(me), at(0.0));
        election.link(true, at(0.0));
        election
    }

    fn beat(coordinator: &str, leading: bool) -> CoordinatorBeat {
        CoordinatorBeat {
            coordinator: name(coordinator),
            leading,
        }
    }

    fn held(seconds: f64) -> LeaseState {
        LeaseState::Held {
            until: at(seconds) + LEASE,
        }
    }

    /// Decides every quarter of a second, and returns the last verdict.
    fn run(election: &mut Election, lease: LeaseState, from: f64, to: f64) -> Verdict {
        let mut verdict = election.decide(lease, at(from));
        let mut now = from;
        while now < to {
            now = (now + 0.25).min(to);
            verdict = election.decide(lease, at(now));
        }
        verdict
    }

    #[test]
    fn alone_without_jetstream_one_leads_after_listening() {
        let mut a = election("a");
        assert!(!run(&mut a, LeaseState::Absent, 0.0, 0.5).leading);
        let verdict = run(&mut a, LeaseState::Absent, 0.5, 0.75);
        assert!(verdict.leading && verdict.leader == Some(name("a")));
    }

    #[test]
    fn alone_with_jetstream_one_leads_with_the_lease() {
        let mut a = election("a");
        assert_eq!(
            a.decide(LeaseState::Unknown, at(0.0)),
            Verdict {
                leading: false,
                leader: None,
                campaign: true
            }
        );
        assert!(a.decide(held(0.1), at(0.1)).leading);
    }

    #[test]
    fn without_jetstream_the_lowest_id_leads() {
        let (mut a, mut b) = (election("a"), election("b"));
        assert!(a.heard(beat("b", false), at(0.1)), "a newcomer");
        assert!(!a.heard(beat("b", false), at(0.6)));
        b.heard(beat("a", false), at(0.6));
        assert!(a.decide(LeaseState::Absent, at(0.8)).leading);
        assert!(!b.decide(LeaseState::Absent, at(0.8)).leading);
    }

    #[test]
    fn a_newcomer_with_a_lower_id_follows_who_leads() {
        let mut a = election("a");
        a.heard(beat("b", true), at(0.1));
        let verdict = a.decide(LeaseState::Absent, at(0.9));
        assert_eq!(
            verdict,
            Verdict {
                leading: false,
                leader: Some(name("b")),
                campaign: false
            }
        );
    }

    #[test]
    fn a_silent_leader_is_replaced_in_time() {
        let mut b = election("b");
        b.heard(beat("a", true), at(0.5));
        assert_eq!(run(&mut b, LeaseState::Absent, 0.5, 1.75).leader, Some(name("a")));
        let verdict = run(&mut b, LeaseState::Absent, 1.75, 2.0);
        assert!(verdict.leading, "1.5 s after the last heartbeat");
    }

    #[test]
    fn a_leader_that_resigns_is_replaced_at_once_by_the_lowest_of_the_others() {
        let mut b = election("b");
        let mut c = election("c");
        for election in [&mut b, &mut c] {
            run(election, LeaseState::Absent, 0.0, 0.5);
            election.heard(beat("a", true), at(1.0));
            election.decide(LeaseState::Absent, at(1.0));
            election.heard(beat("a", false), at(1.2));
        }
        b.heard(beat("c", false), at(1.1));
        c.heard(beat("b", false), at(1.1));
        assert!(b.decide(LeaseState::Absent, at(1.2)).leading);
        assert!(!c.decide(LeaseState::Absent, at(1.2)).leading);
    }

    #[test]
    fn one_that_resigned_and_lives_is_a_candidate_again() {
        let mut b = election("b");
        b.heard(beat("a", true), at(0.1));
        for n in 1..=5_u32 {
            b.heard(beat("a", false), at(0.1) + BEAT_PERIOD * n);
        }
        let verdict = b.decide(LeaseState::Absent, at(2.7));
        assert!(!verdict.leading, "a is lower, alive, and resigned long ago");
    }

    #[test]
    fn of_two_leaders_the_lower_stays() {
        let (mut a, mut b) = (election("a"), election("b"));
        for election in [&mut a, &mut b] {
            assert!(run(election, LeaseState::Absent, 0.0, 1.0).leading);
        }
        a.heard(beat("b", true), at(1.1));
        b.heard(beat("a", true), at(1.1));
        assert!(a.decide(LeaseState::Absent, at(1.2)).leading);
        let verdict = b.decide(held(1.0), at(1.2));
        assert_eq!(
            verdict,
            Verdict {
                leading: false,
                leader: Some(name("a")),
                campaign: false
            }
        );
    }

    #[test]
    fn the_lease_of_another_and_a_lease_run_out_end_leading() {
        let mut a = election("a");
        assert!(a.decide(held(0.0), at(0.1)).leading);
        assert!(!a.decide(LeaseState::Taken, at(0.2)).leading);
        assert!(a.decide(held(0.3), at(0.3)).leading);
        run(&mut a, held(0.3), 0.3, 2.2);
        assert!(!a.decide(held(0.3), at(2.3)).leading);
    }

    #[test]
    fn a_leader_stays_when_jetstream_goes_away_and_comes_back() {
        let mut a = election("a");
        assert!(a.decide(held(0.0), at(0.1)).leading);
        assert!(a.decide(LeaseState::Absent, at(0.5)).leading);
        let verdict = run(&mut a, LeaseState::Absent, 0.5, 20.0);
        assert!(verdict.leading && verdict.campaign);
        assert!(a.decide(held(20.1), at(20.1)).leading);
    }

    #[test]
    fn a_follower_does_not_ask_for_the_lease_while_a_leader_is_heard() {
        let mut b = election("b");
        b.heard(beat("a", true), at(0.1));
        assert!(!b.decide(LeaseState::Unknown, at(0.2)).campaign);
        assert!(!b.decide(held(0.2), at(0.3)).leading, "not even if it has it");
        assert!(
            run(&mut b, LeaseState::Unknown, 0.3, 1.7).campaign,
            "and does when it is heard no more"
        );
    }

    #[test]
    fn whoever_was_asleep_or_cut_off_begins_again() {
        let mut a = election("a");
        assert!(run(&mut a, LeaseState::Absent, 0.0, 1.0).leading);
        assert!(
            !a.decide(LeaseState::Absent, at(11.0)).leading,
            "it slept: another may lead by now"
        );
        a.heard(beat("b", true), at(11.1));
        assert_eq!(a.decide(LeaseState::Absent, at(11.1)).leader, Some(name("b")));

        let mut a = election("a");
        assert!(run(&mut a, LeaseState::Absent, 0.0, 1.0).leading);
        a.link(false, at(1.1));
        assert_eq!(
            a.decide(held(1.0), at(1.2)),
            Verdict {
                leading: false,
                leader: None,
                campaign: false
            }
        );
        a.link(true, at(1.5));
        assert!(!run(&mut a, LeaseState::Absent, 1.5, 2.0).leading);
        assert!(run(&mut a, LeaseState::Absent, 2.0, 2.25).leading);
    }

    #[test]
    fn a_leader_with_the_lease_takes_its_time_until_it_hears_another() {
        let mut a = election("a");
        assert!(a.decide(held(0.0), at(0.1)).leading);
        assert_eq!(a.pace(held(0.0), at(0.1)), BEAT_ALONE);
        assert_eq!(a.valid_until(held(0.0), at(0.1)), at(2.0));
        // The lease guards it for longer than others wait for a heartbeat.
        assert!(a.decide(held(0.0), at(1.9)).leading);
        assert_eq!(
            a.pace(LeaseState::Absent, at(1.9)),
            BEAT_PERIOD,
            "only heartbeats hold the lead"
        );
        assert_eq!(a.pace(held(0.0), at(2.0)), BEAT_PERIOD);
        assert!(a.heard(beat("b", false), at(1.9)));
        assert_eq!(a.pace(held(1.0), at(1.9)), BEAT_PERIOD);
    }

    #[test]
    fn own_heartbeats_are_not_heard_and_peers_are_bounded() {
        let mut a = election("a");
        assert!(!a.heard(beat("a", true), at(0.0)));
        for n in 0..1000 {
            a.heard(beat(&format!("p{n}"), false), at(0.0));
        }
        assert_eq!(a.peers.len(), MAX_PEERS);
    }
}
