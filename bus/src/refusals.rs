//! What NATS does not let this connection hear or say.
//!
//! The server refuses a subject by a line of its own, long after `subscribe` or `publish` succeeded.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::limits;

/// The client's own inboxes, each of which has a name of its own.
const INBOXES: &str = "_INBOX.>";

/// The subjects of the services protocol, of which a worker has nine.
const SERVICES: &str = "$SRV.>";

/// The subjects that the server has refused on this connection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Refusals {
    subscriptions: BTreeMap<String, Refusal>,
    publishes: BTreeMap<String, Refusal>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Refusal {
    queue: Option<String>,
    /// The connection on which it was refused last.
    epoch: u64,
    at: Instant,
}

impl Refusals {
    /// Whether nothing is refused.
    pub fn is_empty(&self) -> bool {
        self.subscriptions.is_empty() && self.publishes.is_empty()
    }

    /// The subjects that may not be subscribed to.
    pub fn subscriptions(&self) -> impl Iterator<Item = &str> {
        self.subscriptions.keys().map(String::as_str)
    }

    /// The subjects that may not be published on.
    pub fn publishes(&self) -> impl Iterator<Item = &str> {
        self.publishes.keys().map(String::as_str)
    }

    /// Whether `subject` may not be subscribed to.
    pub fn is_deaf_to(&self, subject: &str) -> bool {
        self.subscriptions.contains_key(subject)
    }

    /// Whether answers to this connection's own questions cannot arrive.
    pub fn is_deaf_to_answers(&self) -> bool {
        self.is_deaf_to(INBOXES)
    }

    /// Whether it is not known yet.
    pub(crate) fn is_new(&self, violation: &Violation) -> bool {
        let known = match violation.act {
            Act::Subscribe => &self.subscriptions,
            Act::Publish => &self.publishes,
        };
        !known.contains_key(&violation.subject) && known.len() < limits::REFUSALS
    }

    /// Records a violation.
    pub(crate) fn add(&mut self, violation: Violation, epoch: u64, at: Instant) {
        let Violation { act, subject, queue } = violation;
        let known = match act {
            Act::Subscribe => &mut self.subscriptions,
            Act::Publish => &mut self.publishes,
        };
        if known.contains_key(&subject) || known.len() < limits::REFUSALS {
            known.insert(subject, Refusal { queue, epoch, at });
        }
    }

    /// Forgets what was refused on earlier connections only.
    pub(crate) fn forget_before(&mut self, epoch: u64) {
        self.subscriptions.retain(|_, refusal| refusal.epoch >= epoch);
        self.publishes.retain(|_, refusal| refusal.epoch >= epoch);
    }

    /// Forgets refused publishes that nobody tried again for `time`.
    pub(crate) fn forget_publishes(&mut self, now: Instant, time: Duration) {
        self.publishes.retain(|_, refusal| now < refusal.at + time);
    }

    /// The refused subscriptions with their queue groups, but for inboxes.
    pub(crate) fn to_try(&self) -> Vec<(String, Option<String>)> {
        let refused = self.subscriptions.iter().filter(|(subject, _)| *subject != INBOXES);
        refused
            .map(|(subject, refusal)| (subject.clone(), refusal.queue.clone()))
            .collect()
    }

    /// Whether some subscription was not refused again since `from`.
    pub(crate) fn some_older_than(&self, from: Instant) -> bool {
        self.subscriptions.values().any(|refusal| refusal.at < from)
    }
}

/// What was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    Subscribe,
    Publish,
}

/// One line in which the server refuses a subject.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Violation {
    pub(crate) act: Act,
    pub(crate) subject: String,
    pub(crate) queue: Option<String>,
}

impl Violation {
    /// Reads `Permissions Violation for Subscription to "…" using queue "…"`, `… for Publish to "…"` or
    /// `… for Publish with Reply of "…"`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (_, what) = text.split_once("Permissions Violation for ")?;
        let act = if what.starts_with("Subscription") {
            Act::Subscribe
        } else if what.starts_with("Publish") {
            Act::Publish
        } else {
            return None;
        };
        let mut quoted = what.split('"').skip(1).step_by(2);
        let subject = quoted.next()?;
        let subject = match subject {
            inbox if inbox.starts_with("_INBOX.") => INBOXES,
            service if service.starts_with("$SRV.") => SERVICES,
            subject => subject,
        };
        Some(Self {
            act,
            subject: subject.to_owned(),
            queue: quoted.next().map(str::to_owned),
        })
    }

    /// Says it, with what is to be done.
    pub(crate) fn log(&self) {
        let subject = &self.subject;
        let queue = self.queue.as_deref().unwrap_or_default();
        match self.act {
            Act::Subscribe => tracing::error!(
                subject,
                queue,
                "NATS refuses a subscription: this role's user needs the permission to subscribe to the subject"
            ),
            Act::Publish => tracing::error!(
                subject,
                "NATS refuses a message: this role's user needs the permission to publish on the subject"
            ),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn violation(text: &str) -> Violation {
        Violation::parse(&format!("nats: Permissions Violation for {text}")).unwrap()
    }

    #[test]
    fn the_servers_words_name_the_subject() {
        let queue = violation("Subscription to \"tb.v1.req.m\" using queue \"workers\"");
        assert_eq!((queue.act, queue.subject.as_str()), (Act::Subscribe, "tb.v1.req.m"));
        assert_eq!(queue.queue.as_deref(), Some("workers"));
        assert_eq!(violation("Subscription to \"_INBOX.abc.1\"").subject, INBOXES);
        assert_eq!(violation("Subscription to \"$SRV.PING.x\"").subject, SERVICES);
        let publish = violation("Publish to \"tb.v1.status.w\"");
        assert_eq!(
            (publish.act, publish.subject.as_str()),
            (Act::Publish, "tb.v1.status.w")
        );
        assert_eq!(violation("Publish with Reply of \"r\"").subject, "r");
        assert_eq!(Violation::parse("nats: User Authentication Expired"), None);
    }

    #[test]
    fn what_a_new_connection_does_not_repeat_is_forgotten() {
        let (mut refusals, now) = (Refusals::default(), Instant::now());
        refusals.add(violation("Subscription to \"a\""), 1, now);
        assert!(refusals.is_new(&violation("Subscription to \"b\"")));
        refusals.add(violation("Subscription to \"b\""), 1, now);
        assert!(!refusals.is_new(&violation("Subscription to \"b\"")), "said already");
        refusals.add(violation("Subscription to \"b\""), 2, now);
        refusals.forget_before(2);
        assert_eq!(refusals.subscriptions().collect::<Vec<_>>(), ["b"]);
        refusals.add(violation("Publish to \"p\""), 2, now);
        refusals.forget_publishes(now + Duration::from_secs(9), Duration::from_secs(10));
        assert_eq!(refusals.publishes().count(), 1);
        refusals.forget_publishes(now + Duration::from_secs(10), Duration::from_secs(10));
        assert_eq!(refusals.publishes().count(), 0);
    }

    #[test]
    fn the_list_is_bounded() {
        let mut refusals = Refusals::default();
        for n in 0..1000 {
            refusals.add(violation(&format!("Publish to \"p{n}\"")), 1, Instant::now());
        }
        assert_eq!(refusals.publishes().count(), limits::REFUSALS);
    }
}
