//! Answers as messages: golden transcripts, and whatever the cut, the events are the answer.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::messages::MESSAGE_ID_PREFIX;
use crate::sample_tests::{cut, events, golden, samples, stream, whole};

fn shape(thoughts: Thoughts) -> MessageForm {
    MessageForm::new(true, 7, Stops::new(vec!["3".to_owned()]), thoughts)
}

#[test]
fn streams_are_as_they_were() {
    for sample in samples() {
        let stream = stream(
            &shape(Thoughts::Shown),
            MESSAGE_ID_PREFIX,
            &sample.deltas,
            sample.finish.as_ref(),
        );
        golden("messages", &format!("{}.sse", sample.name), &stream);
    }
}

#[test]
fn whole_answers_are_as_they_were() {
    for sample in samples() {
        let Some(finish) = &sample.finish else { continue };
        let whole = whole(&shape(Thoughts::Shown), MESSAGE_ID_PREFIX, &sample.deltas, finish).unwrap();
        golden("messages", &format!("{}.json", sample.name), &whole);
    }
}

#[test]
fn an_engine_that_says_nothing_has_given_no_answer() {
    let finish = Finish::default();
    let nothing = whole(&shape(Thoughts::Shown), MESSAGE_ID_PREFIX, &[], &finish);
    assert_eq!(nothing, Err(AnswerError::NoAnswer));
}

/// Checks every rule of the order of events, and puts the message together as the SDK does.
fn fold(stream: &str) -> Option<Value> {
    let events = events(stream);
    let mut message = Value::Null;
    let mut open: Option<(usize, String)> = None;
    for (n, (name, event)) in events.iter().enumerate() {
        let index = || usize::try_from(event["index"].as_u64().unwrap()).unwrap();
        match name.as_str() {
            "message_start" => {
                assert_eq!(n, 0);
                message = event["message"].clone();
                assert_eq!(
                    (&message["content"], &message["stop_reason"]),
                    (&json!([]), &Value::Null)
                );
            }
            "ping" => assert!(open.is_some()),
            "content_block_start" => {
                assert!(open.is_none(), "one block at a time");
                let blocks = message["content"].as_array_mut().unwrap();
                assert_eq!(index(), blocks.len());
                open = Some((blocks.len(), String::new()));
                blocks.push(event["content_block"].clone());
            }
            "content_block_delta" => {
                let (at, input) = open.as_mut().unwrap();
                assert_eq!(index(), *at);
                grow(&mut message["content"][*at], input, &event["delta"]);
            }
            "content_block_stop" => {
                let (at, input) = open.take().unwrap();
                assert_eq!(index(), at);
                let block = &mut message["content"][at];
                if block["type"] == "tool_use" && !input.is_empty() {
                    let read: Result<Value, _> = serde_json::from_str(&input);
                    block["input"] = read.unwrap_or_else(|_| json!({"INVALID_JSON": input.trim()}));
                }
            }
            "message_delta" => {
                assert!(open.is_none() && n == events.len() - 2);
                message["stop_reason"] = event["delta"]["stop_reason"].clone();
                message["stop_sequence"] = event["delta"]["stop_sequence"].clone();
                message["usage"] = event["usage"].clone();
            }
            "message_stop" => {
                assert_eq!(n, events.len() - 1, "nothing follows");
                return Some(message);
            }
            "error" => {
                assert_eq!(n, events.len() - 1, "nothing follows");
                return None;
            }
            other => panic!("{other}"),
        }
    }
    panic!("the stream has no end: {stream}");
}

fn grow(block: &mut Value, input: &mut String, delta: &Value) {
    let kind = delta["type"].as_str().unwrap();
    let append = |to: &mut Value, more: &Value| {
        *to = format!("{}{}", to.as_str().unwrap(), more.as_str().unwrap()).into();
    };
    match (block["type"].as_str().unwrap(), kind) {
        ("text", "text_delta") => append(&mut block["text"], &delta["text"]),
        ("thinking", "thinking_delta") => append(&mut block["thinking"], &delta["thinking"]),
        ("thinking", "signature_delta") => block["signature"] = delta["signature"].clone(),
        ("tool_use", "input_json_delta") => *input += delta["partial_json"].as_str().unwrap(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_failure_is_an_error_event_and_never_a_stop() {
    for sample in samples().iter().filter(|sample| sample.finish.is_none()) {
        let stream = stream(&shape(Thoughts::Shown), MESSAGE_ID_PREFIX, &sample.deltas, None);
        assert_eq!(fold(&stream), None);
        assert!(!stream.contains("message_stop") && !stream.contains("message_delta"));
        let error = events(&stream).pop().unwrap().1;
        assert_eq!(error["error"]["type"], "api_error");
        assert_eq!(error["request_id"], "req_1");
    }
}

#[test]
fn thoughts_that_are_not_to_be_seen_are_not() {
    let samples = samples();
    let calls = samples.iter().find(|sample| sample.name == "calls").unwrap();
    let shape = shape(Thoughts::Omitted);
    let finish = calls.finish.as_ref().unwrap();
    let once: Value = serde_json::from_str(&whole(&shape, MESSAGE_ID_PREFIX, &calls.deltas, finish).unwrap()).unwrap();
    let thinking = &once["content"][0];
    assert_eq!(
        (&thinking["type"], &thinking["thinking"]),
        (&json!("thinking"), &json!(""))
    );
    assert_ne!(thinking["signature"], "");
    let stream = stream(&shape, MESSAGE_ID_PREFIX, &calls.deltas, Some(finish));
    assert!(!stream.contains("Look"));
    assert_eq!(fold(&stream).unwrap(), once);
}

#[test]
fn the_end_has_anthropics_words() {
    let reason = |ending: &Ending| {
        let stops = Stops::new(vec!["END".to_owned()]);
        let stop = stops.reason(ending);
        (stop.reason.unwrap(), stop.sequence.map(str::to_owned))
    };
    let ending = |reason: Option<&str>| Ending {
        reason: reason.map(str::to_owned),
        ..Ending::default()
    };
    for (told, word) in [
        (Some("stop"), "end_turn"),
        (Some("length"), "max_tokens"),
        (Some("content_filter"), "refusal"),
        (Some("eos_token"), "end_turn"),
        (None, "end_turn"),
    ] {
        assert_eq!(reason(&ending(told)), (word, None), "{told:?}");
    }
    // Some engines say `stop` when they call.
    let calls = Ending {
        calls: true,
        ..ending(Some("stop"))
    };
    assert_eq!(reason(&calls).0, "tool_use");
    let stop = |stop: &str| Ending {
        stop: Some(stop.to_owned()),
        ..ending(Some("stop"))
    };
    assert_eq!(reason(&stop("END")), ("stop_sequence", Some("END".to_owned())));
    assert_eq!(reason(&stop("<|im_end|>")), ("end_turn", None));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn whatever_the_cut_the_events_are_the_answer(
        which in any::<prop::sample::Index>(),
        cuts in prop::collection::vec(1usize..5, 20),
    ) {
        let samples: Vec<_> = samples().into_iter().filter(|sample| sample.finish.is_some()).collect();
        let sample = which.get(&samples);
        // What an engine does not count is counted by its deltas, which a cut changes.
        let finish = sample.finish.as_ref().unwrap();
        let deltas = cut(&sample.deltas, cuts.into_iter().cycle());
        let shape = shape(Thoughts::Shown);
        let told = fold(&stream(&shape, MESSAGE_ID_PREFIX, &deltas, Some(finish))).unwrap();
        let once: Value = serde_json::from_str(&whole(&shape, MESSAGE_ID_PREFIX, &sample.deltas, finish).unwrap()).unwrap();
        prop_assert_eq!(told, once);
    }
}
