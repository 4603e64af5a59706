//! What passes as a chat request, and what is said of the rest.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use serde_json::{Value, json};

use super::*;

fn request(change: Value) -> String {
    let mut request = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]});
    for (name, value) in change.as_object().unwrap() {
        request[name] = value.clone();
    }
    request.to_string()
}

fn passes(change: Value) -> GenerationView {
    let text = request(change);
    chat_view(text.as_bytes()).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// The field and the code that the refusal names.
fn refused(change: Value) -> (String, &'static str) {
    let text = request(change);
    match chat_view(text.as_bytes()) {
        Err(RequestError::Field { param, code, message }) => {
            let param = param.unwrap();
            assert!(message.contains(&format!("'{param}'")), "{message}");
            (param, code)
        }
        other => panic!("{text}: {other:?}"),
    }
}

fn wrong(change: Value) -> String {
    let (param, code) = refused(change);
    assert_eq!(code, "invalid_type");
    param
}

fn messages(message: Value) -> Value {
    json!({"messages": [{"role": "system", "content": "s"}, message]})
}

#[test]
fn the_view_has_what_the_gateway_needs() {
    assert_eq!(
        passes(json!({})),
        GenerationView {
            model: "m".to_owned(),
            stream: false,
            include_usage: false,
            choices: 1,
            needs: Features::NONE,
            not_resumable: None
        }
    );
    let view =
        passes(json!({"model": "org/модель:7b", "stream": true, "n": 128, "stream_options": {"include_usage": true}}));
    assert!(view.stream && view.include_usage);
    assert_eq!((view.model.as_str(), view.choices), ("org/модель:7b", 128));
}

#[test]
fn all_roles_and_both_kinds_of_content_pass() {
    for role in ["system", "developer", "user", "assistant", "tool", "function"] {
        passes(messages(
            json!({"role": role, "content": "x", "tool_call_id": "c", "name": "n"}),
        ));
        passes(messages(
            json!({"role": role, "content": [{"type": "text", "text": "x"}]}),
        ));
    }
    passes(messages(json!({"role": "user", "content": [
        {"type": "text", "text": "a"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA==", "detail": "low"}},
        {"type": "image_url", "image_url": "http://x/y.png"},
        {"type": "input_audio", "input_audio": {"data": "", "format": "wav"}},
        {"type": "new_thing", "text": {"deep": [1]}, "image_url": 7},
    ]})));
    passes(messages(json!({"role": "user", "content": []})));
    passes(messages(json!({"role": "user", "content": ""})));
}

#[test]
fn the_engine_judges_roles_and_missing_content() {
    for role in [
        "system",
        "developer",
        "user",
        "assistant",
        "tool",
        "function",
        "observation",
    ] {
        passes(messages(json!({"role": role, "content": null})));
        passes(messages(json!({"role": role})));
        passes(messages(json!({"role": role, "content": "x"})));
    }
}

#[test]
fn wrong_messages_are_named_by_path() {
    assert_eq!(wrong(json!({"messages": "hi"})), "messages");
    assert_eq!(wrong(json!({"messages": ["hi"]})), "messages[0]");
    assert_eq!(
        wrong(messages(json!({"role": "user", "content": 5}))),
        "messages[1].content"
    );
    assert_eq!(
        wrong(messages(json!({"role": "user", "content": {"a": 1}}))),
        "messages[1].content"
    );
    assert_eq!(wrong(messages(json!({"role": 1, "content": ""}))), "messages[1].role");
    let part = |part: Value| {
        wrong(messages(
            json!({"role": "user", "content": [{"type": "text", "text": ""}, part]}),
        ))
    };
    assert_eq!(part(json!("text")), "messages[1].content[1]");
    assert_eq!(part(json!({})), "messages[1].content[1].type");
    assert_eq!(part(json!({"type": 3})), "messages[1].content[1].type");
    assert_eq!(part(json!({"type": "text"})), "messages[1].content[1].text");
    assert_eq!(part(json!({"text": 4, "type": "text"})), "messages[1].content[1].text");
    assert_eq!(part(json!({"type": "image_url"})), "messages[1].content[1].image_url");
    assert_eq!(
        part(json!({"type": "image_url", "image_url": {}})),
        "messages[1].content[1].image_url.url"
    );
    assert_eq!(
        part(json!({"image_url": {"url": 1}, "type": "image_url"})),
        "messages[1].content[1].image_url.url"
    );

    let none = refused(messages(json!({"content": ""})));
    assert_eq!(none, ("messages[1].role".to_owned(), "missing_required_parameter"));
    assert_eq!(refused(json!({"messages": []})), ("messages".to_owned(), "empty_array"));
    assert_eq!(
        refused(json!({"messages": null})),
        ("messages".to_owned(), "missing_required_parameter")
    );
}

#[test]
fn the_model_must_be_a_name() {
    assert_eq!(
        refused(json!({"model": null})),
        ("model".to_owned(), "missing_required_parameter")
    );
    assert_eq!(refused(json!({"model": ""})), ("model".to_owned(), "invalid_value"));
    assert_eq!(
        refused(json!({"model": "x".repeat(257)})),
        ("model".to_owned(), "string_above_max_length")
    );
    assert_eq!(wrong(json!({"model": 4})), "model");
    passes(json!({"model": "x".repeat(256)}));
}

#[test]
fn parameters_of_the_right_type_pass_also_as_null() {
    let right = json!({
        "n": [1, 2.0], "max_tokens": [1, 100_000_000_000_u64], "max_completion_tokens": [1],
        "temperature": [0, 1.5, -3], "top_p": [1, 0.1], "presence_penalty": [0.5], "frequency_penalty": [-2],
        "repetition_penalty": [1.1], "seed": [0, -1, 1e30], "logprobs": [true], "top_logprobs": [5],
        "stop": ["x", [], ["a", "b", "c", "d", "e", "f"]], "logit_bias": [{}, {"50256": -100}, [[1, false]]],
        "tools": [[], [{"type": "function", "function": {"name": "f"}}], [{"type": "web"}]],
        "tool_choice": ["auto", {"type": "function"}], "stream": [true, false], "stream_options": [{}],
        "response_format": [{"type": "text"}, {"type": "json_schema", "json_schema": {}}],
    });
    for (name, values) in right.as_object().unwrap() {
        for value in values.as_array().unwrap().iter().chain([&Value::Null]) {
            passes(json!({ name: value }));
        }
    }
}

#[test]
fn parameters_of_a_wrong_type_are_named() {
    let wrongs = json!({
        "n": ["1", 1.5, true], "max_tokens": ["9", 0.5], "max_completion_tokens": [{}], "temperature": ["hot"],
        "top_p": [[1]], "presence_penalty": [true], "frequency_penalty": ["0"], "repetition_penalty": [{}],
        "seed": [1.5, "1"], "logprobs": [1], "top_logprobs": ["1"], "stop": [7, {"a": 1}], "logit_bias": ["x", 1],
        "tools": [{}, "x"], "tool_choice": [1, []], "stream": ["true", 1], "stream_options": [true],
        "response_format": ["json", []],
    });
    for (name, values) in wrongs.as_object().unwrap() {
        for value in values.as_array().unwrap() {
            assert_eq!(&wrong(json!({ name: value })), name, "{value}");
        }
    }
    assert_eq!(wrong(json!({"stop": ["a", 1]})), "stop[1]");
    assert_eq!(wrong(json!({"tools": [{"type": "function"}, 1]})), "tools[1]");
    assert_eq!(wrong(json!({"tools": [{"type": 1}]})), "tools[0].type");
    assert_eq!(wrong(json!({"response_format": {"type": 1}})), "response_format.type");
    assert_eq!(
        wrong(json!({"stream_options": {"include_usage": 1}})),
        "stream_options.include_usage"
    );
}

#[test]
fn counts_have_bounds() {
    for n in [0, -1] {
        assert_eq!(refused(json!({"n": n})), ("n".to_owned(), "integer_below_min_value"));
    }
    for name in ["max_tokens", "max_completion_tokens"] {
        for limit in [0, -1, -2] {
            passes(json!({ name: limit }));
        }
    }
    assert_eq!(refused(json!({"n": 129})), ("n".to_owned(), "integer_above_max_value"));
    assert_eq!(
        refused(json!({"n": 1e300})),
        ("n".to_owned(), "integer_above_max_value")
    );
}

#[test]
fn what_cannot_be_continued_is_said() {
    assert!(
        passes(json!({"response_format": {"type": "json_object"}}))
            .not_resumable
            .is_some()
    );
    assert!(passes(json!({"tools": [{"type": "function"}]})).not_resumable.is_some());
    assert!(passes(json!({"functions": [{"name": "f"}]})).not_resumable.is_some());
    for name in [
        "guided_json",
        "guided_regex",
        "guided_choice",
        "guided_grammar",
        "grammar",
        "json_schema",
        "regex",
    ] {
        assert!(passes(json!({ name: "x" })).not_resumable.is_some(), "{name}");
        assert_eq!(passes(json!({ name: null })).not_resumable, None, "{name}");
    }
    let plain = json!({"response_format": {"type": "text"}, "tools": [], "n": 3, "logprobs": true});
    assert_eq!(passes(plain).not_resumable, None);
    let forbidden = json!({"tools": [{"type": "function"}], "tool_choice": "none"});
    assert_eq!(passes(forbidden).not_resumable, None);
}

#[test]
fn what_the_engine_must_be_able_to_do_is_read_from_the_request() {
    let needs = |change: Value| passes(change).needs.to_string();
    let tools = || json!([{"type": "function", "function": {"name": "f"}}]);
    assert_eq!(needs(json!({})), "");
    assert_eq!(needs(json!({"tools": tools()})), "tools");
    assert_eq!(needs(json!({"tools": tools(), "tool_choice": "auto"})), "tools");
    assert_eq!(
        needs(json!({"tools": tools(), "tool_choice": {"type": "function"}})),
        "tools"
    );
    assert_eq!(needs(json!({"functions": [{"name": "f"}]})), "tools");
    for none in [
        json!({"tools": tools(), "tool_choice": "none"}),
        json!({"tools": []}),
        json!({"tools": null, "tool_choice": "auto"}),
        json!({"functions": [{"name": "f"}], "function_call": "none"}),
        json!({"functions": []}),
        json!({"response_format": {"type": "json_object"}}),
        json!({"logprobs": false, "top_logprobs": 0}),
        json!({"modalities": ["text"]}),
        json!({"guided_json": {}, "chat_template_kwargs": {}, "metadata": {}, "store": true, "user": "u"}),
    ] {
        assert_eq!(needs(none.clone()), "", "{none}");
    }
    assert_eq!(
        needs(json!({"response_format": {"type": "json_schema", "json_schema": {}}})),
        "json_schema"
    );
    assert_eq!(needs(json!({"logprobs": true})), "logprobs");
    assert_eq!(needs(json!({"top_logprobs": 3})), "logprobs");
    assert_eq!(
        needs(json!({"modalities": ["text", "audio"], "audio": {"voice": "v"}})),
        "audio"
    );
    let part = |part: Value| {
        needs(messages(
            json!({"role": "user", "content": [{"type": "text", "text": "a"}, part]}),
        ))
    };
    assert_eq!(
        part(json!({"type": "image_url", "image_url": {"url": "data:,"}})),
        "vision"
    );
    assert_eq!(part(json!({"type": "input_image", "image_url": "data:,"})), "vision");
    assert_eq!(
        part(json!({"type": "input_audio", "input_audio": {"data": "", "format": "wav"}})),
        "audio"
    );
    assert_eq!(part(json!({"type": "file", "file": {"file_id": "f"}})), "");
}

#[test]
fn unknown_fields_pass_whatever_they_hold() {
    passes(json!({"top_k": "x", "metadata": {"a": [[[]]]}, "": null, "mirostat": 1e308}));
}

#[test]
fn broken_json_is_located() {
    let error = chat_view(b"{\n  \"model\": \"m\",\n  \"messages\": [,]\n}").unwrap_err();
    let RequestError::Syntax {
        line,
        column,
        ref message,
    } = error
    else {
        panic!("{error:?}")
    };
    assert_eq!((line, column), (3, 16));
    assert!(!message.contains("line"), "{message}");
    assert!(error.to_string().contains("(line 3, column 16)"), "{error}");
    for bad in [
        "",
        "   ",
        "{",
        "{\"model\":\"m\"",
        "{} x",
        "nope",
        "{'model': 1}",
        "{\"a\":\"\n\"}",
    ] {
        let error = chat_view(bad.as_bytes());
        assert!(matches!(error, Err(RequestError::Syntax { .. })), "{bad:?}: {error:?}");
    }
    let deep = format!("{{\"messages\":{}", "[".repeat(200_000));
    assert!(chat_view(deep.as_bytes()).is_err());
}

#[test]
fn json_that_is_no_object_is_refused() {
    for bad in ["[]", "\"x\"", "1", "null", "true", " [1]"] {
        assert_eq!(chat_view(bad.as_bytes()), Err(RequestError::NotAnObject), "{bad:?}");
    }
    assert_eq!(chat_view(b"{\"x\":\"a\xffb\"}"), Err(RequestError::NotUtf8(7)));
}

#[test]
fn a_field_that_comes_twice_is_refused() {
    // The gateway and the engine might otherwise read different ones.
    let error = chat_view(br#"{"model":"a","model":"b","messages":[]}"#).unwrap_err();
    assert!(matches!(&error, RequestError::Field { param: None, message, .. } if message.contains("`model`")));
}

#[path = "check_property_tests.rs"]
mod properties;
