//! What passes as a text completion request, and what is said of the rest.
#![allow(clippy::unwrap_used, clippy::panic)]

use serde_json::{Value, json};

use super::*;

fn request(change: &Value) -> String {
    let mut request = json!({"model": "m", "prompt": "p"});
    for (name, value) in change.as_object().unwrap() {
        request[name] = value.clone();
    }
    request.to_string()
}

fn passes(change: &Value) -> GenerationView {
    let text = request(change);
    completion_view(text.as_bytes()).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn refused(change: &Value) -> (String, &'static str) {
    let text = request(change);
    match completion_view(text.as_bytes()) {
        Err(RequestError::Field { param, code, .. }) => (param.unwrap(), code),
        other => panic!("{text}: {other:?}"),
    }
}

#[test]
fn the_view_has_what_the_gateway_needs() {
    let plain = passes(&json!({}));
    assert_eq!(
        plain,
        GenerationView {
            model: "m".to_owned(),
            stream: false,
            include_usage: false,
            choices: 1,
            needs: Features::NONE,
            not_resumable: None,
        }
    );
    let view =
        passes(&json!({"stream": true, "stream_options": {"include_usage": true}, "n": 2, "prompt": ["a", "b"]}));
    assert!(view.stream && view.include_usage);
    assert_eq!(view.choices, 4);
}

#[test]
fn every_form_of_prompt_passes() {
    for (prompt, choices) in [
        (json!(""), 1),
        (json!(["a", "b", "c"]), 3),
        (json!([1, 2, 3]), 1),
        (json!([[1, 2], [3]]), 2),
    ] {
        assert_eq!(passes(&json!({ "prompt": prompt })).choices, choices, "{prompt}");
    }
    assert!(completion_view(br#"{"model":"m","prompt_embeds":"AAAA"}"#).is_ok());
}

#[test]
fn wrong_fields_are_named() {
    let wrong = |change: Value| refused(&change);
    assert_eq!(
        wrong(json!({"prompt": null})),
        ("prompt".to_owned(), "missing_required_parameter")
    );
    assert_eq!(wrong(json!({"prompt": []})), ("prompt".to_owned(), "empty_array"));
    assert_eq!(wrong(json!({"prompt": ["a", 1]})).0, "prompt");
    assert_eq!(
        wrong(json!({"prompt": {"x": 1}})),
        ("prompt".to_owned(), "invalid_type")
    );
    assert_eq!(wrong(json!({"n": 0})).0, "n");
    assert_eq!(wrong(json!({"echo": "yes"})), ("echo".to_owned(), "invalid_type"));
    assert_eq!(wrong(json!({"suffix": 7})).0, "suffix");
    assert_eq!(wrong(json!({"logprobs": "all"})).0, "logprobs");
    let many: Vec<String> = (0..=MAX_TEXT_CHOICES / 2).map(|n| n.to_string()).collect();
    assert_eq!(
        wrong(json!({"prompt": many, "n": 2})),
        ("prompt".to_owned(), "array_above_max_length")
    );
    for change in [
        json!({"max_tokens": -1}),
        json!({"max_tokens": 0}),
        json!({"logprobs": -1}),
    ] {
        passes(&change);
    }
    assert!(
        passes(&json!({"max_tokens": 0, "echo": true, "logprobs": 0}))
            .needs
            .has(Feature::Logprobs)
    );
}

#[test]
fn what_is_needed_is_read_from_the_fields() {
    assert!(
        passes(&json!({"logprobs": false, "response_format": {"type": "json_object"}}))
            .needs
            .is_empty()
    );
    let schema = json!({"response_format": {"type": "json_schema", "json_schema": {}}});
    assert!(passes(&schema).needs.has(Feature::JsonSchema));
}

#[test]
fn what_cannot_be_continued_is_said() {
    for change in [
        json!({"prompt": ["a"]}),
        json!({"prompt": [1]}),
        json!({"suffix": "s"}),
        json!({"echo": true}),
        json!({"best_of": 2}),
        json!({"guided_regex": "a*"}),
        json!({"response_format": {"type": "json_object"}}),
    ] {
        assert!(passes(&change).not_resumable.is_some(), "{change}");
    }
    for change in [
        json!({"suffix": ""}),
        json!({"echo": false, "best_of": 1}),
        json!({"n": 3}),
        json!({"response_format": {"type": "text"}}),
    ] {
        assert_eq!(passes(&change).not_resumable, None, "{change}");
    }
}
