//! Requests of Ollama's API, and what they become.

use serde_json::{Value, json};

use super::*;
use crate::ollama::embed::{ask_embed, ask_embeddings};

type Ask = fn(&[u8], Resolve<'_>) -> Result<OllamaAsk, RequestError>;

fn ask(ask: Ask, request: &Value) -> Result<OllamaAsk, RequestError> {
    ask(request.to_string().as_bytes(), &|_| None)
}

fn with(mut base: Value, more: &Value) -> Value {
    let members = base.as_object_mut().unwrap();
    members.extend(more.as_object().unwrap().clone());
    base
}

/// The kind and the body of the call, without the model and `stream`.
fn becomes(asked: Result<OllamaAsk, RequestError>) -> (RequestKind, Value) {
    let OllamaAsk::Call { checked, kind } = asked.unwrap() else {
        panic!("no call")
    };
    let mut body: Value = serde_json::from_slice(&checked.body.unwrap()).unwrap();
    assert_eq!(body["model"], checked.model.as_str());
    body.as_object_mut().unwrap().remove("model");
    body.as_object_mut().unwrap().remove("stream");
    (kind, body)
}

fn chat(more: &Value) -> Value {
    let messages = json!([{"role": "user", "content": "hi"}]);
    let (kind, mut body) = becomes(ask(ask_chat, &with(json!({"model": "m", "messages": messages}), more)));
    assert_eq!(kind, RequestKind::Chat);
    body.as_object_mut().unwrap().remove("messages");
    body
}

fn refused(asked: Result<OllamaAsk, RequestError>) -> (String, &'static str) {
    match asked {
        Err(RequestError::Field { param, code, .. }) => (param.unwrap_or_default(), code),
        other => panic!("{other:?}"),
    }
}

fn loaded(asked: Result<OllamaAsk, RequestError>) -> Value {
    let OllamaAsk::Load { answer, .. } = asked.unwrap() else {
        panic!("a call")
    };
    serde_json::from_slice(&answer.write(1_700_000_000)).unwrap()
}

#[test]
fn options_are_named_as_engines_name_them() {
    let options = json!({"num_predict": 12.0, "temperature": 0.5, "top_p": 0.9, "top_k": 20, "min_p": 0.1, "seed": 7,
        "stop": ["a"], "repeat_penalty": 1.1, "presence_penalty": 1, "frequency_penalty": 0.5, "repeat_last_n": 64,
        "num_ctx": 4096, "num_gpu": 1, "use_mmap": true, "unheard_of": {}, "typical_p": null});
    let want = json!({"max_tokens": 12, "temperature": 0.5, "top_p": 0.9, "top_k": 20, "min_p": 0.1, "seed": 7,
        "stop": ["a"], "repeat_penalty": 1.1, "repetition_penalty": 1.1, "presence_penalty": 1,
        "frequency_penalty": 0.5, "repeat_last_n": 64});
    assert_eq!(
        chat(&json!({"options": options, "keep_alive": "5m", "shift": true})),
        want
    );
    for endless in [-1, -2, 0] {
        assert_eq!(chat(&json!({"options": {"num_predict": endless}})), json!({}));
    }
    assert_eq!(chat(&json!({"options": {"stop": "a"}})), json!({"stop": ["a"]}));
    let wrong = json!({"model": "m", "messages": [], "options": {"temperature": "hot"}});
    assert_eq!(
        refused(ask(ask_chat, &wrong)),
        ("options.temperature".to_owned(), "invalid_type")
    );
}

#[test]
fn formats_and_thinking_are_translated() {
    assert_eq!(chat(&json!({"format": ""})), json!({}));
    assert_eq!(
        chat(&json!({"format": "json"})),
        json!({"response_format": {"type": "json_object"}})
    );
    let schema = json!({"type": "object", "properties": {"a": {"type": "integer"}}});
    let want = json!({"response_format": {"type": "json_schema",
        "json_schema": {"name": "output", "schema": schema, "strict": true}}});
    assert_eq!(chat(&json!({"format": schema})), want);
    for think in [true, false] {
        let want = json!({"chat_template_kwargs": {"enable_thinking": think}});
        assert_eq!(chat(&json!({"think": think})), want);
    }
    let want = json!({"reasoning_effort": "high", "chat_template_kwargs": {"enable_thinking": true}});
    assert_eq!(chat(&json!({"think": "max"})), want);
    assert_eq!(
        chat(&json!({"logprobs": true, "top_logprobs": 3})),
        json!({"logprobs": true, "top_logprobs": 3})
    );
    for (wrong, param) in [
        (json!({"format": "xml"}), "format"),
        (json!({"think": "hard"}), "think"),
    ] {
        let request = with(json!({"model": "m", "messages": [{"role": "user"}]}), &wrong);
        assert_eq!(refused(ask(ask_chat, &request)), (param.to_owned(), "invalid_value"));
    }
}

#[test]
fn calls_and_results_find_each_other() {
    let messages = json!([
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Both?", "images": ["/9j/4AAQ", "iVBORw0K"]},
        {"role": "assistant", "content": "", "thinking": "Look.", "tool_calls": [
            {"function": {"index": 0, "name": "time", "arguments": {"city": "Bern"}}},
            {"id": "x", "function": {"name": "weather", "arguments": {}}},
            {"function": {"name": "time", "arguments": "{}"}}]},
        {"role": "tool", "content": "sunny", "tool_name": "weather"},
        {"role": "tool", "content": "12:00", "tool_name": "time"},
        {"role": "tool", "content": "13:00"},
        {"role": "Assistant", "content": "Done."},
    ]);
    let tools = json!([{"function": {"name": "time", "parameters": {}}}]);
    let (_, body) = becomes(ask(
        ask_chat,
        &json!({"model": "m", "messages": messages, "tools": tools}),
    ));
    let call = |id: &str, name: &str, arguments: &str| json!({"type": "function", "id": id, "function": {"name": name, "arguments": arguments}});
    let image = |url: &str| json!({"type": "image_url", "image_url": {"url": url}});
    let want = json!([
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": [{"type": "text", "text": "Both?"}, image("data:image/jpeg;base64,/9j/4AAQ"),
            image("data:image/png;base64,iVBORw0K")]},
        {"role": "assistant", "content": null, "reasoning_content": "Look.", "tool_calls": [
            call("call_1", "time", "{\"city\":\"Bern\"}"), call("x", "weather", "{}"), call("call_2", "time", "{}")]},
        {"role": "tool", "content": "sunny", "tool_call_id": "x"},
        {"role": "tool", "content": "12:00", "tool_call_id": "call_1"},
        {"role": "tool", "content": "13:00", "tool_call_id": "call_2"},
        {"role": "assistant", "content": "Done."},
    ]);
    assert_eq!(body["messages"], want);
    assert_eq!(body["tools"][0]["type"], "function");
}

#[test]
fn a_generation_is_a_chat_unless_it_is_raw_or_has_a_suffix() {
    let generate = |more: Value| becomes(ask(ask_generate, &with(json!({"model": "m", "prompt": "p"}), &more)));
    let (kind, body) = generate(json!({"system": "s", "images": ["R0lGODlh"], "context": [], "template": ""}));
    assert_eq!(kind, RequestKind::Chat);
    assert_eq!(body["messages"][0], json!({"role": "system", "content": "s"}));
    assert_eq!(
        body["messages"][1]["content"][1]["image_url"]["url"],
        "data:image/gif;base64,R0lGODlh"
    );
    let (kind, body) = generate(json!({"raw": true, "think": true, "options": {"num_predict": 3}}));
    assert_eq!(
        (kind, body),
        (RequestKind::Completion, json!({"prompt": "p", "max_tokens": 3}))
    );
    let (kind, body) = generate(json!({"suffix": "end", "system": "s"}));
    assert_eq!(
        (kind, body),
        (RequestKind::Completion, json!({"prompt": "p", "suffix": "end"}))
    );
    for (more, param) in [
        (json!({"template": "{{ .Prompt }}"}), "template"),
        (json!({"context": [1, 2]}), "context"),
        (json!({"raw": true, "system": "s"}), "system"),
        (json!({"raw": true, "images": ["x"]}), "images"),
        (json!({"raw": true, "logprobs": true}), "logprobs"),
    ] {
        let asked = ask(ask_generate, &with(json!({"model": "m", "prompt": "p"}), &more));
        assert_eq!(refused(asked), (param.to_owned(), "unsupported_value"));
    }
}

#[test]
fn a_request_for_no_output_loads() {
    let told = loaded(ask(ask_generate, &json!({"model": "m"})));
    let want = json!({"model": "m", "created_at": "2023-11-14T22:13:20Z", "response": "", "done": true,
        "done_reason": "load"});
    assert_eq!(told, want);
    for (kept, reason) in [
        (json!(0), "unload"),
        (json!("0s"), "unload"),
        (json!(-1), "load"),
        (json!("5m"), "load"),
    ] {
        let told = loaded(ask(
            ask_chat,
            &json!({"model": "m", "messages": [], "keep_alive": kept}),
        ));
        assert_eq!(told["done_reason"], reason);
        assert_eq!(told["message"], json!({"role": "assistant", "content": ""}));
    }
    let told = loaded(ask(ask_embed, &json!({"model": "m", "input": ""})));
    assert_eq!(told, json!({"model": "m", "embeddings": [], "load_duration": 0}));
    assert_eq!(
        loaded(ask(ask_embeddings, &json!({"model": "m"}))),
        json!({"embedding": []})
    );
}

#[test]
fn the_cluster_gets_its_own_name_of_the_model() {
    let body = json!({"model": "m:latest", "messages": [{"role": "user", "content": "hi"}]}).to_string();
    let asked = ask_chat(body.as_bytes(), &|name| name.strip_suffix(":latest").map(str::to_owned));
    let checked = asked.unwrap().checked().unwrap();
    assert_eq!(checked.model, "m");
    let body: Value = serde_json::from_slice(&checked.body.unwrap()).unwrap();
    assert_eq!((&body["model"], &body["stream"]), (&json!("m"), &json!(true)));
}

#[test]
fn embeddings_are_asked_for_as_numbers() {
    let (kind, body) = becomes(ask(
        ask_embed,
        &json!({"model": "m", "input": "a", "dimensions": 0, "truncate": true}),
    ));
    assert_eq!(kind, RequestKind::Embeddings);
    assert_eq!(
        body,
        json!({"input": ["a"], "encoding_format": "float", "truncate_prompt_tokens": -1})
    );
    let (_, body) = becomes(ask(
        ask_embed,
        &json!({"model": "m", "input": ["a", "b"], "dimensions": 4}),
    ));
    assert_eq!(
        body,
        json!({"input": ["a", "b"], "encoding_format": "float", "dimensions": 4})
    );
}
