//! The loop of the election: sends and receives heartbeats, watches the lease, and decides who leads.

use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use tokenbus_bus::{Bus, Subscription, take_in_during};
use tokenbus_protocol::{CoordinatorBeat, Name, Subjects, decode, encode};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::election::{Election, LeaseState};
use crate::limits::JETSTREAM_TIMEOUT;

/// Who leads, for the other loops.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Leadership {
    /// This coordinator leads, until [`Leadership::valid_until`].
    pub(crate) leading: bool,
    /// The leader, if known.
    pub(crate) leader: Option<Name>,
    /// After this the verdict is too old: the loop of the election hangs.
    pub(crate) valid_until: Instant,
}

impl Leadership {
    /// No leader is known.
    pub(crate) fn unknown(now: Instant) -> Self {
        Self {
            leading: false,
            leader: None,
            valid_until: now,
        }
    }

    /// Whether this coordinator leads at `now`.
    pub(crate) fn leads(&self, now: Instant) -> bool {
        self.leading && now < self.valid_until
    }

    /// Whether another coordinator is known to lead at `now`.
    pub(crate) fn follows(&self, now: Instant) -> bool {
        !self.leading && self.leader.is_some() && now < self.valid_until
    }
}

/// The election's loop.
pub(crate) struct Leader {
    /// This coordinator.
    pub(crate) me: Name,
    /// The connection.
    pub(crate) bus: Bus,
    /// The subjects.
    pub(crate) subjects: Subjects,
    /// The heartbeats of all coordinators.
    pub(crate) beats: Subscription,
    /// Tells the lease keeper how often to renew the lease; `None` if it is not wanted.
    pub(crate) wanted: watch::Sender<Option<Duration>>,
    /// The state of the lease.
    pub(crate) lease: watch::Receiver<LeaseState>,
    /// Publishes the verdict to the other loops.
    pub(crate) leadership: watch::Sender<Leadership>,
}

impl Leader {
    /// Runs until `shutdown`, then gives the lease back and says so.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        let mut election = Election::new(self.me.clone(), Instant::now());
        let mut link = self.bus.link();
        election.link(link.borrow_and_update().connected, Instant::now());
        let mut pulsed = None;
        loop {
            let mut speak = false;
            let now = Instant::now();
            let pace = election.pace(*self.lease.borrow(), now);
            let pulse = pulsed.map_or(now, |last| self.bus.rhythm().after(last, pace));
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = tokio::time::sleep_until(pulse.into()) => {
                    pulsed = Some(Instant::now());
                    speak = true;
                }
                beat = self.beats.next() => {
                    let Some(message) = beat else { break };
                    speak = self.heard(&message, &mut election);
                }
                changed = self.lease.changed() => if changed.is_err() { break },
                _ = link.changed() => {
                    election.link(link.borrow_and_update().connected, Instant::now());
                    speak = true;
                }
            }
            speak |= self.decide(&mut election);
            if speak && link.borrow().connected {
                let beat = self.beat(self.leadership.borrow().leading);
                take_in_during([&mut self.beats], beat).await;
            }
        }
        self.resign().await;
    }

    /// Takes one heartbeat. Returns whether to answer it at once.
    fn heard(&self, message: &async_nats::Message, election: &mut Election) -> bool {
        match decode::<CoordinatorBeat>(&message.payload) {
            Ok(beat) if message.subject.as_str() == self.subjects.coordinator(&beat.coordinator) => {
                election.heard(beat, Instant::now())
            }
            Ok(_) | Err(_) => {
                self.bus.metrics().malformed.inc();
                tracing::debug!(subject = %message.subject, "not a coordinator's heartbeat");
                false
            }
        }
    }

    /// Decides who leads. Returns whether the other coordinators should know at once.
    fn decide(&self, election: &mut Election) -> bool {
        let now = Instant::now();
        let lease = *self.lease.borrow();
        let verdict = election.decide(lease, now);
        let renewals = verdict.campaign.then(|| election.pace(lease, now));
        self.wanted
            .send_if_modified(|wanted| std::mem::replace(wanted, renewals) != renewals);
        let next = Leadership {
            leading: verdict.leading,
            leader: verdict.leader,
            valid_until: election.valid_until(lease, now),
        };
        let before = self.leadership.send_replace(next.clone());
        if before.leader != next.leader {
            let leader = next.leader.as_ref().map(Name::as_str);
            tracing::info!(coordinator = %self.me, leader, leading = next.leading, "the leader changed");
        }
        before.leading != next.leading
    }

    /// Sends a heartbeat.
    fn beat(&self, leading: bool) -> impl Future<Output = ()> + use<> {
        let beat = CoordinatorBeat {
            coordinator: self.me.clone(),
            leading,
        };
        let (bus, subject) = (self.bus.clone(), self.subjects.coordinator(&self.me));
        async move {
            let payload = match encode(&beat) {
                Ok(payload) => payload,
                Err(error) => {
                    tracing::error!(%error, "cannot encode a heartbeat");
                    return;
                }
            };
            if let Err(error) = bus.publish(subject, payload.into()).await {
                tracing::debug!(%error, "a heartbeat was not sent");
            }
        }
    }

    /// Gives the lease back before the last heartbeat, so that whoever hears that heartbeat can take it.
    async fn resign(mut self) {
        let was_leading = self.leadership.borrow().leading;
        self.leadership.send_replace(Leadership::unknown(Instant::now()));
        self.wanted.send_replace(None);
        let given_back = self.lease.wait_for(|lease| !matches!(lease, LeaseState::Held { .. }));
        let given_back = tokio::time::timeout(JETSTREAM_TIMEOUT, given_back);
        let _ = take_in_during([&mut self.beats], given_back).await;
        if was_leading && self.bus.is_connected() {
            self.beat(false).await;
        }
    }
}
