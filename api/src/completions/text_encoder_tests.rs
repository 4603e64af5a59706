//! Golden events of a streamed text completion.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use tokenbus_protocol::RawJson;
use uuid::Uuid;

use tokenbus_protocol::{Delta, DeltaExtra, Finish};

use super::*;
use crate::answer::{AnswerError, Encoder as _, Identity};
use crate::generation::encoder::ChunkEncoder;

fn encoder(include_usage: bool) -> ChunkEncoder<TextStyle> {
    let identity = Identity::new("cmpl-", Uuid::from_u128(1), 1_700_000_000, "m");
    ChunkEncoder::new(identity, include_usage)
}

fn text(choice: u32, text: &str) -> Delta<'static> {
    Delta {
        choice,
        text: text.to_owned().into(),
        ..Delta::default()
    }
}

fn encoded(encoder: &mut ChunkEncoder<TextStyle>, deltas: &[Delta<'_>], finish: &Finish) -> Vec<String> {
    let mut out = BytesMut::new();
    for delta in deltas {
        encoder.delta(delta, &mut out).unwrap();
    }
    encoder.finish(finish, &mut out).unwrap();
    let text = String::from_utf8(out.to_vec()).unwrap();
    let events = text.split_terminator("\n\n");
    events
        .map(|event| event.strip_prefix("data: ").unwrap().to_owned())
        .collect()
}

#[test]
fn a_plain_stream_byte_for_byte() {
    let end = Delta {
        finish_reason: Some("length".to_owned()),
        ..text(0, "\n")
    };
    let events = encoded(
        &mut encoder(false),
        &[text(0, "a\"b"), text(0, ""), end],
        &Finish::default(),
    );
    let head = concat!(
        r#"{"id":"cmpl-00000000000000000000000000000001","object":"text_completion","created":1700000000,"#,
        r#""model":"m","choices":["#
    );
    assert_eq!(
        events,
        [
            format!(r#"{head}{{"text":"a\"b","index":0,"logprobs":null,"finish_reason":null}}]}}"#),
            format!(r#"{head}{{"text":"\n","index":0,"logprobs":null,"finish_reason":"length"}}]}}"#),
            "[DONE]".to_owned(),
        ]
    );
}

#[test]
fn choices_usage_and_what_the_engine_adds_go_through() {
    let extra = DeltaExtra {
        choice: Some(RawJson::new(r#"{"stop_reason":7}"#).unwrap()),
        chunk: Some(RawJson::new(r#"{"timings":{"n":1}}"#).unwrap()),
        fingerprint: Some("fp".to_owned()),
        ..DeltaExtra::default()
    };
    let rich = Delta {
        extra: Some(Box::new(extra)),
        ..text(1, "x")
    };
    let finish = Finish {
        prompt_tokens: Some(1),
        completion_tokens: Some(2),
        ..Finish::default()
    };
    let events = encoded(&mut encoder(true), &[text(0, "a"), rich], &finish);
    let parsed: Vec<serde_json::Value> = events[..3].iter().map(|e| serde_json::from_str(e).unwrap()).collect();
    assert_eq!(parsed[0]["usage"], serde_json::Value::Null);
    assert_eq!(parsed[1]["choices"][0]["index"], 1);
    assert_eq!(parsed[1]["choices"][0]["stop_reason"], 7);
    assert_eq!(
        (&parsed[1]["timings"]["n"], &parsed[1]["system_fingerprint"]),
        (&1.into(), &"fp".into())
    );
    assert_eq!(parsed[2]["choices"], serde_json::json!([]));
    assert_eq!(parsed[2]["usage"]["total_tokens"], 3);
    assert_eq!(events[3], "[DONE]");
}

#[test]
fn log_probabilities_in_the_chats_form_are_turned_into_the_completions() {
    let chat =
        r#"{"content":[{"token":"b","logprob":-0.5,"bytes":[98],"top_logprobs":[{"token":"c","logprob":-1.5}]}]}"#;
    let with = |json: &str| Delta {
        extra: Some(Box::new(DeltaExtra {
            logprobs: Some(RawJson::new(json).unwrap()),
            ..DeltaExtra::default()
        })),
        ..text(0, "b")
    };
    let events = encoded(&mut encoder(false), &[text(0, "aé"), with(chat)], &Finish::default());
    let event: serde_json::Value = serde_json::from_str(&events[1]).unwrap();
    assert_eq!(
        event["choices"][0]["logprobs"],
        serde_json::json!({"tokens": ["b"], "token_logprobs": [-0.5], "top_logprobs": [{"c": -1.5}], "text_offset": [2]})
    );
}

#[test]
fn an_empty_stream_and_a_choice_beyond_the_bound_are_no_answers() {
    let mut out = BytesMut::new();
    assert_eq!(
        encoder(false).finish(&Finish::default(), &mut out),
        Err(AnswerError::NoAnswer)
    );
    let beyond = text(MAX_TEXT_CHOICES, "a");
    let refused = encoder(false).delta(&beyond, &mut out);
    assert_eq!(refused, Err(AnswerError::TooManyChoices(MAX_TEXT_CHOICES)));
    assert!(out.is_empty());
}
