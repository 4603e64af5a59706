//! Chunks that cut characters, and the text that the client gets.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use tokenbus_http_parts::Event;
use tokenbus_protocol::{Delta, RawJson};

use crate::engine::openai::answer::streamed::{Answer, Step};
use crate::engine::openai::error::Secrets;
use crate::engine::openai::request::count::Counting;
use crate::engine::openai::request::engine_request::{Asked, Call};
use crate::engine::openai::request::seam::Seam;
use crate::engine::openai::target::UsageRule;

fn call() -> Call {
    Call {
        body: Bytes::new(),
        choice: None,
        choices: 1,
        each: 1,
        echoes: Vec::new(),
        delivered: 0,
        again: 0,
        continues: false,
        seam: Seam::Open,
        counting: Counting::Chunks,
        asked: Asked::default(),
        otherwise: None,
    }
}

/// What comes of events: choice, text, tokens and finish reason of each delta.
fn said(events: &[String]) -> Vec<(u32, String, u32, Option<String>)> {
    let call = call();
    let secrets = Secrets::default();
    let mut answer = Answer::new(&call, UsageRule::Last, &secrets);
    let mut deltas = Vec::new();
    for data in events {
        let event = Event {
            name: b"",
            data: data.as_bytes(),
        };
        let mut emit = |delta: Delta<'_>| {
            let reason = delta.finish_reason.clone();
            deltas.push((delta.choice, delta.text.to_string(), delta.tokens, reason));
            Ok(())
        };
        let step = answer.event(event, &mut emit).unwrap();
        assert_eq!(step == Step::Done, data == "[DONE]");
    }
    deltas
}

fn chat(content: &str) -> String {
    format!(r#"{{"choices":[{{"index":0,"delta":{{"content":"{content}"}},"finish_reason":null}}]}}"#)
}

fn texts(contents: &[&str]) -> Vec<(String, u32)> {
    let events: Vec<String> = contents.iter().map(|content| chat(content)).collect();
    let deltas = said(&events).into_iter();
    deltas.map(|(_, text, tokens, _)| (text, tokens)).collect()
}

#[test]
fn a_character_cut_between_chunks_arrives_whole() {
    type Case<'a> = (&'a [&'a str], &'a [(&'a str, u32)]);
    let table: [Case<'_>; 8] = [
        (&["ok ", r"\ud83d", r"\ude00", "!"], &[("ok ", 1), ("😀", 2), ("!", 1)]),
        (
            &["a", r"b \ud83d", r"\ude00 c", "d"],
            &[("a", 1), ("b ", 1), ("😀 c", 1), ("d", 1)],
        ),
        (&[r"\ud83d", r"\ude00\ud83d", r"\ude01"], &[("😀", 2), ("😁", 1)]),
        // The other half never comes.
        (&["a", r"\ud83d", "b", "c"], &[("a", 1), ("\u{fffd}b", 2), ("c", 1)]),
        (&["a", r"\ude00", "b"], &[("a", 1), ("\u{fffd}", 1), ("b", 1)]),
        (&[r"\ud83d", r"\ud83d", r"\ude00"], &[("\u{fffd}", 2), ("😀", 1)]),
        // A chunk that says nothing comes between.
        (&[r"\ud83d", "", r"\ude00"], &[("😀", 2)]),
        // No half: a backslash and letters.
        (&["a", r"\\ud83d", r"ude00"], &[("a", 1), (r"\ud83d", 1), ("ude00", 1)]),
    ];
    for (contents, wanted) in table {
        let wanted: Vec<_> = wanted
            .iter()
            .map(|(text, tokens)| ((*text).to_owned(), *tokens))
            .collect();
        assert_eq!(texts(contents), wanted, "{contents:?}");
    }
}

#[test]
fn choices_have_their_own_halves() {
    let chunk = |index, text: &str| format!(r#"{{"choices":[{{"index":{index},"text":"{text}"}}]}}"#);
    let events = [
        chunk(0, r"\ud83d"),
        chunk(1, r"x\ud83d"),
        chunk(0, r"\ude00"),
        chunk(1, r"\ude01"),
    ];
    let texts: Vec<_> = said(&events)
        .into_iter()
        .map(|(choice, text, ..)| (choice, text))
        .collect();
    assert_eq!(texts, [(1, "x".into()), (0, "😀".into()), (1, "😁".into())]);
}

#[test]
fn a_half_at_the_end_of_an_answer_is_an_unknown_character() {
    let half = chat(r"a\ud83d");
    let finish = r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#.to_owned();
    let done = "[DONE]".to_owned();
    for events in [vec![half.clone(), finish, done.clone()], vec![half, done]] {
        let deltas = said(&events);
        let text: String = deltas.iter().map(|(_, text, ..)| text.as_str()).collect();
        assert_eq!(text, "a\u{fffd}");
        assert_eq!(deltas.last().and_then(|last| last.3.as_deref()), Some("stop"));
    }
    let within = r#"{"choices":[{"index":0,"delta":{"content":"\ud83d"},"finish_reason":"length"}]}"#;
    assert_eq!(
        said(&[within.to_owned()]),
        [(0, "\u{fffd}".into(), 1, Some("length".into()))]
    );
}

#[test]
fn other_members_of_such_a_chunk_are_kept() {
    let with = r#"{"choices":[{"index":0,"delta":{"content":"\ud83d"},"logprobs":{"content":[{"token":"\ud83d"}]}}]}"#;
    let deltas = said(&[with.to_owned(), chat(r"\ude00")]);
    let texts: Vec<_> = deltas.into_iter().map(|(_, text, tokens, _)| (text, tokens)).collect();
    assert_eq!(texts, [(String::new(), 1), ("😀".into(), 1)]);
}

#[test]
fn the_halves_in_other_members_of_a_delta_are_left_to_the_gateway() {
    let call = call();
    let secrets = Secrets::default();
    let mut answer = Answer::new(&call, UsageRule::Last, &secrets);
    let data = r#"{"choices":[{"index":0,"x":"\ud83d","delta":{"reasoning_content":"so \ud83d"}}]}"#;
    let event = Event {
        name: b"",
        data: data.as_bytes(),
    };
    let mut emit = |delta: Delta<'_>| {
        let extra = delta.extra.unwrap();
        let json = |members: Option<RawJson>| members.unwrap().get().to_owned();
        assert_eq!(json(extra.delta), r#"{"reasoning_content":"so \ud83d"}"#);
        assert_eq!(json(extra.choice), r#"{"x":"\ufffd"}"#);
        Ok(())
    };
    assert_eq!(answer.event(event, &mut emit), Ok(Step::More));
}
