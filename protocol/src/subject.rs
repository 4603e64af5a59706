//! Subjects, and who may use them, are made and parsed only here.

mod permissions;

use crate::feature::Family;
use crate::model_token::{decode_model, encode_model};
use crate::name::Name;

pub use permissions::{Models, Permissions};

/// The queue group of all workers.
pub const QUEUE_GROUP: &str = "workers";

/// Name under which workers register with the NATS services protocol.
pub const SERVICE_NAME: &str = "tokenbus-worker";

/// Makes the subjects of one cluster. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subjects {
    namespace: Name,
}

/// The kind of a message on a gateway's `out` subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Out<'a> {
    /// A batch of frames from this worker.
    Worker(&'a str),
    /// An answer to a publish of this attempt: "no responders" from NATS, or a worker's `ControlReply` to a ping.
    Reply {
        /// The gateway's number for the stream.
        stream: u64,
        /// The attempt. It is part of the subject, so that a late answer to one attempt is never taken for an
        /// answer to the next.
        attempt: u32,
    },
}

impl Subjects {
    /// Subjects of the cluster named `namespace`.
    pub fn new(namespace: Name) -> Self {
        Self { namespace }
    }

    /// The cluster's namespace.
    pub fn namespace(&self) -> &Name {
        &self.namespace
    }

    fn of(&self, rest: &str) -> String {
        format!("{}.v1.{rest}", self.namespace)
    }

    /// `$SRV.{verb}.tokenbus-worker`: a question to all workers, in the NATS services protocol.
    pub fn service(verb: &str) -> String {
        format!("$SRV.{verb}.{SERVICE_NAME}")
    }

    /// The bucket of the API keys: `{ns}_keys`.
    pub fn keys_bucket(&self) -> String {
        format!("{}_keys", self.namespace)
    }

    /// The bucket of the stored responses: `{ns}_responses`.
    pub fn responses_bucket(&self) -> String {
        format!("{}_responses", self.namespace)
    }

    /// The bucket of the keys that seal the reasoning which clients carry: `{ns}_seal`.
    pub fn seal_bucket(&self) -> String {
        format!("{}_seal", self.namespace)
    }

    /// The bucket of what keys have used of their budgets: `{ns}_budgets`.
    pub fn budgets_bucket(&self) -> String {
        format!("{}_budgets", self.namespace)
    }

    /// The bucket of the coordinators' lease: `{ns}_coordinator`.
    pub fn coordinator_bucket(&self) -> String {
        format!("{}_coordinator", self.namespace)
    }

    /// `{ns}.v1.req.{model}`, or another family's token for `req`: a request for any worker of the queue group.
    pub fn request(&self, family: Family, model: &str) -> String {
        let model = encode_model(model);
        format!("{}.v1.{}.{model}", self.namespace, family.token())
    }

    /// `{ns}.v1.req.{model}.{worker}`, or another family's token for `req`: a request for the worker that the
    /// gateway chose.
    pub fn request_to(&self, family: Family, model: &str, worker: &Name) -> String {
        format!("{}.{worker}", self.request(family, model))
    }

    /// `{ns}.v1.out.{gateway}.{worker}`: batches of frames.
    pub fn out(&self, gateway: &Name, worker: &Name) -> String {
        format!("{}.v1.out.{gateway}.{worker}", self.namespace)
    }

    /// `{ns}.v1.out.{gateway}.*`: everything for one gateway, in one subscription.
    pub fn out_all(&self, gateway: &Name) -> String {
        format!("{}.v1.out.{gateway}.*", self.namespace)
    }

    /// Whether `subject` carries batches of frames to a gateway.
    pub fn is_out(&self, subject: &str) -> bool {
        let rest = subject.strip_prefix(self.namespace.as_str());
        rest.is_some_and(|rest| rest.starts_with(".v1.out."))
    }

    /// `{ns}.v1.out.{gateway}.-{stream}-{attempt}`: the reply subject of one publish.
    pub fn reply(&self, gateway: &Name, stream: u64, attempt: u32) -> String {
        format!("{}.v1.out.{gateway}.-{stream}-{attempt}", self.namespace)
    }

    /// Parses the last token of a subject under [`Subjects::out_all`].
    pub fn parse_out(subject: &str) -> Option<Out<'_>> {
        let last = subject.rsplit('.').next()?;
        match last.strip_prefix('-') {
            Some(numbers) => {
                let (stream, attempt) = numbers.split_once('-')?;
                Some(Out::Reply {
                    stream: stream.parse().ok()?,
                    attempt: attempt.parse().ok()?,
                })
            }
            None if last.is_empty() => None,
            None => Some(Out::Worker(last)),
        }
    }

    /// `{ns}.v1.free.{model}.{worker}`: this worker of this model was full and has free slots again. The subject names
    /// the worker, because permissions are by subject: no worker speaks for another.
    pub fn free(&self, model: &str, worker: &Name) -> String {
        format!("{}.v1.free.{}.{worker}", self.namespace, encode_model(model))
    }

    /// `{ns}.v1.free.*.*`: the hints of all workers, for gateways.
    pub fn free_all(&self) -> String {
        format!("{}.v1.free.*.*", self.namespace)
    }

    /// `{ns}.v1.free.-.{worker}`: the news of one worker, which all gateways hear under [`Subjects::free_all`]. Older
    /// ones take the token for a model for which no request waits.
    pub fn news(&self, worker: &Name) -> String {
        format!("{}.v1.free.-.{worker}", self.namespace)
    }

    /// The worker of a subject under [`Subjects::free_all`], if it is news of a worker.
    pub fn parse_news(subject: &str) -> Option<Name> {
        let (rest, worker) = subject.rsplit_once('.')?;
        rest.ends_with(".free.-").then(|| Name::new(worker).ok())?
    }

    /// The model and the worker of a subject under [`Subjects::free_all`].
    pub fn parse_free(subject: &str) -> Option<(String, Name)> {
        let (rest, worker) = subject.rsplit_once('.')?;
        let model = decode_model(rest.rsplit('.').next()?).ok()?;
        Some((model, Name::new(worker).ok()?))
    }

    /// Whether a reply may be sent to `subject`: an inbox of a client, or the place where a gateway waits for a reply.
    /// Anything else would let whoever asks write, through the one who answers, where they may not write themselves.
    pub fn is_reply(&self, subject: &str) -> bool {
        is_inbox(subject) || self.is_out(subject) && matches!(Self::parse_out(subject), Some(Out::Reply { .. }))
    }

    /// `{ns}.v1.ctl.{worker}`: control messages for one worker.
    pub fn control(&self, worker: &Name) -> String {
        format!("{}.v1.ctl.{worker}", self.namespace)
    }

    /// `{ns}.v1.ctl.{worker}.-{gateway}`: the reply subject of a batch that probes this gateway. Only NATS
    /// publishes here: "no responders", when the gateway has gone.
    pub fn watch(&self, worker: &Name, gateway: &Name) -> String {
        format!("{}.v1.ctl.{worker}.-{gateway}", self.namespace)
    }

    /// `{ns}.v1.ctl.{worker}.*`: NATS's answers about all gateways of a worker, in one subscription.
    pub fn watch_all(&self, worker: &Name) -> String {
        format!("{}.v1.ctl.{worker}.*", self.namespace)
    }

    /// The gateway of a subject under [`Subjects::watch_all`].
    pub fn parse_watch(subject: &str) -> Option<Name> {
        Name::new(subject.rsplit('.').next()?.strip_prefix('-')?).ok()
    }

    /// `{ns}.v1.status.{worker}`: the status of one worker.
    pub fn status(&self, worker: &Name) -> String {
        format!("{}.v1.status.{worker}", self.namespace)
    }

    /// `{ns}.v1.status.*`: the statuses of all workers, for coordinators.
    pub fn status_all(&self) -> String {
        format!("{}.v1.status.*", self.namespace)
    }

    /// `{ns}.v1.capacity`: the snapshot.
    pub fn capacity(&self) -> String {
        format!("{}.v1.capacity", self.namespace)
    }

    /// `{ns}.v1.capacity.get`: a request for the current snapshot. Without a reply subject, a gateway tells
    /// coordinators here which requests wait at it ([`crate::Waiting`]), so that this needs no further permission.
    pub fn capacity_get(&self) -> String {
        format!("{}.v1.capacity.get", self.namespace)
    }

    /// `{ns}.v1.event`: events that the coordinator publishes.
    pub fn event(&self) -> String {
        format!("{}.v1.event", self.namespace)
    }

    /// `{ns}.v1.limits`: the consumption of API keys, among gateways.
    pub fn limits(&self) -> String {
        format!("{}.v1.limits", self.namespace)
    }

    /// `{ns}.v1.deadly`: requests of which engines died, among gateways ([`crate::DeadlyRequest`]).
    pub fn deadly(&self) -> String {
        format!("{}.v1.deadly", self.namespace)
    }

    /// `{ns}.v1.trace`: questions to all gateways for the stories of a request ([`crate::StoryQuestion`]).
    pub fn trace(&self) -> String {
        format!("{}.v1.trace", self.namespace)
    }

    /// `{ns}.v1.usage`: the usage of each request.
    pub fn usage(&self) -> String {
        format!("{}.v1.usage", self.namespace)
    }

    /// `{ns}.v1.coordinator.{id}`: heartbeats among coordinators, for the election without JetStream.
    pub fn coordinator(&self, id: &Name) -> String {
        format!("{}.v1.coordinator.{id}", self.namespace)
    }

    /// `{ns}.v1.coordinator.*`: the heartbeats of all coordinators.
    pub fn coordinator_all(&self) -> String {
        format!("{}.v1.coordinator.*", self.namespace)
    }
}

/// Whether `subject` is an inbox, where a client of NATS waits for replies.
pub fn is_inbox(subject: &str) -> bool {
    subject.starts_with("_INBOX.")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    #[test]
    fn subjects_are_those_of_the_design() {
        let s = Subjects::new(name("tb"));
        assert_eq!(s.request(Family::Generate, "a/b"), "tb.v1.req.a=2Fb");
        assert_eq!(s.request_to(Family::Generate, "m", &name("w1")), "tb.v1.req.m.w1");
        assert_eq!(s.request(Family::Embed, "m"), "tb.v1.emb.m");
        assert_eq!(s.request_to(Family::Tokens, "m", &name("w1")), "tb.v1.tok.m.w1");
        assert_eq!(s.out(&name("g"), &name("w1")), "tb.v1.out.g.w1");
        assert_eq!(s.out_all(&name("g")), "tb.v1.out.g.*");
        assert_eq!(s.reply(&name("g"), 7, 2), "tb.v1.out.g.-7-2");
        assert_eq!(s.control(&name("w1")), "tb.v1.ctl.w1");
        assert_eq!(s.status(&name("w1")), "tb.v1.status.w1");
        assert_eq!(s.capacity_get(), "tb.v1.capacity.get");
        assert_eq!((s.limits(), s.usage()), ("tb.v1.limits".into(), "tb.v1.usage".into()));
        assert_eq!(s.deadly(), "tb.v1.deadly");
    }

    #[test]
    fn out_subjects_are_told_apart() {
        assert_eq!(Subjects::parse_out("tb.v1.out.g.w1"), Some(Out::Worker("w1")));
        assert_eq!(
            Subjects::parse_out("tb.v1.out.g.-42-1"),
            Some(Out::Reply { stream: 42, attempt: 1 })
        );
        assert_eq!(Subjects::parse_out("tb.v1.out.g.-x-1"), None);
        assert_eq!(Subjects::parse_out("tb.v1.out.g.-42"), None);
        assert_eq!(Subjects::parse_out("tb.v1.out.g."), None);
    }

    #[test]
    fn watch_subject_gives_the_gateway_back() {
        let s = Subjects::new(name("tb"));
        assert_eq!(s.watch(&name("w1"), &name("g-1")), "tb.v1.ctl.w1.-g-1");
        assert_eq!(s.watch_all(&name("w1")), "tb.v1.ctl.w1.*");
        assert_eq!(
            Subjects::parse_watch(&s.watch(&name("w1"), &name("g-1"))),
            Some(name("g-1"))
        );
        for bad in [
            "tb.v1.ctl.w1",
            "tb.v1.ctl.w1.g",
            "tb.v1.ctl.w1.-",
            "tb.v1.ctl.w1.--g",
            "",
        ] {
            assert_eq!(Subjects::parse_watch(bad), None, "{bad}");
        }
    }

    #[test]
    fn free_subject_gives_the_model_and_the_worker_back() {
        let s = Subjects::new(name("tb"));
        let told = Some(("a.b/c".to_owned(), name("w1")));
        assert_eq!(Subjects::parse_free(&s.free("a.b/c", &name("w1"))), told);
        for bad in ["", "tb", "tb.v1.free.m.", "tb.v1.free.m.-x"] {
            assert_eq!(Subjects::parse_free(bad), None, "{bad}");
        }
    }

    #[test]
    fn replies_go_to_inboxes_and_to_waiting_gateways_only() {
        let s = Subjects::new(name("tb"));
        for good in ["_INBOX.x", "_INBOX.x.y", &s.reply(&name("g"), 0, 7)] {
            assert!(s.is_reply(good), "{good}");
        }
        for bad in [
            "",
            "_INBOX",
            "$KV.tb_keys.x",
            "$JS.API.STREAM.DELETE.x",
            "tb.v1.ctl.w1",
            "tb.v1.out.g.w1",
            "tb.v1.out.g.-7",
            "other.v1.out.g.-7-0",
        ] {
            assert!(!s.is_reply(bad), "{bad}");
        }
    }

    #[test]
    fn names_are_checked() {
        for bad in ["", "a.b", "-a", "a b", "a*", "a>", "é", &"x".repeat(65)] {
            assert!(Name::new(bad).is_err(), "{bad:?}");
        }
        assert_eq!(Name::sanitized("my.host lan", &name("w")).as_str(), "my-host-lan");
        assert_eq!(Name::sanitized("é", &name("w")).as_str(), "w");
    }
}
