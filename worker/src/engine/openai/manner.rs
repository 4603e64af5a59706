//! How a server is asked: in a stream or in one piece, and without which of the members that tokenbus
//! adds. A server's refusals teach it. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use http::StatusCode;

use crate::engine::openai::limits::LEARNED_FOR;
use crate::engine::openai::options::Streaming;

/// How one request is asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Manner {
    /// What the operator says.
    pub(crate) streaming: Streaming,
    /// Which requests go in one piece, because the server refused them as streams.
    pub(crate) whole: Whole,
    /// Members that tokenbus adds and this server refuses, as paths.
    pub(crate) without: BTreeSet<String>,
    /// The slot of a llama-server that is to run it; `None`: any.
    pub(crate) slot: Option<u32>,
}

/// Which requests a server refuses as streams.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Whole {
    /// None that is known.
    #[default]
    None,
    /// Those with tools.
    WithTools,
    /// All.
    Always,
}

/// What a request was when it was sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Sent {
    /// It was asked in one piece.
    pub(crate) whole: bool,
    /// It may be asked in one piece after a refusal.
    pub(crate) can_be_whole: bool,
    /// It has tools.
    pub(crate) tools: bool,
    /// Members in it that tokenbus added, as paths.
    pub(crate) added: Vec<String>,
}

/// A server's refusal, as it wrote it.
#[derive(Debug, Clone)]
pub(crate) struct Refused {
    pub(crate) status: StatusCode,
    pub(crate) body: String,
    /// Whether it came within an answer that had begun well: the server had read the request by then.
    pub(crate) begun: bool,
}

impl Manner {
    /// How to ask again after `refused`; `None` where the refusal is about the client's own request.
    /// `proven` are members that this server has taken before.
    pub(crate) fn after(&self, refused: &Refused, sent: &Sent, proven: &BTreeSet<String>) -> Option<Self> {
        let status = refused.status.as_u16();
        let about_the_request = matches!(status, 400 | 403 | 405 | 406 | 415 | 422 | 500 | 501);
        if !about_the_request {
            return None;
        }
        let text = refused.body.to_ascii_lowercase();
        let named: Vec<&String> = sent.added.iter().filter(|path| names(&text, last(path))).collect();
        if !named.is_empty() {
            return Some(self.leaving_out(named));
        }
        if !sent.whole && sent.can_be_whole && self.streaming != Streaming::Always && speaks_of_streams(&text) {
            // A failure that only mentions a stream says less than a refusal.
            if status < 500 || status == 501 || sent.tools {
                let whole = if sent.tools && self.whole == Whole::None {
                    Whole::WithTools
                } else {
                    Whole::Always
                };
                return Some(Self { whole, ..self.clone() });
            }
        }
        let unproven: Vec<&String> = sent.added.iter().filter(|path| !proven.contains(*path)).collect();
        (matches!(status, 400 | 422) && !refused.begun && !unproven.is_empty()).then(|| self.leaving_out(unproven))
    }

    fn leaving_out(&self, paths: Vec<&String>) -> Self {
        let mut next = self.clone();
        next.without.extend(paths.into_iter().cloned());
        next
    }
}

/// What one server has taught, by its names of models.
#[derive(Debug, Default)]
pub(crate) struct Lessons {
    by_model: BTreeMap<String, Lesson>,
}

#[derive(Debug, Default)]
struct Lesson {
    manner: Manner,
    learned_at: Option<Instant>,
    proven: BTreeSet<String>,
}

impl Lessons {
    /// How to ask for `model` at `now`, and the added members that were taken before. What was learned
    /// long ago is tried afresh: servers are replaced.
    pub(crate) fn of(&mut self, model: &str, now: Instant) -> (Manner, BTreeSet<String>) {
        let Some(lesson) = self.by_model.get_mut(model) else {
            return (Manner::default(), BTreeSet::new());
        };
        let age = lesson.learned_at.map(|at| now.saturating_duration_since(at));
        if age.is_some_and(|age| age > LEARNED_FOR) {
            *lesson = Lesson::default();
        }
        (lesson.manner.clone(), lesson.proven.clone())
    }

    /// The server took a request that was `sent` in this `manner`. Whether that is news.
    pub(crate) fn worked(&mut self, model: &str, manner: &Manner, sent: &Sent, now: Instant) -> bool {
        let known = self.by_model.get(model);
        let proven = |lesson: &Lesson| sent.added.iter().all(|path| lesson.proven.contains(path));
        if known.is_some_and(|lesson| {
            lesson.manner.whole == manner.whole && lesson.manner.without == manner.without && proven(lesson)
        }) {
            return false;
        }
        let lesson = self.by_model.entry(model.to_owned()).or_default();
        lesson.proven.extend(sent.added.iter().cloned());
        let taught = lesson.manner.whole < manner.whole || !manner.without.is_subset(&lesson.manner.without);
        if taught {
            lesson.manner.whole = lesson.manner.whole.max(manner.whole);
            lesson.manner.without.extend(manner.without.iter().cloned());
            lesson.learned_at = Some(now);
        }
        taught
    }
}

impl Refused {
    /// Whether the refusal names `member`.
    pub(crate) fn names(&self, member: &str) -> bool {
        names(&self.body.to_ascii_lowercase(), member)
    }
}

/// The last name of a path.
fn last(path: &str) -> &str {
    path.rsplit('.').next().unwrap_or(path)
}

/// Whether `text` has `name` as a word of its own.
fn names(text: &str, name: &str) -> bool {
    words(text).any(|word| word == name)
}

fn speaks_of_streams(text: &str) -> bool {
    words(text).any(|word| matches!(word, "stream" | "streams" | "streamed" | "streaming"))
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn refused(status: u16, body: &str) -> Refused {
        Refused {
            begun: false,
            status: StatusCode::from_u16(status).unwrap_or_default(),
            body: body.to_owned(),
        }
    }

    fn sent(added: &[&str]) -> Sent {
        Sent {
            can_be_whole: true,
            added: added.iter().map(|path| (*path).to_owned()).collect(),
            ..Sent::default()
        }
    }

    fn set(paths: &[&str]) -> BTreeSet<String> {
        paths.iter().map(|path| (*path).to_owned()).collect()
    }

    #[test]
    fn a_member_that_a_refusal_names_is_left_out_and_no_other() {
        let added = sent(&["stream_options", "chat_template_kwargs.enable_thinking"]);
        let after = |status, text: &str| Manner::default().after(&refused(status, text), &added, &BTreeSet::new());
        let manner = after(422, r#"{"detail":[{"loc":["body","stream_options"],"msg":"extra"}]}"#);
        assert_eq!(manner.map(|manner| manner.without), Some(set(&["stream_options"])));
        let manner = after(500, "enable_thinking is unknown");
        assert_eq!(
            manner.map(|manner| manner.without),
            Some(set(&["chat_template_kwargs.enable_thinking"]))
        );
        assert_eq!(after(429, "stream_options"), None, "that is not about the request");
        assert_eq!(after(500, "a tensor exploded"), None);
    }

    #[test]
    fn a_first_refusal_without_a_name_is_tried_without_all_that_is_not_proven() {
        let added = sent(&["stream_options", "reasoning_effort"]);
        let none = BTreeSet::new();
        let manner = Manner::default().after(&refused(400, "bad request"), &added, &none);
        let manner = manner.unwrap_or_default();
        assert_eq!(manner.without, set(&["stream_options", "reasoning_effort"]));
        assert_eq!(
            manner.after(&refused(400, "bad request"), &sent(&[]), &none),
            None,
            "then it is the client's"
        );
        let begun = Refused {
            begun: true,
            ..refused(400, "bad schema")
        };
        assert_eq!(
            Manner::default().after(&begun, &added, &none),
            None,
            "it took the members"
        );
        let proven = set(&["stream_options", "reasoning_effort"]);
        assert_eq!(
            Manner::default().after(&refused(400, "bad request"), &added, &proven),
            None
        );
    }

    #[test]
    fn a_refused_stream_is_asked_in_one_piece() {
        let none = BTreeSet::new();
        let refusal = refused(400, r#"{"error":{"message":"not enabled","param":"stream"}}"#);
        let after = |manner: &Manner, sent: &Sent| manner.after(&refusal, sent, &none).map(|manner| manner.whole);
        let tools = Sent {
            tools: true,
            ..sent(&[])
        };
        assert_eq!(after(&Manner::default(), &sent(&[])), Some(Whole::Always));
        assert_eq!(after(&Manner::default(), &tools), Some(Whole::WithTools));
        let whole = Sent {
            whole: true,
            ..sent(&[])
        };
        assert_eq!(after(&Manner::default(), &whole), None);
        assert_eq!(
            after(&Manner::default(), &Sent::default()),
            None,
            "the client wants a stream of what has none"
        );
        let always = Manner {
            streaming: Streaming::Always,
            ..Manner::default()
        };
        assert_eq!(after(&always, &sent(&[])), None);
        let failure = refused(500, "tools and streams exclude each other");
        assert!(Manner::default().after(&failure, &tools, &none).is_some());
        assert_eq!(Manner::default().after(&failure, &sent(&[]), &none), None);
        let upstream = refused(400, "upstream_error stream_options");
        assert_eq!(
            Manner::default().after(&upstream, &sent(&[]), &none),
            None,
            "words, not letters"
        );
    }

    #[test]
    fn what_worked_is_remembered_for_its_model_and_for_a_time() {
        let (mut lessons, now) = (Lessons::default(), Instant::now());
        let manner = Manner {
            whole: Whole::WithTools,
            without: set(&["stream_options"]),
            ..Manner::default()
        };
        assert!(lessons.worked("m", &manner, &sent(&["reasoning_effort"]), now));
        assert!(!lessons.worked("m", &manner, &sent(&["reasoning_effort"]), now));
        assert_eq!(lessons.of("m", now), (manner, set(&["reasoning_effort"])));
        assert_eq!(lessons.of("other", now).0, Manner::default());
        let later = now + LEARNED_FOR + Duration::from_secs(1);
        assert_eq!(lessons.of("m", later), (Manner::default(), BTreeSet::new()));
    }
}
