//! What each user of the bus may publish and subscribe to: the least that its work needs. Nothing else is allowed.
//!
//! The lists stand beside the subjects, so that a new subject gets its permission here. A test runs a cluster on them.

use std::collections::BTreeSet;

use super::{QUEUE_GROUP, SERVICE_NAME, Subjects};
use crate::feature::Family;
use crate::model_token::encode_model;
use crate::name::Name;

/// What one user may do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Permissions {
    /// Subjects, with wildcards, to publish on.
    pub publish: Vec<String>,
    /// Subjects to subscribe to. Where a queue group follows the subject, they may only be read as its member.
    pub subscribe: Vec<String>,
    /// Whether it may publish once on the reply subject of each message that it receives.
    pub answers: bool,
}

/// The models that a worker may serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Models<'a> {
    /// Every model.
    All,
    /// These.
    Only(&'a [String]),
}

impl Models<'_> {
    fn tokens(self) -> Vec<String> {
        match self {
            Self::All => vec!["*".to_owned()],
            Self::Only(models) => models.iter().map(|model| encode_model(model)).collect(),
        }
    }
}

impl Permissions {
    /// Of all gateways, with this usage stream.
    pub fn gateway(subjects: &Subjects, usage_stream: &str) -> Self {
        let mut publish: Vec<String> = Family::ALL
            .iter()
            .map(|family| subjects.of(&format!("{}.>", family.token())))
            .collect();
        publish.extend([
            subjects.of("ctl.*"),
            subjects.capacity_get(),
            subjects.usage(),
            subjects.limits(),
            subjects.deadly(),
            Subjects::service("INFO"),
        ]);
        let subscribe = vec![
            subjects.of("out.*.*"),
            subjects.capacity(),
            subjects.free_all(),
            subjects.event(),
            subjects.limits(),
            subjects.deadly(),
            subjects.trace(),
        ];
        let mut all = Self {
            publish,
            subscribe,
            answers: true,
        };
        all.keep(&stream_of(&subjects.responses_bucket()));
        all.write(&subjects.responses_bucket());
        all.keep(&stream_of(&subjects.seal_bucket()));
        all.write(&subjects.seal_bucket());
        all.keep(&stream_of(&subjects.budgets_bucket()));
        all.watch(&stream_of(&subjects.budgets_bucket()));
        all.write(&subjects.budgets_bucket());
        all.keep(usage_stream);
        // Who may change a stream's settings could empty it.
        all.make(&stream_of(&subjects.keys_bucket()));
        all.watch(&stream_of(&subjects.keys_bucket()));
        all
    }

    /// Of the worker `worker`.
    pub fn worker(subjects: &Subjects, worker: &Name, models: Models<'_>) -> Self {
        Self::workers(subjects, worker.as_str(), models)
    }

    /// Of the workers whose ids match the token `worker`.
    fn workers(subjects: &Subjects, worker: &str, models: Models<'_>) -> Self {
        let mut publish = vec![
            subjects.of(&format!("out.*.{worker}")),
            subjects.of(&format!("status.{worker}")),
            subjects.of(&format!("ctl.{worker}")),
            subjects.of(&format!("free.-.{worker}")),
        ];
        let mut subscribe = vec![
            subjects.of(&format!("ctl.{worker}")),
            subjects.of(&format!("ctl.{worker}.*")),
        ];
        for model in models.tokens() {
            publish.push(subjects.of(&format!("free.{model}.{worker}")));
            for family in Family::ALL {
                let queue = subjects.of(&format!("{}.{model}", family.token()));
                subscribe.push(format!("{queue} {QUEUE_GROUP}"));
                subscribe.push(format!("{queue}.{worker}"));
            }
        }
        subscribe.push("$SRV.*".to_owned());
        subscribe.push(format!("$SRV.*.{SERVICE_NAME}"));
        subscribe.push(format!("$SRV.*.{SERVICE_NAME}.*"));
        Self {
            publish,
            subscribe,
            answers: true,
        }
    }

    /// Of all coordinators.
    pub fn coordinator(subjects: &Subjects) -> Self {
        let mut all = Self {
            publish: vec![subjects.capacity(), subjects.coordinator_all(), subjects.event()],
            subscribe: vec![
                subjects.status_all(),
                subjects.capacity_get(),
                subjects.coordinator_all(),
            ],
            answers: true,
        };
        all.keep(&stream_of(&subjects.coordinator_bucket()));
        all.write(&subjects.coordinator_bucket());
        all
    }

    /// Of people who look at the cluster and drain workers: `tokenbus status`, `top`, `trace` and `drain`.
    pub fn operator(subjects: &Subjects) -> Self {
        Self {
            publish: vec![subjects.capacity_get(), subjects.of("ctl.*"), subjects.trace()],
            subscribe: vec![
                subjects.capacity(),
                subjects.status_all(),
                subjects.coordinator_all(),
                subjects.event(),
            ],
            answers: false,
        }
    }

    /// Of who makes and revokes API keys: `tokenbus keys --keys kv`.
    pub fn keys(subjects: &Subjects) -> Self {
        let mut all = Self::default();
        all.keep(&stream_of(&subjects.keys_bucket()));
        all.watch(&stream_of(&subjects.keys_bucket()));
        all.write(&subjects.keys_bucket());
        // To list what keys have used.
        all.read(&stream_of(&subjects.budgets_bucket()));
        all.watch(&stream_of(&subjects.budgets_bucket()));
        all
    }

    /// Of who reads the usage records, also those that the usage stream keeps.
    pub fn billing(subjects: &Subjects, usage_stream: &str) -> Self {
        let mut all = Self {
            subscribe: vec![subjects.usage()],
            ..Self::default()
        };
        all.read(usage_stream);
        all.watch(usage_stream);
        all.publish.extend([
            format!("$JS.API.CONSUMER.DURABLE.CREATE.{usage_stream}.*"),
            format!("$JS.API.CONSUMER.MSG.NEXT.{usage_stream}.*"),
            format!("$JS.ACK.{usage_stream}.>"),
        ]);
        all
    }

    /// Of a leaf node, through which all roles of a site reach the cluster. `domain` is that of the cluster's JetStream.
    pub fn site(subjects: &Subjects, usage_stream: &str, domain: &str) -> Self {
        let roles = [
            Self::gateway(subjects, usage_stream),
            Self::coordinator(subjects),
            Self::operator(subjects),
            Self::workers(subjects, "*", Models::All),
        ];
        let (mut publish, mut subscribe) = (BTreeSet::new(), BTreeSet::new());
        for role in roles {
            publish.extend(role.publish);
            // The leaf node subscribes for its clients, with their queue groups and without.
            subscribe.extend(role.subscribe);
        }
        Self {
            publish: publish.iter().map(|subject| in_domain(subject, domain)).collect(),
            subscribe: subscribe.into_iter().collect(),
            answers: true,
        }
    }

    /// Also the user's own inboxes, with this prefix. The answers to its questions come there, and must come to
    /// nobody else: those to gateways have keys and stored responses in them.
    #[must_use]
    pub fn with_inbox(mut self, prefix: &str) -> Self {
        let inbox = format!("{prefix}.>");
        self.publish.push(inbox.clone());
        self.subscribe.push(inbox);
        self
    }

    /// To make a stream, to change its settings, and to read it.
    fn keep(&mut self, stream: &str) {
        self.make(stream);
        self.publish.push(format!("$JS.API.STREAM.UPDATE.{stream}"));
    }

    /// To make a stream where there is none, and to read it.
    fn make(&mut self, stream: &str) {
        self.read(stream);
        self.publish.push(format!("$JS.API.STREAM.CREATE.{stream}"));
    }

    fn read(&mut self, stream: &str) {
        self.publish.extend([
            format!("$JS.API.STREAM.INFO.{stream}"),
            format!("$JS.API.STREAM.MSG.GET.{stream}"),
            format!("$JS.API.DIRECT.GET.{stream}"),
            format!("$JS.API.DIRECT.GET.{stream}.>"),
        ]);
    }

    fn watch(&mut self, stream: &str) {
        self.publish.extend([
            format!("$JS.API.CONSUMER.CREATE.{stream}"),
            format!("$JS.API.CONSUMER.CREATE.{stream}.>"),
            format!("$JS.API.CONSUMER.INFO.{stream}.*"),
            format!("$JS.API.CONSUMER.DELETE.{stream}.*"),
            format!("$JS.FC.{stream}.>"),
        ]);
    }

    fn write(&mut self, bucket: &str) {
        self.publish.push(format!("$KV.{bucket}.>"));
    }
}

/// The subject by which a leaf node reaches JetStream in `domain`; any other stays.
fn in_domain(subject: &str, domain: &str) -> String {
    match subject.strip_prefix("$JS.API.") {
        Some(call) => format!("$JS.{domain}.API.{call}"),
        None if subject.starts_with("$KV.") => format!("$JS.{domain}.API.{subject}"),
        None => subject.to_owned(),
    }
}

/// Name of the stream behind a bucket.
fn stream_of(bucket: &str) -> String {
    format!("KV_{bucket}")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn subjects() -> Subjects {
        Subjects::new(Name::new("tb").unwrap())
    }

    /// Whether a pattern covers a subject.
    fn covers(pattern: &str, subject: &str) -> bool {
        let (mut pattern, mut subject) = (pattern.split('.'), subject.split('.'));
        loop {
            match (pattern.next(), subject.next()) {
                (None, None) => return true,
                (Some(">"), Some(_)) => return true,
                (Some(one), Some(other)) if one == "*" || one == other => {}
                _ => return false,
            }
        }
    }

    fn may(list: &[String], subject: &str) -> bool {
        list.iter().any(|pattern| covers(pattern, subject))
    }

    #[test]
    fn each_subject_has_its_writers_and_readers_and_no_others() {
        let (s, w, model) = (subjects(), Name::new("w").unwrap(), "a/b".to_owned());
        let models = [model.clone()];
        let users = [
            ("gateway", Permissions::gateway(&s, "billing")),
            ("worker", Permissions::worker(&s, &w, Models::Only(&models))),
            ("coordinator", Permissions::coordinator(&s)),
            ("operator", Permissions::operator(&s)),
            ("keys", Permissions::keys(&s)),
            ("billing", Permissions::billing(&s, "billing")),
        ];
        let g = Name::new("g").unwrap();
        let other = Name::new("x").unwrap();
        let (e, t) = (Family::Embed, Family::Tokens);
        let cases: &[(String, &[&str], &[&str])] = &[
            (s.request(e, &model), &["gateway"], &[]),
            (s.request_to(t, &model, &w), &["gateway"], &["worker"]),
            (s.request_to(t, &model, &other), &["gateway"], &[]),
            (s.request_to(t, "c", &w), &["gateway"], &[]),
            (s.out(&g, &w), &["worker"], &["gateway"]),
            (s.out(&g, &other), &[], &["gateway"]),
            (s.reply(&g, 7, 1), &[], &["gateway"]),
            (s.status(&w), &["worker"], &["coordinator", "operator"]),
            (s.status(&other), &[], &["coordinator", "operator"]),
            (s.control(&w), &["gateway", "worker", "operator"], &["worker"]),
            (s.control(&other), &["gateway", "operator"], &[]),
            (s.watch(&w, &g), &[], &["worker"]),
            (s.free(&model, &w), &["worker"], &["gateway"]),
            (s.free(&model, &other), &[], &["gateway"]),
            (s.free("c", &w), &[], &["gateway"]),
            (s.news(&w), &["worker"], &["gateway"]),
            (s.news(&other), &[], &["gateway"]),
            (s.capacity(), &["coordinator"], &["gateway", "operator"]),
            (s.capacity_get(), &["gateway", "operator"], &["coordinator"]),
            (s.event(), &["coordinator"], &["gateway", "operator"]),
            (s.limits(), &["gateway"], &["gateway"]),
            (s.deadly(), &["gateway"], &["gateway"]),
            (s.trace(), &["operator"], &["gateway"]),
            (s.usage(), &["gateway"], &["billing"]),
            (s.coordinator(&g), &["coordinator"], &["coordinator", "operator"]),
            (Subjects::service("INFO"), &["gateway"], &["worker"]),
            ("$KV.tb_keys.alice".into(), &["keys"], &[]),
            ("$KV.tb_responses.all.r".into(), &["gateway"], &[]),
            ("$KV.tb_budgets.alice".into(), &["gateway"], &[]),
            ("$KV.tb_seal.keys".into(), &["gateway"], &[]),
            ("$JS.API.STREAM.MSG.GET.KV_tb_seal".into(), &["gateway"], &[]),
            ("$JS.API.STREAM.PURGE.KV_tb_budgets".into(), &[], &[]),
            ("$KV.tb_coordinator.leader".into(), &["coordinator"], &[]),
            ("$JS.API.STREAM.CREATE.KV_tb_keys".into(), &["gateway", "keys"], &[]),
            ("$JS.API.STREAM.UPDATE.KV_tb_keys".into(), &["keys"], &[]),
            ("$JS.API.STREAM.DELETE.KV_tb_keys".into(), &[], &[]),
            ("$JS.API.STREAM.PURGE.KV_tb_responses".into(), &[], &[]),
            ("_INBOX.U.x".into(), &[], &[]),
        ];
        for (subject, writers, readers) in cases {
            for (name, user) in &users {
                let (writes, reads) = (may(&user.publish, subject), may(&user.subscribe, subject));
                assert_eq!(writes, writers.contains(name), "{name} writes {subject}");
                assert_eq!(reads, readers.contains(name), "{name} reads {subject}");
            }
        }
    }

    #[test]
    fn a_worker_reads_a_queue_only_as_its_member() {
        let worker = |models| Permissions::worker(&subjects(), &Name::new("w").unwrap(), models);
        let models = ["a/b".to_owned()];
        let some = worker(Models::Only(&models));
        assert!(
            some.subscribe.contains(&"tb.v1.req.a=2Fb workers".to_owned()),
            "{some:?}"
        );
        let all = worker(Models::All);
        for pattern in ["tb.v1.emb.* workers", "tb.v1.emb.*.w"] {
            assert!(all.subscribe.contains(&pattern.to_owned()), "{all:?}");
        }
    }

    #[test]
    fn an_inbox_belongs_to_its_user() {
        let user = Permissions::operator(&subjects()).with_inbox("_INBOX.UA");
        assert!(may(&user.publish, "_INBOX.UA.x.1") && may(&user.subscribe, "_INBOX.UA.x.*"));
        assert!(!may(&user.subscribe, "_INBOX.UB.x") && !may(&user.subscribe, "_INBOX.>"));
    }
}
