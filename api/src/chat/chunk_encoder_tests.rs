//! Golden events of the chunk encoder.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use serde_json::{Value, json};
use tokenbus_protocol::RawJson;
use uuid::Uuid;

use tokenbus_protocol::{Delta, DeltaExtra, Finish};

use super::*;
use crate::answer::{AnswerError, Encoder as _, Identity};
use crate::generation::encoder::ChunkEncoder as Chunks;
use crate::limits::MAX_CHOICES;

type ChunkEncoder = Chunks<ChatStyle>;

const HEAD: &str = concat!(
    r#"data: {"id":"chatcmpl-00000000000000000000000000000001","object":"chat.completion.chunk","#,
    r#""created":1700000000,"model":"m","choices":["#
);

fn encoder(include_usage: bool) -> ChunkEncoder {
    ChunkEncoder::new(
        Identity::new("chatcmpl-", Uuid::from_u128(1), 1_700_000_000, "m"),
        include_usage,
    )
}

fn text(text: &str) -> Delta<'static> {
    Delta {
        text: text.to_owned().into(),
        tokens: 1,
        ..Delta::default()
    }
}

fn reason(reason: &str) -> Delta<'static> {
    Delta {
        finish_reason: Some(reason.to_owned()),
        ..Delta::default()
    }
}

fn with(extra: DeltaExtra) -> Delta<'static> {
    Delta {
        extra: Some(Box::new(extra)),
        ..Delta::default()
    }
}

fn raw(json: &str) -> Option<RawJson> {
    Some(RawJson::new(json).unwrap())
}

fn encode(encoder: &mut ChunkEncoder, deltas: &[Delta<'_>]) -> String {
    let mut out = BytesMut::new();
    for delta in deltas {
        encoder.delta(delta, &mut out).unwrap();
    }
    String::from_utf8(out.to_vec()).unwrap()
}

fn finish(encoder: &mut ChunkEncoder, finish: &Finish) -> String {
    let mut out = BytesMut::new();
    encoder.finish(finish, &mut out).unwrap();
    String::from_utf8(out.to_vec()).unwrap()
}

/// The JSON of each event; `[DONE]` as a string.
fn events(stream: &str) -> Vec<Value> {
    assert!(stream.is_empty() || stream.ends_with("\n\n"), "{stream:?}");
    let events = stream.split_terminator("\n\n").map(|event| {
        let data = event.strip_prefix("data: ").unwrap();
        assert!(!data.contains('\n'));
        serde_json::from_str(data).unwrap_or_else(|_| Value::String(data.to_owned()))
    });
    events.collect()
}

#[test]
fn a_plain_stream_byte_for_byte() {
    let mut encoder = encoder(false);
    let mut got = encode(&mut encoder, &[text("Hel\"lo"), text("\n"), reason("stop")]);
    got += &finish(&mut encoder, &Finish::default());
    let tail = r#","logprobs":null,"finish_reason":null}]}"#;
    let want = [
        format!(r#"{HEAD}{{"index":0,"delta":{{"role":"assistant","content":""}}{tail}"#),
        format!(r#"{HEAD}{{"index":0,"delta":{{"content":"Hel\"lo"}}{tail}"#),
        format!(r#"{HEAD}{{"index":0,"delta":{{"content":"\n"}}{tail}"#),
        format!(r#"{HEAD}{{"index":0,"delta":{{}},"logprobs":null,"finish_reason":"stop"}}]}}"#),
        "data: [DONE]".to_owned(),
    ];
    assert_eq!(got, want.join("\n\n") + "\n\n");
}

#[test]
fn usage_is_null_until_the_last_chunk_when_it_was_asked_for() {
    let mut encoder = encoder(true);
    let mut got = encode(&mut encoder, &[text("a"), reason("length")]);
    let usage =
        r#"{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3,"prompt_tokens_details":{"cached_tokens":0}}"#;
    let end = Finish {
        usage: raw(usage),
        chunk: raw(r#"{"timings":{"ms":1.50}}"#),
        ..Finish::default()
    };
    got += &finish(&mut encoder, &end);
    let events = events(&got);
    for chunk in &events[..3] {
        assert_eq!(chunk["usage"], Value::Null);
        assert!(chunk.as_object().unwrap().contains_key("usage"));
        assert_eq!(chunk["choices"].as_array().unwrap().len(), 1);
    }
    assert!(got.ends_with(&format!(
        "{HEAD}],\"usage\":{usage},\"timings\":{{\"ms\":1.50}}}}\n\ndata: [DONE]\n\n"
    )));
}

#[test]
fn usage_is_made_of_the_counts_or_left_out() {
    let counted = Finish {
        prompt_tokens: Some(5),
        completion_tokens: Some(7),
        ..Finish::default()
    };
    let mut asked = encoder(true);
    encode(&mut asked, &[text("a")]);
    let end = events(&finish(&mut asked, &counted));
    assert_eq!(
        end[0]["usage"],
        json!({"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12})
    );
    assert_eq!(end[0]["choices"], json!([]));

    let mut unknown = encoder(true);
    encode(&mut unknown, &[text("a")]);
    assert_eq!(finish(&mut unknown, &Finish::default()), "data: [DONE]\n\n");

    let mut not_asked = encoder(false);
    encode(&mut not_asked, &[text("a")]);
    assert_eq!(finish(&mut not_asked, &counted), "data: [DONE]\n\n");
}

#[test]
fn members_of_the_last_chunk_arrive_without_usage_too() {
    let mut encoder = encoder(false);
    encode(&mut encoder, &[text("a"), reason("stop")]);
    let end = Finish {
        chunk: raw(r#"{"timings":{"n":1}}"#),
        ..Finish::default()
    };
    let end = events(&finish(&mut encoder, &end));
    assert_eq!(end[0]["timings"], json!({"n": 1}));
    assert_eq!(end[0]["choices"][0]["delta"], json!({}));
    assert_eq!(end[0]["choices"][0]["finish_reason"], Value::Null);
}

#[test]
fn what_is_not_text_goes_through_as_it_came() {
    let mut encoder = encoder(false);
    let delta = Delta {
        text: "x".into(),
        finish_reason: Some("tool_calls".to_owned()),
        extra: Some(Box::new(DeltaExtra {
            delta: raw(r#"{"reasoning_content":"hm","tool_calls":[{"index":0,"n":1e400}]}"#),
            logprobs: raw(r#"{"content":[{"token":"x","logprob":-0.10}]}"#),
            choice: raw(r#"{"stop_reason":128009}"#),
            chunk: raw(r#"{"provider":"p","service_tier":null}"#),
            fingerprint: Some("fp_1".to_owned()),
        })),
        ..Delta::default()
    };
    let got = encode(&mut encoder, &[delta]);
    let head = HEAD.replace(r#""choices""#, r#""system_fingerprint":"fp_1","choices""#);
    let want = [
        head.as_str(),
        r#"{"index":0,"delta":{"content":"x","reasoning_content":"hm","tool_calls":[{"index":0,"n":1e400}],"reasoning":"hm"},"#,
        r#""logprobs":{"content":[{"token":"x","logprob":-0.10}]},"finish_reason":"tool_calls","stop_reason":128009}],"#,
        r#""provider":"p","service_tier":null}"#,
        "\n\n",
    ];
    assert!(got.ends_with(&want.concat()), "{got}");
}

#[test]
fn tool_call_pieces_need_no_text() {
    let mut encoder = encoder(false);
    let piece = DeltaExtra {
        delta: raw(r#"{"tool_calls":[{"index":0,"function":{"arguments":"{"}}]}"#),
        ..DeltaExtra::default()
    };
    let events = events(&encode(&mut encoder, &[with(piece)]));
    assert_eq!(
        events[0]["choices"][0]["delta"],
        json!({"role": "assistant", "content": ""})
    );
    assert_eq!(
        events[1]["choices"][0]["delta"],
        json!({"tool_calls": [{"index": 0, "function": {"arguments": "{"}}]})
    );
}

#[test]
fn each_choice_has_its_role_once_and_its_finish_once() {
    let mut encoder = encoder(false);
    let of = |choice, delta: Delta<'static>| Delta { choice, ..delta };
    let got = encode(
        &mut encoder,
        &[
            of(2, text("c")),
            of(0, text("a")),
            of(2, reason("stop")),
            of(2, reason("length")),
            of(0, text("b")),
            of(0, reason("length")),
            of(11, reason("stop")),
        ],
    );
    let events = events(&got);
    for choice in [0, 2, 11] {
        let of_choice = events.iter().map(|e| &e["choices"][0]).filter(|c| c["index"] == choice);
        let of_choice: Vec<&Value> = of_choice.collect();
        assert_eq!(
            of_choice.iter().filter(|c| c["delta"]["role"] == "assistant").count(),
            1
        );
        assert_eq!(of_choice[0]["delta"]["role"], "assistant");
        assert_eq!(of_choice.iter().filter(|c| !c["finish_reason"].is_null()).count(), 1);
    }
    assert_eq!(events.len(), 9, "a repeated finish reason makes no event: {got}");
}

#[test]
fn empty_deltas_make_no_events() {
    let mut encoder = encoder(false);
    assert_eq!(events(&encode(&mut encoder, &[text("")])).len(), 1, "the role");
    let empty = DeltaExtra {
        delta: raw("{}"),
        choice: raw("{ }"),
        ..DeltaExtra::default()
    };
    assert_eq!(encode(&mut encoder, &[text(""), with(empty)]), "");
}

#[test]
fn a_late_fingerprint_is_in_all_later_chunks() {
    let mut encoder = encoder(false);
    let told = DeltaExtra {
        fingerprint: Some("b1\"2".to_owned()),
        ..DeltaExtra::default()
    };
    let got = encode(&mut encoder, &[text("a"), with(told), text("b")]);
    let events = events(&got);
    assert_eq!(events.len(), 3);
    assert_eq!(events[1].get("system_fingerprint"), None);
    assert_eq!(events[2]["system_fingerprint"], "b1\"2");
}

#[test]
fn nonsense_from_a_worker_is_an_error_and_no_event() {
    let mut encoder = encoder(true);
    let mut out = BytesMut::new();
    assert_eq!(encoder.finish(&Finish::default(), &mut out), Err(AnswerError::NoAnswer));
    let beyond = Delta {
        choice: MAX_CHOICES,
        ..text("a")
    };
    assert_eq!(
        encoder.delta(&beyond, &mut out),
        Err(AnswerError::TooManyChoices(MAX_CHOICES))
    );
    assert!(out.is_empty());
}

#[test]
fn a_hostile_model_name_stays_inside_its_string() {
    let identity = Identity::new("chatcmpl-", Uuid::from_u128(1), 1, "a\",\"x\":\"\n\n");
    let mut encoder = ChunkEncoder::new(identity, false);
    let events = events(&encode(&mut encoder, &[text("a")]));
    assert_eq!(events[0]["model"], "a\",\"x\":\"\n\n");
}

#[test]
fn reasoning_has_both_names_whichever_the_engine_uses() {
    for (name, other) in [("reasoning", "reasoning_content"), ("reasoning_content", "reasoning")] {
        let mut encoder = encoder(false);
        let piece = DeltaExtra {
            delta: raw(&format!(r#"{{"{name}":"h\n"}}"#)),
            ..DeltaExtra::default()
        };
        let told = events(&encode(&mut encoder, &[with(piece)]))[1]["choices"][0]["delta"].clone();
        assert_eq!(told, json!({name: "h\n", other: "h\n"}));
    }
    let mut encoder = encoder(false);
    let both = r#"{"reasoning":"a","reasoning_content":"b"}"#;
    let piece = DeltaExtra {
        delta: raw(both),
        ..DeltaExtra::default()
    };
    assert!(encode(&mut encoder, &[with(piece)]).contains(r#""delta":{"reasoning":"a","reasoning_content":"b"}"#));
}

#[test]
fn the_usage_of_a_chunk_stands_in_place_of_the_null() {
    let mut encoder = encoder(true);
    let piece = DeltaExtra {
        chunk: raw(r#"{"usage":{"completion_tokens":1}}"#),
        ..DeltaExtra::default()
    };
    let told = encode(&mut encoder, &[with(piece)]);
    assert!(told.contains(r#""usage":{"completion_tokens":1}"#));
    assert_eq!(told.matches("\"usage\"").count(), 2, "{told}");
}
