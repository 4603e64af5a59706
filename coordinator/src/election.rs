//! Who leads. A state machine over heartbeats, the lease and the time.
//!
//! Every coordinator sends a heartbeat twice a second that says whether it leads, and these rules
//! hold with and without JetStream:
//!
//! 1. A leader that is heard is followed.
//! 2. Of two leaders that hear each other the one with the lower id stays.
//! 3. With no leader heard, the lease decides where there is JetStream; where there is none, the
//!    lowest live id leads, after it has listened for a while.
//! 4. A leader that was cut off from NATS or asleep for longer than the others wait for it leads
//!    no more: it begins again as a follower.
//!
//! The lease makes 3 safe when heartbeats are lost or late; heartbeats make 1 and 2 work when
//! JetStream goes away and comes back while somebody leads.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tokenbus_protocol::Name;
use tokenbus_protocol::event::CoordinatorBeat;

use crate::limits::{LISTEN_FIRST, MAX_PEERS, PEER_LOST_AFTER};

/// What is known of the lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lease {
    /// Not asked yet.
    Unknown,
    /// There is no JetStream, or it does not answer.
    Absent,
    /// Another holds it.
    Taken,
    /// It is ours until then.
    Held {
        /// When it runs out if it is not renewed.
        until: Instant,
    },
}

/// What an election says at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// This coordinator leads.
    pub(crate) leading: bool,
    /// Who leads, as far as is known.
    pub(crate) leader: Option<Name>,
    /// The lease should be ours, if there is one.
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
    /// When it gave up leading: it is then no candidate for as long as a silent one counts.
    resigned: Option<Instant>,
}

impl Election {
    /// The election as `me` sees it, not connected yet.
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

    /// The connection to NATS came or went.
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

    /// A heartbeat came. Tells whether its sender is new here, and should hear of us at once.
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

    /// Who leads at `now`. To be asked at every heartbeat, whenever one comes, and when the lease
    /// or the connection changes.
    pub(crate) fn decide(&mut self, lease: Lease, now: Instant) -> Verdict {
        let slept = now.saturating_duration_since(self.decided) >= PEER_LOST_AFTER;
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

    fn stays(&self, rival: Option<&Name>, lease: Lease, now: Instant) -> bool {
        if rival.is_some_and(|rival| *rival < self.me) {
            return false;
        }
        match lease {
            Lease::Held { until } => now < until,
            Lease::Taken => false,
            Lease::Absent | Lease::Unknown => true,
        }
    }

    fn rises(&self, rival: &Option<Name>, lease: Lease, now: Instant) -> bool {
        if rival.is_some() {
            return false;
        }
        match lease {
            Lease::Held { until } => now < until,
            Lease::Unknown | Lease::Taken => false,
            Lease::Absent => {
                let listened = now.saturating_duration_since(self.listening_since) >= LISTEN_FIRST;
                let candidates = self.peers.iter().filter(|(_, peer)| peer.resigned.is_none());
                listened && candidates.map(|(id, _)| id).all(|id| self.me < *id)
            }
        }
    }

    /// How long a verdict may be acted upon without another: as long as the others wait.
    pub(crate) const VALID_FOR: Duration = PEER_LOST_AFTER;
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use crate::limits::{BEAT_PERIOD, LEASE};
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

    fn held(seconds: f64) -> Lease {
        Lease::Held {
            until: at(seconds) + LEASE,
        }
    }

    /// Decides every quarter second, and gives the last verdict.
    fn run(election: &mut Election, lease: Lease, from: f64, to: f64) -> Verdict {
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
        assert!(!run(&mut a, Lease::Absent, 0.0, 0.5).leading);
        let verdict = run(&mut a, Lease::Absent, 0.5, 0.75);
        assert!(verdict.leading && verdict.leader == Some(name("a")));
    }

    #[test]
    fn alone_with_jetstream_one_leads_with_the_lease() {
        let mut a = election("a");
        assert_eq!(
            a.decide(Lease::Unknown, at(0.0)),
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
        assert!(a.decide(Lease::Absent, at(0.8)).leading);
        assert!(!b.decide(Lease::Absent, at(0.8)).leading);
    }

    #[test]
    fn a_newcomer_with_a_lower_id_follows_who_leads() {
        let mut a = election("a");
        a.heard(beat("b", true), at(0.1));
        let verdict = a.decide(Lease::Absent, at(0.9));
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
        assert_eq!(run(&mut b, Lease::Absent, 0.5, 1.75).leader, Some(name("a")));
        let verdict = run(&mut b, Lease::Absent, 1.75, 2.0);
        assert!(verdict.leading, "1.5 s after the last heartbeat");
    }

    #[test]
    fn a_leader_that_resigns_is_replaced_at_once_by_the_lowest_of_the_others() {
        let mut b = election("b");
        let mut c = election("c");
        for election in [&mut b, &mut c] {
            run(election, Lease::Absent, 0.0, 0.5);
            election.heard(beat("a", true), at(1.0));
            election.decide(Lease::Absent, at(1.0));
            election.heard(beat("a", false), at(1.2));
        }
        b.heard(beat("c", false), at(1.1));
        c.heard(beat("b", false), at(1.1));
        assert!(b.decide(Lease::Absent, at(1.2)).leading);
        assert!(!c.decide(Lease::Absent, at(1.2)).leading);
    }

    #[test]
    fn one_that_resigned_and_lives_is_a_candidate_again() {
        let mut b = election("b");
        b.heard(beat("a", true), at(0.1));
        for n in 1..=5_u32 {
            b.heard(beat("a", false), at(0.1) + BEAT_PERIOD * n);
        }
        let verdict = b.decide(Lease::Absent, at(2.7));
        assert!(!verdict.leading, "a is lower, alive, and resigned long ago");
    }

    #[test]
    fn of_two_leaders_the_lower_stays() {
        let (mut a, mut b) = (election("a"), election("b"));
        for election in [&mut a, &mut b] {
            assert!(run(election, Lease::Absent, 0.0, 1.0).leading);
        }
        a.heard(beat("b", true), at(1.1));
        b.heard(beat("a", true), at(1.1));
        assert!(a.decide(Lease::Absent, at(1.2)).leading);
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
        assert!(!a.decide(Lease::Taken, at(0.2)).leading);
        assert!(a.decide(held(0.3), at(0.3)).leading);
        run(&mut a, held(0.3), 0.3, 2.2);
        assert!(!a.decide(held(0.3), at(2.3)).leading);
    }

    #[test]
    fn a_leader_stays_when_jetstream_goes_away_and_comes_back() {
        let mut a = election("a");
        assert!(a.decide(held(0.0), at(0.1)).leading);
        assert!(a.decide(Lease::Absent, at(0.5)).leading);
        let verdict = run(&mut a, Lease::Absent, 0.5, 20.0);
        assert!(verdict.leading && verdict.campaign);
        assert!(a.decide(held(20.1), at(20.1)).leading);
    }

    #[test]
    fn a_follower_does_not_ask_for_the_lease_while_a_leader_is_heard() {
        let mut b = election("b");
        b.heard(beat("a", true), at(0.1));
        assert!(!b.decide(Lease::Unknown, at(0.2)).campaign);
        assert!(!b.decide(held(0.2), at(0.3)).leading, "not even if it has it");
        assert!(
            run(&mut b, Lease::Unknown, 0.3, 1.7).campaign,
            "and does when it is heard no more"
        );
    }

    #[test]
    fn whoever_was_asleep_or_cut_off_begins_again() {
        let mut a = election("a");
        assert!(run(&mut a, Lease::Absent, 0.0, 1.0).leading);
        assert!(
            !a.decide(Lease::Absent, at(11.0)).leading,
            "it slept: another may lead by now"
        );
        a.heard(beat("b", true), at(11.1));
        assert_eq!(a.decide(Lease::Absent, at(11.1)).leader, Some(name("b")));

        let mut a = election("a");
        assert!(run(&mut a, Lease::Absent, 0.0, 1.0).leading);
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
        assert!(!run(&mut a, Lease::Absent, 1.5, 2.0).leading);
        assert!(run(&mut a, Lease::Absent, 2.0, 2.25).leading);
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
