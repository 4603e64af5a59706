//! Answers in Ollama's form: golden transcripts, and whatever the cut, the lines add up to the answer.

use std::time::Duration;

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::sample_tests::{LOST, cut, identity, samples, stream, text, whole};
use crate::sample_tests::{golden, members};

fn form(kind: Kind) -> OllamaForm {
    OllamaForm {
        kind,
        stream: true,
        model: "m:latest".to_owned(),
    }
}

fn lines(stream: &str) -> Vec<Value> {
    assert!(stream.ends_with('\n'));
    stream.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn streams_are_as_they_were() {
    for (kind, name) in [(Kind::Chat, "chat"), (Kind::Generate, "generate")] {
        for sample in samples() {
            let stream = stream(&form(kind), "", &sample.deltas, sample.finish.as_ref());
            golden("ollama", &format!("{name}_{}.ndjson", sample.name), &stream);
        }
    }
}

#[test]
fn whole_answers_are_as_they_were() {
    for sample in samples() {
        let Some(finish) = &sample.finish else { continue };
        let whole = whole(&form(Kind::Chat), "", &sample.deltas, finish).unwrap();
        golden("ollama", &format!("{}.json", sample.name), &whole);
    }
}

#[test]
fn an_engine_that_says_nothing_has_given_no_answer() {
    let nothing = whole(&form(Kind::Chat), "", &[], &Finish::default());
    assert_eq!(nothing, Err(AnswerError::NoAnswer));
}

#[test]
fn plain_text_and_the_sign_of_life_are_lines_like_those_that_serde_writes() {
    for kind in [Kind::Chat, Kind::Generate] {
        let mut encoder = form(kind).encoder(identity(""));
        let mut out = BytesMut::new();
        encoder.delta(&text("a\u{2028}\"b\"\n"), &mut out).unwrap();
        let mut want = BytesMut::new();
        let piece = Piece {
            text: "a\u{2028}\"b\"\n",
            ..Piece::default()
        };
        let head = Head::new(kind, "m:latest".to_owned(), identity("").created);
        head.push_line(&piece, None, &mut want);
        assert_eq!(out, want);
        let mut lent = BytesMut::new();
        encoder.template().unwrap().write("a\u{2028}\"b\"\n", &mut lent);
        assert_eq!(lent, want);
        let alive = lines(std::str::from_utf8(encoder.keep_alive()).unwrap());
        assert_eq!((alive.len(), &alive[0]["done"]), (1, &Value::Bool(false)));
    }
}

#[test]
fn the_times_are_those_of_the_request() {
    let mut encoder = form(Kind::Chat).encoder(identity(""));
    let mut out = BytesMut::new();
    encoder.delta(&text("a"), &mut out).unwrap();
    encoder.times(Times {
        total: Duration::from_millis(50),
        first: Some(Duration::from_millis(20)),
    });
    let finish = Finish {
        prompt_tokens: Some(3),
        completion_tokens: None,
        ..Finish::default()
    };
    encoder.finish(&finish, &mut out).unwrap();
    let end = lines(std::str::from_utf8(&out).unwrap()).pop().unwrap();
    let of = |name: &str| end[name].as_u64();
    assert_eq!(of("total_duration"), Some(50_000_000));
    assert_eq!(of("prompt_eval_duration"), Some(20_000_000));
    assert_eq!(of("eval_duration"), Some(30_000_000));
    assert_eq!((of("prompt_eval_count"), of("eval_count")), (Some(3), None));
}

#[test]
fn a_failure_is_the_last_line() {
    let mut encoder = form(Kind::Chat).encoder(identity(""));
    let mut out = BytesMut::new();
    encoder.fail(&LOST, &mut out);
    assert_eq!(
        lines(std::str::from_utf8(&out).unwrap()),
        [serde_json::json!({"error": LOST.message})]
    );
}

#[test]
fn arguments_that_are_an_object_already_stay_it() {
    let call = serde_json::json!({"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": {"a": 1.0}}}]});
    let stream = stream(&form(Kind::Chat), "", &[members(&call)], Some(&Finish::default()));
    let function = &lines(&stream)[0]["message"]["tool_calls"][0]["function"];
    assert_eq!(function["arguments"], serde_json::json!({"a": 1.0}));
}

proptest! {
    #[test]
    fn the_lines_of_a_stream_add_up_to_the_answer(at in 0..11_usize, cuts in proptest::collection::vec(0..4_usize, 200)) {
        let samples = samples();
        let Some(finish) = &samples[at].finish else { return Ok(()) };
        let deltas = cut(&samples[at].deltas, cuts.into_iter().cycle());
        let lines = lines(&stream(&form(Kind::Chat), "", &deltas, Some(finish)));
        let all = |name: &str| lines.iter().filter_map(|line| line["message"][name].as_str()).collect::<String>();
        let whole: Value = serde_json::from_str(&whole(&form(Kind::Chat), "", &deltas, finish).unwrap()).unwrap();
        prop_assert_eq!(all("content"), whole["message"]["content"].as_str().unwrap());
        prop_assert_eq!(all("thinking"), whole["message"]["thinking"].as_str().unwrap_or_default());
        let calls = lines.iter().find_map(|line| line["message"].get("tool_calls"));
        prop_assert_eq!(calls, whole["message"].get("tool_calls"));
        let done = lines.iter().filter(|line| line["done"] == true).count();
        prop_assert_eq!((done, &lines[lines.len() - 1]["done_reason"]), (1, &whole["done_reason"]));
    }
}
