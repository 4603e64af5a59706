//! Answers as responses: golden transcripts, and whatever the cut, the events are the answer.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::request::RequestError;
use crate::responses::{KnownResponses, RESPONSE_ID_PREFIX, ResponseRequest, Seal, SealKey, TranslatedRequest};
use crate::sample_tests::{cut, events, golden, samples, stream, whole};

fn shape() -> ResponseForm {
    let request = json!({"model": "org/m:7b", "input": "hi", "instructions": "Be \"kind\".", "temperature": 0.50,
        "tools": [{"type": "function", "name": "weather", "parameters": {"type": "object"}},
            {"type": "function", "name": "time"}, {"type": "function", "name": "write"}],
        "metadata": {"a": "b"}, "user": "u", "stream": true});
    let create = ResponseRequest::read(request.to_string().as_bytes()).unwrap();
    let TranslatedRequest { shape, .. } = create.translate(&KnownResponses::new(), true).unwrap();
    shape
}

#[test]
fn streams_are_as_they_were() {
    for sample in samples() {
        let stream = stream(&shape(), RESPONSE_ID_PREFIX, &sample.deltas, sample.finish.as_ref());
        golden("responses", &format!("{}.sse", sample.name), &stream);
    }
}

#[test]
fn whole_answers_are_as_they_were() {
    for sample in samples() {
        let Some(finish) = &sample.finish else { continue };
        let whole = whole(&shape(), RESPONSE_ID_PREFIX, &sample.deltas, finish).unwrap();
        golden("responses", &format!("{}.json", sample.name), &whole);
    }
}

#[test]
fn an_engine_that_says_nothing_has_given_no_answer() {
    let finish = Finish::default();
    assert_eq!(
        whole(&shape(), RESPONSE_ID_PREFIX, &[], &finish),
        Err(AnswerError::NoAnswer)
    );
}

#[test]
fn a_response_that_could_not_be_kept_says_so() {
    let sample = &samples()[0];
    let finish = sample.finish.as_ref().unwrap();
    let shape = shape();
    let kept: Value =
        serde_json::from_str(&whole(&shape, RESPONSE_ID_PREFIX, &sample.deltas, finish).unwrap()).unwrap();
    assert_eq!(kept["store"], true);
    shape.not_kept();
    let told: Value =
        serde_json::from_str(&whole(&shape, RESPONSE_ID_PREFIX, &sample.deltas, finish).unwrap()).unwrap();
    assert_eq!(told["store"], false);
}

/// Checks every rule of the order of events, and puts the output together as a client does.
fn fold(stream: &str) -> (Value, Vec<Value>) {
    let events = events(stream);
    let mut items: Vec<Value> = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (n, (name, event)) in events.iter().enumerate() {
        assert_eq!(event["sequence_number"], n, "{name}");
        let place = || usize::try_from(event["output_index"].as_u64().unwrap()).unwrap();
        match (n, name.as_str()) {
            (0, "response.created") | (1, "response.in_progress") => {
                assert_eq!(event["response"]["status"], "in_progress");
                assert_eq!(event["response"]["output"], json!([]));
            }
            (_, "response.output_item.added") => {
                assert!(open.is_none(), "one item at a time");
                assert_eq!(
                    (place(), &event["item"]["status"]),
                    (items.len(), &json!("in_progress"))
                );
                open = Some((place(), String::new()));
                items.push(event["item"].clone());
            }
            (_, "response.output_item.done") => {
                let (at, text) = open.take().unwrap();
                assert_eq!(place(), at);
                let item = &event["item"];
                assert_eq!(item["id"], items[at]["id"]);
                assert_eq!(text_of(item), text, "what was told piece by piece is the item");
                items[at] = item.clone();
            }
            (_, "response.content_part.added" | "response.content_part.done") => {
                assert_eq!(
                    (open.as_ref().unwrap().0, &event["content_index"]),
                    (place(), &json!(0))
                );
            }
            (last, "response.completed" | "response.incomplete" | "response.failed") => {
                assert_eq!(last, events.len() - 1, "nothing follows");
                return (event["response"].clone(), items);
            }
            (_, "error") => assert_eq!(n, events.len() - 2, "only the failure follows"),
            (_, delta) if delta.ends_with(".delta") => {
                let (at, text) = open.as_mut().unwrap();
                assert_eq!((place(), &event["item_id"]), (*at, &items[*at]["id"]));
                *text += event["delta"].as_str().unwrap();
            }
            (_, done) if done.ends_with(".done") => {
                let whole = ["text", "arguments", "refusal", "input"]
                    .iter()
                    .find_map(|name| event[*name].as_str());
                assert_eq!(whole, Some(open.as_ref().unwrap().1.as_str()), "{done}");
            }
            (_, other) => panic!("{other} at {n}"),
        }
    }
    panic!("the stream has no end: {stream}");
}

fn text_of(item: &Value) -> String {
    let part = &item["content"][0];
    let found = [&part["text"], &part["refusal"], &item["arguments"], &item["input"]];
    found
        .iter()
        .find_map(|text| text.as_str())
        .unwrap_or_default()
        .to_owned()
}

#[test]
fn a_failure_is_never_a_completion() {
    for sample in samples().iter().filter(|sample| sample.finish.is_none()) {
        let stream = stream(&shape(), RESPONSE_ID_PREFIX, &sample.deltas, None);
        let (response, items) = fold(&stream);
        assert_eq!(response["status"], "failed");
        assert_eq!(response["error"]["code"], "server_error");
        let output = response["output"].as_array().unwrap();
        assert_eq!(output.len(), items.len());
        assert_eq!(output.last().unwrap()["status"], "incomplete");
        let error = &events(&stream)[events(&stream).len() - 2].1;
        assert_eq!(
            (&error["code"], &error["error"]["code"]),
            (&json!("worker_lost"), &json!("worker_lost"))
        );
    }
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
        let finish = sample.finish.as_ref().unwrap();
        let deltas = cut(&sample.deltas, cuts.into_iter().cycle());
        let (response, items) = fold(&stream(&shape(), RESPONSE_ID_PREFIX, &deltas, Some(finish)));
        let once: Value = serde_json::from_str(&whole(&shape(), RESPONSE_ID_PREFIX, &sample.deltas, finish).unwrap()).unwrap();
        prop_assert_eq!(&response, &once);
        prop_assert_eq!(&once["output"], &Value::from(items));
    }
}

/// The events of an answer that calls `name` with these pieces of its arguments.
fn called(name: &str, pieces: &[&str]) -> (Value, Vec<Value>) {
    let request = json!({"model": "m", "input": "hi", "stream": true, "tools": [
        {"type": "function", "name": "weather"}, {"type": "custom", "name": "apply_patch"},
        {"type": "namespace", "name": "mcp__x", "tools": [{"type": "function", "name": "f"}]}]});
    let create = ResponseRequest::read(request.to_string().as_bytes()).unwrap();
    let shape = create.translate(&KnownResponses::new(), false).unwrap().shape;
    let piece = |call: Value| tokenbus_protocol::Delta {
        extra: Some(Box::new(tokenbus_protocol::DeltaExtra {
            delta: serde_json::from_value(json!({"tool_calls": [call]})).ok(),
            ..Default::default()
        })),
        ..Default::default()
    };
    let mut deltas = vec![piece(
        json!({"index": 0, "id": "c1", "function": {"name": name, "arguments": ""}}),
    )];
    deltas.extend(
        pieces
            .iter()
            .map(|text| piece(json!({"index": 0, "function": {"arguments": text}}))),
    );
    let stream = stream(&shape, RESPONSE_ID_PREFIX, &deltas, Some(&Finish::default()));
    let (_, items) = fold(&stream);
    let told = events(&stream).into_iter().map(|(_, event)| event).collect();
    (items[0].clone(), told)
}

#[test]
fn a_tool_with_free_text_is_called_with_its_text() {
    let (item, events) = called("apply_patch", &["{\"inp", "ut\":\"*** Begin\\", "n\\u00e9", "nd\"}"]);
    assert_eq!(
        (&item["type"], &item["name"]),
        (&json!("custom_tool_call"), &json!("apply_patch"))
    );
    assert_eq!(item["input"], "*** Begin\nénd");
    let deltas: Vec<&Value> = events
        .iter()
        .filter(|event| event["type"] == "response.custom_tool_call_input.delta")
        .map(|event| &event["delta"])
        .collect();
    assert_eq!(deltas, ["*** Begin", "\né", "nd"]);
    let done = events
        .iter()
        .find(|event| event["type"] == "response.custom_tool_call_input.done")
        .unwrap();
    assert_eq!(done["input"], item["input"]);
    let (item, _) = called("apply_patch", &["*** not as", " agreed"]);
    assert_eq!(item["input"], "*** not as agreed");
}

#[test]
fn a_tool_of_a_namespace_is_called_by_the_clients_names() {
    for name in ["mcp__x__f", "f"] {
        let (item, events) = called(name, &["{\"a\":1}"]);
        assert_eq!((&item["namespace"], &item["name"]), (&json!("mcp__x"), &json!("f")));
        assert_eq!(item["arguments"], r#"{"a":1}"#);
        let done = events
            .iter()
            .find(|event| event["type"] == "response.function_call_arguments.done")
            .unwrap();
        assert_eq!(done["name"], "f");
    }
    let (item, _) = called("weather", &["{}"]);
    assert!(item.get("namespace").is_none(), "{item}");
}

/// The reasoning item of an answer to a request with `members`, and the types of its events.
fn thought(members: Value) -> (Value, Vec<String>) {
    let mut request = json!({"model": "m", "input": "hi", "stream": true, "store": false});
    request
        .as_object_mut()
        .unwrap()
        .extend(members.as_object().unwrap().clone());
    let told = thought_for(ResponseRequest::read(request.to_string().as_bytes()).unwrap());
    let names = told.iter().map(|(name, _)| name.clone()).collect();
    (told.last().unwrap().1["response"]["output"][0].clone(), names)
}

/// The events of an answer with reasoning only.
fn thought_for(create: ResponseRequest) -> Vec<(String, Value)> {
    let shape = create.translate(&KnownResponses::new(), false).unwrap().shape;
    let delta = |text: &str| tokenbus_protocol::Delta {
        extra: Some(Box::new(tokenbus_protocol::DeltaExtra {
            delta: serde_json::from_value(json!({"reasoning_content": text})).ok(),
            ..Default::default()
        })),
        ..Default::default()
    };
    let stream = stream(
        &shape,
        RESPONSE_ID_PREFIX,
        &[delta("Hm"), delta("m.")],
        Some(&Finish::default()),
    );
    events(&stream)
}

#[test]
fn reasoning_is_told_as_clients_ask_for_it_and_comes_back_from_every_form() {
    let summary = json!([{"type": "summary_text", "text": "Hmm."}]);
    let content = json!([{"type": "reasoning_text", "text": "Hmm."}]);
    let (plain, names) = thought(json!({}));
    assert_eq!((&plain["content"], &plain["summary"]), (&content, &json!([])));
    assert_eq!(plain["encrypted_content"], Value::Null);
    assert!(names.iter().any(|name| name == "response.reasoning_text.delta"));
    let (told, names) = thought(json!({"reasoning": {"summary": "auto"}}));
    assert_eq!((&told["content"], &told["summary"]), (&json!([]), &summary));
    let begun = names
        .iter()
        .position(|name| name == "response.output_item.added")
        .unwrap();
    assert_eq!(
        names[begun..begun + 7],
        [
            "response.output_item.added",
            "response.reasoning_summary_part.added",
            "response.reasoning_summary_text.delta",
            "response.reasoning_summary_text.delta",
            "response.reasoning_summary_text.done",
            "response.reasoning_summary_part.done",
            "response.output_item.done",
        ]
    );
    let (mut carried, _) = thought(json!({"include": ["reasoning.encrypted_content"]}));
    assert!(carried["encrypted_content"].is_string());
    carried["content"] = json!([]);
    for (item, want) in [(plain, json!("Hmm.")), (told, json!("Hmm.")), (carried, json!("Hmm."))] {
        let request = json!({"model": "m", "input": [{"role": "user", "content": "u"}, item,
            {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}]});
        let create = ResponseRequest::read(request.to_string().as_bytes()).unwrap();
        let body = create
            .translate(&KnownResponses::new(), false)
            .unwrap()
            .checked
            .body
            .unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["messages"][1]["reasoning_content"], want);
    }
}

#[test]
fn sealed_reasoning_comes_back_and_foreign_or_changed_content_is_refused_as_at_openai() {
    let keys = |secret| [SealKey::new(&[secret; 32])].into();
    let seal = Seal::new(keys(1), None);
    let read = |input: Value, seal: &Seal| {
        let request = json!({"model": "m", "input": input, "include": ["reasoning.encrypted_content"]});
        let mut create = ResponseRequest::read(request.to_string().as_bytes()).unwrap();
        create.seal = seal.clone();
        create
    };
    let create = read(json!("u"), &seal);
    assert!(create.sealing().seals && create.sealing().opens.is_empty());
    let events = thought_for(create);
    let done = events
        .iter()
        .find(|(name, _)| name == "response.output_item.done")
        .unwrap();
    let mut item = events.last().unwrap().1["response"]["output"][0].clone();
    assert_eq!(done.1["item"], item, "each event has the same content");
    let content = item["encrypted_content"].as_str().unwrap().to_owned();
    assert!(content.starts_with("tb2."), "{content}");

    let input =
        |item: &Value| json!([item, {"role": "assistant", "content": "Yes."}, {"role": "user", "content": "Why?"}]);
    item["content"] = json!([]);
    let create = read(input(&item), &seal);
    assert_eq!(create.sealing().opens, [SealKey::new(&[1; 32]).id()].into());
    let body = create
        .translate(&KnownResponses::new(), false)
        .unwrap()
        .checked
        .body
        .unwrap();
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(body["messages"][0]["reasoning_content"], "Hmm.");

    let flipped = if content.ends_with('A') { "B" } else { "A" };
    let changed = format!("{}{flipped}", content.strip_suffix(|_: char| true).unwrap());
    let stranger = Seal::new(keys(2), None);
    let wrong = [
        (content.as_str(), &stranger),
        (changed.as_str(), &seal),
        ("tb1.*", &seal),
    ];
    for (content, seal) in wrong {
        // Also where the text stands beside it.
        for text in [json!([]), json!([{"type": "reasoning_text", "text": "Hmm."}])] {
            item["content"] = text;
            item["encrypted_content"] = json!(content);
            let refused = read(input(&item), seal)
                .translate(&KnownResponses::new(), false)
                .unwrap_err();
            let RequestError::Field { param, code, message } = refused else {
                panic!("{refused}")
            };
            assert_eq!((param, code), (None, "invalid_encrypted_content"), "{content}");
            assert!(message.contains("could not be verified"), "{message}");
        }
    }
    // What another server encrypted is passed over.
    item["encrypted_content"] = json!("gAAAAABo");
    let passed = read(input(&item), &seal).translate(&KnownResponses::new(), false);
    assert!(passed.is_ok());
}
