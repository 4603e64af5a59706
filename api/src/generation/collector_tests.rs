//! Golden answers of the collector.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use serde_json::{Value, json};
use tokenbus_protocol::{DeltaExtra, RawJson};
use uuid::Uuid;

use super::*;
use crate::chat::ChatStyle;
use crate::completions::TextStyle;
use crate::limits::MAX_CHOICES;

fn collector() -> Collector<ChatStyle> {
    Collector::new(Identity::new("chatcmpl-", Uuid::from_u128(1), 1_700_000_000, "m"))
}

fn text(choice: u32, text: &str) -> Delta<'static> {
    Delta {
        choice,
        text: text.to_owned().into(),
        ..Delta::default()
    }
}

fn reason(choice: u32, reason: &str) -> Delta<'static> {
    Delta {
        choice,
        finish_reason: Some(reason.to_owned()),
        ..Delta::default()
    }
}

fn extra(extra: DeltaExtra) -> Delta<'static> {
    Delta {
        extra: Some(Box::new(extra)),
        ..Delta::default()
    }
}

fn raw(json: &str) -> Option<RawJson> {
    Some(RawJson::new(json).unwrap())
}

fn answer(deltas: &[Delta<'_>], finish: &Finish) -> String {
    let mut collector = collector();
    for delta in deltas {
        collector.delta(delta).unwrap();
    }
    String::from_utf8(Box::new(collector).finish(finish).unwrap().to_vec()).unwrap()
}

#[test]
fn a_plain_answer_byte_for_byte() {
    let finish = Finish {
        prompt_tokens: Some(3),
        completion_tokens: Some(2),
        ..Finish::default()
    };
    assert_eq!(
        answer(&[text(0, "Hel"), text(0, "lo\n"), reason(0, "stop")], &finish),
        concat!(
            r#"{"id":"chatcmpl-00000000000000000000000000000001","object":"chat.completion","created":1700000000,"#,
            r#""model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"Hello\n","refusal":null},"#,
            r#""logprobs":null,"finish_reason":"stop"}],"#,
            r#""usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}"#
        )
    );
}

#[test]
fn tool_calls_are_whole_and_content_is_null() {
    let piece = |json: &str| {
        extra(DeltaExtra {
            delta: raw(json),
            ..DeltaExtra::default()
        })
    };
    let got = answer(
        &[
            piece(r#"{"tool_calls":[{"index":0,"id":"c","type":"function","function":{"name":"f","arguments":""}}]}"#),
            piece(r#"{"tool_calls":[{"index":0,"function":{"arguments":"{\"a\":"}}]}"#),
            piece(r#"{"tool_calls":[{"index":0,"function":{"arguments":"1}"}}]}"#),
            reason(0, "tool_calls"),
        ],
        &Finish::default(),
    );
    let got: Value = serde_json::from_str(&got).unwrap();
    assert_eq!(
        got["choices"][0]["message"],
        json!({"role": "assistant", "content": null, "refusal": null, "tool_calls": [
            {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{\"a\":1}"}}
        ]})
    );
    assert_eq!(got["choices"][0]["finish_reason"], "tool_calls");
    assert_eq!(got.get("usage"), None, "unknown counts are not made up");
}

#[test]
fn text_beside_tool_calls_is_kept_and_a_refusal_replaces_content() {
    let with = |text: &str, json: &str| Delta {
        text: text.to_owned().into(),
        ..extra(DeltaExtra {
            delta: raw(json),
            ..DeltaExtra::default()
        })
    };
    let both: Value = serde_json::from_str(&answer(
        &[with("let me see", r#"{"tool_calls":[]}"#)],
        &Finish::default(),
    ))
    .unwrap();
    assert_eq!(both["choices"][0]["message"]["content"], "let me see");
    let refusal: Value = serde_json::from_str(&answer(
        &[with("", r#"{"refusal":"I "}"#), with("", r#"{"refusal":"won't"}"#)],
        &Finish::default(),
    ))
    .unwrap();
    assert_eq!(
        refusal["choices"][0]["message"],
        json!({"role": "assistant", "content": null, "refusal": "I won't"})
    );
    let empty: Value = serde_json::from_str(&answer(&[with("", r#"{"refusal":null}"#)], &Finish::default())).unwrap();
    assert_eq!(empty["choices"][0]["message"]["content"], "");
}

#[test]
fn everything_the_engine_said_is_in_the_answer() {
    let got = answer(
        &[
            extra(DeltaExtra {
                delta: raw(r#"{"reasoning_content":"a"}"#),
                logprobs: raw(r#"{"content":[{"t":1.50}],"refusal":null}"#),
                choice: raw(r#"{"stop_reason":null}"#),
                chunk: raw(r#"{"provider":"x"}"#),
                fingerprint: Some("fp".to_owned()),
            }),
            extra(DeltaExtra {
                delta: raw(r#"{"reasoning_content":"b"}"#),
                logprobs: raw(r#"{"content":[{"t":2}],"refusal":null}"#),
                choice: raw(r#"{"stop_reason":7}"#),
                chunk: raw(r#"{"provider":"y","z":1}"#),
                fingerprint: None,
            }),
        ],
        &Finish {
            usage: raw(r#"{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2,"cost":0.10}"#),
            chunk: raw(r#"{"timings":{"ms":1.0}}"#),
            ..Finish::default()
        },
    );
    assert!(
        got.ends_with(concat!(
            r#""message":{"role":"assistant","content":"","refusal":null,"reasoning_content":"ab","reasoning":"ab"},"#,
            r#""logprobs":{"content":[{"t":1.50},{"t":2}],"refusal":null},"finish_reason":null,"stop_reason":7}],"#,
            r#""usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2,"cost":0.10},"#,
            r#""system_fingerprint":"fp","provider":"y","z":1,"timings":{"ms":1.0}}"#
        )),
        "{got}"
    );
}

#[test]
fn choices_are_sorted_and_keep_their_first_finish_reason() {
    let got = answer(
        &[
            text(2, "c"),
            text(0, "a"),
            reason(2, "stop"),
            text(0, "b"),
            reason(0, "length"),
            reason(2, "length"),
        ],
        &Finish::default(),
    );
    let got: Value = serde_json::from_str(&got).unwrap();
    let choices: Vec<_> = got["choices"].as_array().unwrap().iter().collect();
    let short: Vec<_> = choices
        .iter()
        .map(|c| {
            (
                c["index"].as_u64().unwrap(),
                c["message"]["content"].as_str().unwrap(),
                c["finish_reason"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(short, [(0, "ab", "length"), (2, "c", "stop")]);
}

#[test]
fn nonsense_and_excess_are_errors() {
    assert_eq!(
        Box::new(collector()).finish(&Finish::default()),
        Err(AnswerError::NoAnswer)
    );
    assert_eq!(
        collector().delta(&text(MAX_CHOICES, "a")),
        Err(AnswerError::TooManyChoices(MAX_CHOICES))
    );
    let mut collector = collector();
    let big = text(0, &"x".repeat(MAX_ANSWER / 4));
    for _ in 0..4 {
        assert_eq!(collector.delta(&big), Ok(()));
    }
    assert_eq!(collector.delta(&text(0, "y")), Err(AnswerError::TooLarge));
}

#[test]
fn a_text_completion_byte_for_byte() {
    let identity = Identity::new("cmpl-", Uuid::from_u128(1), 1_700_000_000, "m");
    let mut collector = Collector::<TextStyle>::new(identity);
    let chat = r#"{"content":[{"token":"b","logprob":-0.5,"top_logprobs":[]}]}"#;
    let with = |json: &str| DeltaExtra {
        logprobs: raw(json),
        ..DeltaExtra::default()
    };
    let deltas = [
        text(1500, "late"),
        text(0, "é"),
        Delta {
            text: "b".into(),
            ..extra(with(chat))
        },
        reason(0, "stop"),
    ];
    for delta in &deltas {
        collector.delta(delta).unwrap();
    }
    let finish = Finish {
        prompt_tokens: Some(1),
        completion_tokens: Some(2),
        ..Finish::default()
    };
    let answer = String::from_utf8(Box::new(collector).finish(&finish).unwrap().to_vec()).unwrap();
    assert_eq!(
        answer,
        concat!(
            r#"{"id":"cmpl-00000000000000000000000000000001","object":"text_completion","created":1700000000,"#,
            r#""model":"m","choices":[{"text":"éb","index":0,"logprobs":{"tokens":["b"],"token_logprobs":[-0.5],"#,
            r#""top_logprobs":[null],"text_offset":[1]},"finish_reason":"stop"},"#,
            r#"{"text":"late","index":1500,"logprobs":null,"finish_reason":null}],"#,
            r#""usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}}"#
        )
    );
}
