//! Requests of the Responses API, as the chat requests that they become.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::answer::Identity;
use crate::responses::{ItemPage, KeptResponse};

fn translate(request: &Value, known: &KnownResponses) -> Result<TranslatedRequest, RequestError> {
    ResponseRequest::read(request.to_string().as_bytes())?.translate(known, false)
}

/// The chat request, with `model`, `messages` and `stream` taken out where `stream` is false.
fn chat(request: &Value) -> (Value, Value) {
    let translated = translate(request, &KnownResponses::new()).unwrap_or_else(|error| panic!("{request}: {error}"));
    let mut body: Value = serde_json::from_slice(translated.checked.body.as_ref().unwrap()).unwrap();
    assert_eq!(body["model"], "m");
    let members = body.as_object_mut().unwrap();
    members.remove("model");
    if members["stream"] == false {
        members.remove("stream");
    }
    let messages = members.remove("messages").unwrap();
    (messages, body)
}

fn messages(input: Value) -> Value {
    chat(&json!({"model": "m", "input": input})).0
}

fn with(members: Value) -> Value {
    let mut request = json!({"model": "m", "input": "hi"});
    request
        .as_object_mut()
        .unwrap()
        .extend(members.as_object().unwrap().clone());
    request
}

fn refused(request: &Value) -> (String, &'static str, String) {
    match translate(request, &KnownResponses::new()) {
        Err(RequestError::Field { param, code, message }) => (param.unwrap_or_default(), code, message),
        other => panic!("{request}: {other:?}"),
    }
}

#[test]
fn a_text_is_what_the_user_says_after_the_instructions() {
    let request = json!({"model": "m", "input": "a \"b\"\n", "instructions": "Be kind."});
    let want = json!([{"role": "system", "content": "Be kind."}, {"role": "user", "content": "a \"b\"\n"}]);
    assert_eq!(chat(&request), (want, json!({})));
}

#[test]
fn messages_and_parts() {
    let input = json!([
        {"role": "developer", "content": "One."},
        {"type": "message", "role": "system", "content": [{"type": "input_text", "text": "Two."}]},
        {"role": "user", "content": [{"type": "input_text", "text": "Look: "},
            {"type": "input_image", "image_url": "https://x/y.png", "detail": "low"},
            {"type": "input_image", "image_url": "data:image/png;base64,AA=="},
            {"type": "input_file", "file_data": "data:application/pdf;base64,AA==", "filename": "f.pdf"},
            {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}}]},
        {"type": "message", "id": "msg_1", "status": "completed", "role": "assistant", "content": [
            {"type": "output_text", "text": "A ", "annotations": []}, {"type": "refusal", "refusal": "cat."}]},
        {"role": "developer", "content": "Three."},
        {"role": "user", "content": [{"type": "input_text", "text": "And?"}]},
    ]);
    let want = json!([
        {"role": "system", "content": "One.\n\nTwo."},
        {"role": "user", "content": [{"type": "text", "text": "Look: "},
            {"type": "image_url", "image_url": {"url": "https://x/y.png", "detail": "low"}},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
            {"type": "file", "file": {"file_data": "data:application/pdf;base64,AA==", "filename": "f.pdf"}},
            {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}}]},
        {"role": "assistant", "content": "A cat."},
        {"role": "user", "content": "<system>\nThree.\n</system>\n\nAnd?"},
    ]);
    assert_eq!(messages(input), want);
}

#[test]
fn calls_their_results_and_thoughts_are_one_turn_each() {
    let input = json!([
        {"role": "user", "content": "Weather?"},
        {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "Look it up."}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Wait."}]},
        {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "weather", "arguments": "{\"city\":\"Z\"}"},
        {"type": "function_call", "call_id": "c2", "name": "weather", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "sunny"},
        {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "see"},
            {"type": "input_image", "image_url": "data:,", "detail": "auto"}]},
        {"type": "reasoning", "id": "rs_2", "summary": [{"type": "summary_text", "text": "Fine."}], "encrypted_content": null},
        {"role": "assistant", "content": "Sunny."},
        {"type": "custom_tool_call", "call_id": "c3", "name": "sh", "input": "ls"},
        {"type": "custom_tool_call_output", "call_id": "c3", "output": "a b"},
    ]);
    let function = |id: &str, arguments: &str| json!({"type": "function", "id": id, "function": {"name": "weather", "arguments": arguments}});
    let want = json!([
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": "Wait.", "reasoning_content": "Look it up.",
            "tool_calls": [function("c1", "{\"city\":\"Z\"}"), function("c2", "{}")]},
        {"role": "tool", "content": "sunny", "tool_call_id": "c1"},
        {"role": "tool", "content": "see", "tool_call_id": "c2"},
        // Engines take no images from tools.
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,", "detail": "auto"}}]},
        {"role": "assistant", "content": "Sunny.", "reasoning_content": "Fine.",
            "tool_calls": [{"type": "function", "id": "c3", "function": {"name": "sh", "arguments": r#"{"input":"ls"}"#}}]},
        {"role": "tool", "content": "a b", "tool_call_id": "c3"},
    ]);
    assert_eq!(messages(input), want);
}

#[test]
fn messages_of_the_assistant_that_follow_each_other_are_one() {
    let said = |text: &str| json!({"role": "assistant", "content": text});
    let call = json!({"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"});
    assert_eq!(
        messages(json!([said("a"), said("b")])),
        json!([{"role": "assistant", "content": "a\n\nb"}])
    );
    let one = messages(json!([said("a"), call, said("b")]));
    assert_eq!(one.as_array().unwrap().len(), 1);
    assert_eq!(one[0]["content"], "a\nb");
    // Thoughts that led to nothing are no message.
    let thought = json!({"type": "reasoning", "id": "r", "summary": [{"type": "summary_text", "text": "x"}]});
    let want = json!([{"role": "user", "content": "u"}]);
    assert_eq!(messages(json!([thought, {"role": "user", "content": "u"}])), want);
}

#[test]
fn sampling_and_labels_go_under_the_names_of_chat() {
    let request = r#"{"model":"m","input":"hi","temperature":0.10,"top_p":1.0,"max_output_tokens":99,"stream":true,
        "user":"u","client_metadata":{"a":"b"},"metadata":{"a":"b"},"reasoning":{"effort":"low","summary":"auto"},"seed":12345678901234567890,
        "min_p":0.050,"chat_template_kwargs":{"b":1,"a":2},"store":false,"include":["reasoning.encrypted_content"],
        "prompt_cache_key":"k","safety_identifier":"s","service_tier":"auto","truncation":"auto","max_tool_calls":3,
        "stream_options":{"include_obfuscation":false},"text":{"verbosity":"low"},"parallel_tool_calls":true}"#;
    let create = ResponseRequest::read(request.as_bytes()).unwrap();
    assert_eq!(create.store, Some(false));
    let translated = create.translate(&KnownResponses::new(), false).unwrap();
    let body = String::from_utf8(translated.checked.body.unwrap().to_vec()).unwrap();
    // Numbers and unknown members as they were written.
    let want = concat!(
        r#"{"model":"m","messages":[{"role":"user","content":"hi"}],"stream":true,"temperature":0.10,"top_p":1.0,"#,
        r#""max_tokens":99,"verbosity":"low","reasoning_effort":"low","user":"u","seed":12345678901234567890,"#,
        r#""min_p":0.050,"chat_template_kwargs":{"b":1,"a":2},"service_tier":"auto","#,
        r#""tokenbus_added":["verbosity","reasoning_effort"]}"#
    );
    assert_eq!(body, want);
    assert!(translated.checked.form.is_stream());
}

#[test]
fn log_probabilities_are_asked_for() {
    let body = |members: Value| chat(&with(members)).1;
    assert_eq!(
        body(json!({"include": ["message.output_text.logprobs"]})),
        json!({"logprobs": true})
    );
    assert_eq!(
        body(json!({"top_logprobs": 3})),
        json!({"logprobs": true, "top_logprobs": 3})
    );
    assert_eq!(body(json!({"include": ["file_search_call.results"]})), json!({}));
}

#[test]
fn formats_are_response_formats() {
    let format = |format: Value| chat(&with(json!({"text": {"format": format}}))).1;
    assert_eq!(format(json!({"type": "text"})), json!({}));
    assert_eq!(
        format(json!({"type": "json_object"})),
        json!({"response_format": {"type": "json_object"}})
    );
    let schema = json!({"type": "object", "properties": {}});
    assert_eq!(
        format(json!({"type": "json_schema", "name": "n", "schema": schema, "strict": true, "description": "d"})),
        json!({"response_format": {"type": "json_schema",
            "json_schema": {"name": "n", "schema": schema, "strict": true, "description": "d"}}})
    );
    for (bad, param) in [
        (json!({"type": "xml"}), "text.format.type"),
        (json!({"type": "json_schema", "name": "n"}), "text.format.schema"),
        (json!({"type": "json_schema", "schema": {}}), "text.format.name"),
        (json!({}), "text.format.type"),
        (json!("json"), "text.format"),
    ] {
        assert_eq!(refused(&with(json!({"text": {"format": bad}}))).0, param, "{bad}");
    }
}

#[test]
fn what_only_openais_servers_have_is_refused_by_its_name() {
    for (members, param) in [
        (json!({"conversation": "conv_1"}), "conversation"),
        (json!({"prompt": {"id": "p"}}), "prompt"),
        (json!({"background": true}), "background"),
        (json!({"n": 2}), "n"),
        (
            json!({"tool_choice": {"type": "web_search_preview"}}),
            "tool_choice.type",
        ),
        (
            json!({"input": [{"type": "compaction", "encrypted_content": "x"}]}),
            "input[0].type",
        ),
        (
            json!({"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]}),
            "input[0].content[0].file_id",
        ),
        (
            json!({"input": [{"role": "user", "content": [{"type": "input_file", "file_url": "https://x"}]}]}),
            "input[0].content[0].file_url",
        ),
    ] {
        let (told, code, message) = refused(&with(members));
        assert_eq!((told.as_str(), code), (param, "unsupported_value"), "{message}");
    }
    let fine = with(json!({"background": false, "conversation": null, "n": 1, "context_management": []}));
    assert_eq!(chat(&fine).1, json!({}));
}

#[test]
fn members_of_chat_are_told_where_they_went() {
    let (param, code, message) = refused(&json!({"model": "m", "messages": []}));
    assert_eq!((param.as_str(), code), ("messages", "unsupported_parameter"));
    assert!(message.contains("'input'"), "{message}");
    assert_eq!(refused(&with(json!({"max_tokens": 1}))).0, "max_tokens");
    assert_eq!(refused(&with(json!({"response_format": {}}))).0, "response_format");
}

#[test]
fn what_is_wrong_is_said_with_its_path() {
    let user = |content: Value| json!({"input": [{"role": "user", "content": content}]});
    let call = json!({"type": "function_call", "call_id": "c", "name": "f"});
    for (members, param) in [
        (json!({"model": null}), "model"),
        (json!({"input": null}), "input"),
        (json!({"input": 7}), "input"),
        (json!({"input": []}), "input"),
        (json!({"input": ["x"]}), "input[0]"),
        (json!({"input": [{"role": "robot", "content": "x"}]}), "input[0].role"),
        (json!({"input": [{"role": "user"}]}), "input[0].content"),
        (json!({"input": [{"content": "x"}]}), "input[0].role"),
        (user(json!(7)), "input[0].content"),
        (user(json!([{"text": "x"}])), "input[0].content[0].type"),
        (user(json!([{"type": "input_text"}])), "input[0].content[0].text"),
        (user(json!([{"type": "input_image"}])), "input[0].content[0].image_url"),
        (user(json!([{"type": "video"}])), "input[0].content[0].type"),
        (json!({"input": [call]}), "input[0].arguments"),
        (
            json!({"input": [{"type": "function_call_output", "call_id": "c"}]}),
            "input[0].output",
        ),
        (
            json!({"input": [{"role": "system", "content": [{"type": "input_image", "image_url": "x"}]}]}),
            "input[0].content",
        ),
        (json!({"temperature": "hot"}), "temperature"),
        (json!({"max_output_tokens": 0}), "max_output_tokens"),
        (json!({"max_output_tokens": 1.5}), "max_output_tokens"),
        (json!({"metadata": {"a": 1}}), "metadata.a"),
        (json!({"stream": "yes"}), "stream"),
        (json!({"tools": [{"type": "function"}]}), "tools[0].name"),
        (
            json!({"tools": [{"type": "function", "name": "f", "parameters": 1}]}),
            "tools[0].parameters",
        ),
        (json!({"tools": {}}), "tools"),
        (json!({"tool_choice": "maybe"}), "tool_choice"),
        (
            json!({"tool_choice": {"type": "function", "name": "f"}}),
            "tool_choice.name",
        ),
        (json!({"truncation": "some"}), "truncation"),
        (json!({"include": "x"}), "include"),
        // Members that only the engine knows are checked as in chat.
        (json!({"stop": 7}), "stop"),
    ] {
        let (told, _, message) = refused(&with(members.clone()));
        assert_eq!(told, param, "{members}: {message}");
    }
}

fn kept(hex: char, input: &Value, output: &Value) -> (String, KeptResponse) {
    let suffix = hex.to_string().repeat(32);
    let identity = Identity {
        id: format!("resp_{suffix}"),
        created: 1,
        model: "m".to_owned(),
    };
    let response = json!({"id": identity.id, "output": output}).to_string();
    let items = serde_json::from_str(&input.to_string()).unwrap();
    (
        identity.id.clone(),
        KeptResponse::new(response.as_bytes(), items, &identity).unwrap(),
    )
}

#[test]
fn a_conversation_goes_on_from_a_kept_response() {
    let output = json!([{"type": "message", "id": format!("msg_{}0000", "a".repeat(32)), "role": "assistant",
        "status": "completed", "content": [{"type": "output_text", "text": "Blue.", "annotations": []}]}]);
    let (id, first) = kept('a', &json!([{"role": "user", "content": "Colour?"}]), &output);
    // As it comes from where it lies.
    let first = KeptResponse::decode(&first.encode().unwrap()).unwrap();
    let known = KnownResponses::from([(id.clone(), first)]);
    let request = json!({"model": "m", "input": "Why?", "previous_response_id": id, "instructions": "New."});
    let create = ResponseRequest::read(request.to_string().as_bytes()).unwrap();
    assert_eq!(create.refers_to().unwrap(), HashSet::from([id.clone()]));
    let translated = create.translate(&known, true).unwrap();
    let body: Value = serde_json::from_slice(&translated.checked.body.unwrap()).unwrap();
    let want = json!([{"role": "system", "content": "New."}, {"role": "user", "content": "Colour?"},
        {"role": "assistant", "content": "Blue."}, {"role": "user", "content": "Why?"}]);
    assert_eq!(body["messages"], want);
    assert_eq!(translated.items.len(), 3, "all of it is kept with the next");
    assert!(translated.shape.is_kept());
    let (param, code, _) = refused(&request);
    assert_eq!(
        (param.as_str(), code),
        ("previous_response_id", "previous_response_not_found")
    );
}

#[test]
fn references_to_one_large_item_are_bounded_together() {
    let item = format!("msg_{}0001", "b".repeat(32));
    let text = "x".repeat(1 << 20);
    let output = json!([{"type": "message", "id": item, "role": "assistant", "content": [{"type": "output_text", "text": text}]}]);
    let (id, response) = kept('b', &json!([{"role": "user", "content": "Go."}]), &output);
    let known = KnownResponses::from([(id, response)]);
    let asks = |times: usize| {
        let reference = json!({"type": "item_reference", "id": item});
        translate(&json!({"model": "m", "input": vec![reference; times]}), &known)
    };
    assert!(asks(4).is_ok());
    assert!(matches!(asks(1000), Err(RequestError::TooLarge(MAX_REFERRED))));
}

#[test]
fn references_stand_for_items() {
    let item = format!("fc_{}0001", "b".repeat(32));
    let output = json!([{"type": "function_call", "id": item, "call_id": "c", "name": "f", "arguments": "{}"}]);
    let (id, response) = kept('b', &json!([{"role": "user", "content": "Go."}]), &output);
    let known = KnownResponses::from([(id.clone(), response)]);
    let request = json!({"model": "m", "input": [{"role": "user", "content": "Go."},
        {"type": "item_reference", "id": item}, {"type": "function_call_output", "call_id": "c", "output": "x"}]});
    let create = ResponseRequest::read(request.to_string().as_bytes()).unwrap();
    assert_eq!(create.refers_to().unwrap(), HashSet::from([id]));
    let translated = create.translate(&known, false).unwrap();
    let body: Value = serde_json::from_slice(&translated.checked.body.unwrap()).unwrap();
    assert_eq!(body["messages"][1]["tool_calls"][0]["id"], "c");
    for unknown in ["fc_short", "nothing", &format!("fc_{}0009", "b".repeat(32))] {
        let request = json!({"model": "m", "input": [{"id": unknown}]});
        let create = ResponseRequest::read(request.to_string().as_bytes()).unwrap();
        let error = create
            .refers_to()
            .err()
            .unwrap_or_else(|| create.translate(&known, false).unwrap_err());
        assert!(
            matches!(
                error,
                RequestError::Field {
                    code: "item_not_found",
                    ..
                }
            ),
            "{unknown}: {error:?}"
        );
    }
}

#[test]
fn what_was_answered_is_listed_page_by_page() {
    let input: Vec<Value> = (0..5)
        .map(|n| json!({"role": "user", "content": format!("u{n}")}))
        .collect();
    let (_, kept) = kept('c', &Value::from(input), &json!([]));
    let page = |ascending, limit, after: Option<&str>| -> Value {
        let after = after.map(str::to_owned);
        serde_json::from_slice(&kept.page(&ItemPage {
            ascending,
            limit,
            after,
        }))
        .unwrap()
    };
    let all = page(true, 20, None);
    assert_eq!((&all["object"], &all["has_more"]), (&json!("list"), &json!(false)));
    let first = &all["data"][0];
    assert_eq!(first["content"], json!([{"type": "input_text", "text": "u0"}]));
    assert_eq!(
        (&first["type"], &first["status"]),
        (&json!("message"), &json!("completed"))
    );
    let newest = page(false, 2, None);
    assert_eq!(
        (&newest["data"][0], &newest["has_more"]),
        (&all["data"][4], &json!(true))
    );
    let next = page(false, 2, newest["last_id"].as_str());
    assert_eq!(next["data"], json!([all["data"][2], all["data"][1]]));
    let nothing = page(true, 2, Some("unknown"));
    assert_eq!((&nothing["data"], &nothing["first_id"]), (&json!([]), &json!("")));
}

/// A request with everything that is looked at.
const FULL: &str = r#"{"model":"m","instructions":"i","input":[{"role":"user","content":[{"type":"input_text","text":"x"},
{"type":"input_image","image_url":"data:,"}]},{"type":"reasoning","summary":[{"text":"t"}]},{"type":"function_call",
"call_id":"c","name":"f","arguments":"{}"},{"type":"function_call_output","call_id":"c","output":"o"},
{"type":"item_reference","id":"msg_0"}],"tools":[{"type":"function","name":"f"},{"type":"custom","name":"g"},{"type":"web_search"},
{"type":"namespace","name":"n","tools":[{"type":"function","name":"f"}]}],
"tool_choice":{"type":"allowed_tools","mode":"auto","tools":[{"type":"function","name":"f"}]},"text":{"format":
{"type":"json_schema","name":"n","schema":{}}},"reasoning":{"effort":"low"},"metadata":{"a":"b"},"temperature":1}"#;

#[path = "request_tools_tests.rs"]
mod tools;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// Whatever comes is translated or refused, and what is translated is a chat request.
    #[test]
    fn damaged_requests(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        moved in prop::option::of((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0usize..40)),
    ) {
        let mut body = FULL.as_bytes().to_vec();
        if let Some((from, to, length)) = moved {
            let from = from.index(body.len());
            let piece: Vec<u8> = body[from..body.len().min(from + length)].to_vec();
            let to = to.index(body.len());
            body.splice(to..to, piece);
        }
        for (at, byte) in damage {
            let at = at.index(body.len());
            body[at] = byte;
        }
        if let Ok(create) = ResponseRequest::read(&body) {
            let _ = create.refers_to();
            if let Ok(translated) = create.translate(&KnownResponses::new(), true) {
                prop_assert!(crate::chat::check_chat(&translated.checked.body.unwrap()).is_ok());
            }
        }
    }
}
