//! The objects of an answer: one on each line of a stream, or one for the whole.

use std::time::{Duration, UNIX_EPOCH};

use bytes::{BufMut as _, BytesMut};
use serde::Serialize;
use serde_json::value::RawValue;
use tokenbus_protocol::Finish;

use super::tool_calls::WholeCall;
use crate::answer::{Template, Times, json};

/// Whether an answer is a chat's or a generation's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// `/api/chat`.
    Chat,
    /// `/api/generate`.
    Generate,
}

/// What all lines of an answer share.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) kind: Kind,
    /// The model, by the name that the client used.
    pub(super) model: String,
    pub(super) created_at: String,
}

/// What one line brings.
#[derive(Debug, Default)]
pub(super) struct Piece<'a> {
    pub(super) text: &'a str,
    pub(super) thinking: &'a str,
    pub(super) calls: &'a [WholeCall<'a>],
    /// The elements of an array, without brackets.
    pub(super) logprobs: &'a str,
}

#[derive(Serialize)]
struct Line<'a> {
    model: &'a str,
    created_at: &'a str,
    #[serde(flatten)]
    output: Output<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    logprobs: Option<Box<RawValue>>,
    done: bool,
    #[serde(flatten)]
    end: Option<End<'a>>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Output<'a> {
    Chat {
        message: Message<'a>,
    },
    Generate {
        response: &'a str,
        #[serde(skip_serializing_if = "str::is_empty")]
        thinking: &'a str,
    },
}

#[derive(Serialize)]
struct Message<'a> {
    role: &'static str,
    content: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    thinking: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    tool_calls: &'a [WholeCall<'a>],
}

/// Why an answer ended, and what it cost. Times are nanoseconds.
#[derive(Debug, Serialize)]
pub(super) struct End<'a> {
    done_reason: &'a str,
    #[serde(flatten)]
    metrics: Option<Metrics>,
}

#[derive(Debug, Serialize)]
struct Metrics {
    total_duration: u64,
    /// The worker's engine has loaded its model before it joins.
    load_duration: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_eval_count: Option<u64>,
    prompt_eval_duration: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    eval_count: Option<u64>,
    eval_duration: u64,
}

impl<'a> End<'a> {
    /// The end of an answer that an engine gave.
    pub(super) fn new(reason: Option<&str>, finish: &Finish, times: Times) -> Self {
        let counts = crate::answer::usage::Counts::of(finish);
        let first = times.first.unwrap_or(times.total);
        Self {
            done_reason: if reason == Some("length") { "length" } else { "stop" },
            metrics: Some(Metrics {
                total_duration: nanos(times.total),
                load_duration: 0,
                prompt_eval_count: counts.map(|counts| counts.prompt).or(finish.prompt_tokens),
                prompt_eval_duration: nanos(first),
                eval_count: counts.map(|counts| counts.completion).or(finish.completion_tokens),
                eval_duration: nanos(times.total.saturating_sub(first)),
            }),
        }
    }

    /// The end of a request that asked for no output.
    pub(super) fn without_output(reason: &'a str) -> Self {
        Self {
            done_reason: reason,
            metrics: None,
        }
    }
}

/// Whole nanoseconds.
pub(super) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl Head {
    /// The lines of an answer that was created at this Unix time, in seconds.
    pub(super) fn new(kind: Kind, model: String, created: u64) -> Self {
        Self {
            kind,
            model,
            created_at: time(created),
        }
    }

    /// Appends an object.
    pub(super) fn push(&self, piece: &Piece<'_>, end: Option<End<'_>>, out: &mut BytesMut) {
        let output = match self.kind {
            Kind::Chat => Output::Chat {
                message: Message {
                    role: "assistant",
                    content: piece.text,
                    thinking: piece.thinking,
                    tool_calls: piece.calls,
                },
            },
            Kind::Generate => Output::Generate {
                response: piece.text,
                thinking: piece.thinking,
            },
        };
        let logprobs = Some(piece.logprobs).filter(|elements| !elements.is_empty());
        let logprobs = logprobs.and_then(|elements| RawValue::from_string(format!("[{elements}]")).ok());
        let line = Line {
            model: &self.model,
            created_at: &self.created_at,
            output,
            logprobs,
            done: end.is_some(),
            end,
        };
        json::push(out, &line);
    }

    /// Appends an object as a line of a stream.
    pub(super) fn push_line(&self, piece: &Piece<'_>, end: Option<End<'_>>, out: &mut BytesMut) {
        self.push(piece, end, out);
        out.put_u8(b'\n');
    }

    /// The line of plain text.
    pub(super) fn template(&self) -> Template {
        let mut before = BytesMut::from("{\"model\":");
        json::push_string(&mut before, &self.model);
        before.extend_from_slice(b",\"created_at\":");
        json::push_string(&mut before, &self.created_at);
        let (opening, after): (&[u8], &[u8]) = match self.kind {
            Kind::Chat => (
                b",\"message\":{\"role\":\"assistant\",\"content\":\"",
                b"\"},\"done\":false}\n",
            ),
            Kind::Generate => (b",\"response\":\"", b"\",\"done\":false}\n"),
        };
        before.extend_from_slice(opening);
        Template::new(before, after)
    }
}

/// A Unix time in seconds as Ollama writes times.
pub(super) fn time(seconds: u64) -> String {
    let time = UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
    humantime::format_rfc3339_seconds(time.unwrap_or(UNIX_EPOCH)).to_string()
}
