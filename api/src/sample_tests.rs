//! Answers of engines that the translations are tested with, and ways to cut them.

use std::path::PathBuf;

use bytes::BytesMut;
use serde_json::{Value, json};
use tokenbus_protocol::{Delta, DeltaExtra, Finish, RawJson};

use crate::answer::{AnswerError, Failure, Form, Identity};

/// One answer.
pub(crate) struct Sample {
    pub(crate) name: &'static str,
    pub(crate) deltas: Vec<Delta<'static>>,
    /// `None` where the worker is lost.
    pub(crate) finish: Option<Finish>,
}

/// What the client of a lost worker is told.
pub(crate) const LOST: Failure<'static> = Failure {
    status: 502,
    kind: "server_error",
    message: "The worker of this stream was lost: \"killed\"",
    param: None,
    code: Some("worker_lost"),
    request_id: Some("req_1"),
};

pub(crate) fn text(text: &str) -> Delta<'static> {
    Delta {
        text: text.to_owned().into(),
        tokens: 1,
        ..Delta::default()
    }
}

pub(crate) fn members(members: &Value) -> Delta<'static> {
    let extra = DeltaExtra {
        delta: Some(RawJson::new(members.to_string()).unwrap()),
        ..DeltaExtra::default()
    };
    Delta {
        tokens: 1,
        extra: Some(Box::new(extra)),
        ..Delta::default()
    }
}

fn piece(index: u64, arguments: &str) -> Delta<'static> {
    members(&json!({"tool_calls": [{"index": index, "function": {"arguments": arguments}}]}))
}

fn call(index: u64, id: &str, name: &str) -> Delta<'static> {
    let function = json!({"name": name, "arguments": ""});
    members(&json!({"tool_calls": [{"index": index, "id": id, "type": "function", "function": function}]}))
}

pub(crate) fn end(reason: &str) -> Delta<'static> {
    Delta {
        finish_reason: Some(reason.to_owned()),
        ..Delta::default()
    }
}

fn stopped_by(stop: &str) -> Delta<'static> {
    let choice = json!({ "stop_reason": stop });
    let extra = DeltaExtra {
        choice: Some(RawJson::new(choice.to_string()).unwrap()),
        ..DeltaExtra::default()
    };
    Delta {
        extra: Some(Box::new(extra)),
        ..end("stop")
    }
}

fn likely(said: &str, logprob: f64) -> Delta<'static> {
    let token = json!({"token": said, "logprob": logprob, "bytes": said.as_bytes(), "top_logprobs": []});
    let extra = DeltaExtra {
        logprobs: Some(RawJson::new(json!({"content": [token], "refusal": null}).to_string()).unwrap()),
        ..DeltaExtra::default()
    };
    Delta {
        extra: Some(Box::new(extra)),
        ..text(said)
    }
}

fn counted(prompt: u64, completion: u64) -> Finish {
    Finish {
        prompt_tokens: Some(prompt),
        completion_tokens: Some(completion),
        ..Finish::default()
    }
}

fn detailed() -> Finish {
    let usage = json!({"prompt_tokens": 30, "completion_tokens": 12, "total_tokens": 42,
        "prompt_tokens_details": {"cached_tokens": 16}, "completion_tokens_details": {"reasoning_tokens": 5}});
    Finish {
        usage: Some(RawJson::new(usage.to_string()).unwrap()),
        ..counted(30, 12)
    }
}

/// Every kind of answer.
pub(crate) fn samples() -> Vec<Sample> {
    let sample = |name, deltas, finish| Sample { name, deltas, finish };
    let two_calls = || {
        vec![
            members(&json!({"reasoning_content": "Look "})),
            members(&json!({"reasoning_content": "both up."})),
            text("\n\n"),
            text("I'll look."),
            call(0, "call_a", "weather"),
            piece(0, "{\"city\":"),
            piece(0, " \"Z\u{fc}rich\"}"),
            text("\n"),
            call(1, "call_b", "time"),
            piece(1, "{}"),
        ]
    };
    let with_end = |mut deltas: Vec<Delta<'static>>, last| {
        deltas.push(last);
        deltas
    };
    vec![
        sample(
            "text",
            vec![text("Hello"), text(" \"w\u{f6}rld\"\n"), end("stop")],
            Some(counted(7, 2)),
        ),
        sample("calls", with_end(two_calls(), end("tool_calls")), Some(detailed())),
        sample(
            "cut",
            vec![text("Once upon"), text(" a"), end("length")],
            Some(counted(3, 2)),
        ),
        sample(
            "cut_in_a_call",
            vec![call(0, "", "write"), piece(0, "{\"text\": \"Once up"), end("length")],
            Some(counted(3, 9)),
        ),
        sample(
            "filtered",
            vec![text("Well,"), end("content_filter")],
            Some(counted(3, 1)),
        ),
        sample(
            "refused",
            vec![
                members(&json!({"refusal": "I can't "})),
                members(&json!({"refusal": "do that."})),
                end("stop"),
            ],
            Some(counted(4, 5)),
        ),
        sample("stopped", vec![text("1, 2, "), stopped_by("3")], Some(counted(4, 4))),
        sample(
            "likely",
            vec![likely("A", -0.25), likely(" b", -1.5), end("stop")],
            Some(counted(2, 2)),
        ),
        sample("empty", vec![end("stop")], Some(Finish::default())),
        sample("lost", two_calls(), None),
        sample("lost_in_text", vec![text("Half a")], None),
    ]
}

/// The answer in pieces of other sizes: each text is cut at the characters that `cuts` say.
pub(crate) fn cut(deltas: &[Delta<'static>], mut cuts: impl Iterator<Item = usize>) -> Vec<Delta<'static>> {
    let mut all = Vec::new();
    for delta in deltas {
        // Log probabilities belong to a whole token.
        if delta.text.is_empty() || delta.extra.is_some() {
            all.push(delta.clone());
            continue;
        }
        let mut rest = delta.text.chars();
        while !rest.as_str().is_empty() {
            let said: String = rest.by_ref().take(cuts.next().unwrap().max(1)).collect();
            all.push(text(&said));
        }
    }
    all
}

pub(crate) fn identity(prefix: &str) -> Identity {
    Identity {
        id: format!("{prefix}0123456789abcdef0123456789abcdef"),
        created: 1_700_000_000,
        model: "org/m:7b".to_owned(),
    }
}

/// The whole stream.
pub(crate) fn stream(form: &dyn Form, prefix: &str, deltas: &[Delta<'static>], finish: Option<&Finish>) -> String {
    let mut encoder = form.encoder(identity(prefix));
    let mut out = BytesMut::new();
    encoder.begin(&mut out);
    for delta in deltas {
        encoder.delta(delta, &mut out).unwrap();
    }
    match finish {
        Some(finish) => encoder.finish(finish, &mut out).unwrap(),
        None => encoder.fail(&LOST, &mut out),
    }
    String::from_utf8(out.to_vec()).unwrap()
}

/// The answer in one piece.
pub(crate) fn whole(
    form: &dyn Form,
    prefix: &str,
    deltas: &[Delta<'static>],
    finish: &Finish,
) -> Result<String, AnswerError> {
    let mut collector = form.collector(identity(prefix));
    for delta in deltas {
        collector.delta(delta)?;
    }
    Ok(String::from_utf8(collector.finish(finish)?.to_vec()).unwrap())
}

/// The events of a stream: name and data.
pub(crate) fn events(stream: &str) -> Vec<(String, Value)> {
    stream
        .split_terminator("\n\n")
        .map(|event| {
            let (name, data) = event.split_once('\n').unwrap();
            let name = name.strip_prefix("event: ").unwrap().to_owned();
            let data: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
            assert_eq!(
                data["type"],
                name.as_str(),
                "the event's line and its data say the same"
            );
            (name, data)
        })
        .collect()
}

/// Compares `text` with the file `name` in the folder `golden` of the API `api`. With
/// `TOKENBUS_GOLDEN=write` in the environment it is written instead.
pub(crate) fn golden(api: &str, name: &str, text: &str) {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "src", api, "golden", name]
        .iter()
        .collect();
    if std::env::var("TOKENBUS_GOLDEN").is_ok_and(|what| what == "write") {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
    }
    let want = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(text, want, "{}", path.display());
}
