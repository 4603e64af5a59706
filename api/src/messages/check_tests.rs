//! Requests of the Messages API, as the chat requests that they become.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

/// The chat request, apart from its messages; `model`, `max_tokens` and a `stream` of false are
/// taken out.
fn chat(request: &Value) -> (Value, Value) {
    let checked = check_message(request.to_string().as_bytes()).unwrap_or_else(|error| panic!("{request}: {error}"));
    let mut body: Value = serde_json::from_slice(checked.body.as_ref().unwrap()).unwrap();
    let members = body.as_object_mut().unwrap();
    assert_eq!(members.remove("model").unwrap(), "m");
    assert_eq!(members.remove("max_tokens").unwrap(), 99);
    if members["stream"] == false {
        members.remove("stream");
    }
    let messages = members.remove("messages").unwrap();
    (messages, body)
}

fn with(members: Value) -> Value {
    let mut request = json!({"model": "m", "max_tokens": 99, "messages": [{"role": "user", "content": "hi"}]});
    request
        .as_object_mut()
        .unwrap()
        .extend(members.as_object().unwrap().clone());
    request
}

fn messages(messages: Value) -> Value {
    chat(&with(json!({ "messages": messages }))).0
}

fn body(members: Value) -> Value {
    chat(&with(members)).1
}

fn refused(request: &Value) -> (String, &'static str, String) {
    match check_message(request.to_string().as_bytes()) {
        Err(RequestError::Field { param, code, message }) => (param.unwrap_or_default(), code, message),
        other => panic!("{request}: {other:?}"),
    }
}

#[test]
fn the_system_is_the_first_message() {
    let want = |text: &str| json!([{"role": "system", "content": text}, {"role": "user", "content": "hi"}]);
    assert_eq!(chat(&with(json!({"system": "Be kind."}))).0, want("Be kind."));
    let blocks = json!([{"type": "text", "text": "Be", "cache_control": {"type": "ephemeral"}}, {"type": "text", "text": "kind."}]);
    assert_eq!(chat(&with(json!({ "system": blocks }))).0, want("Be\nkind."));
    let inside =
        json!([{"role": "user", "content": "a"}, {"role": "system", "content": "b"}, {"role": "user", "content": "c"}]);
    let block = "a\n\n<system>\nb\n</system>\n\nc";
    assert_eq!(messages(inside), json!([{"role": "user", "content": block}]));
}

#[test]
fn content_blocks_are_parts() {
    let content = json!([
        {"type": "text", "text": "Look: "},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA=="}},
        {"type": "image", "source": {"type": "url", "url": "https://x/y.png"}},
        {"type": "document", "title": "T", "source": {"type": "text", "media_type": "text/plain", "data": "body"}},
        {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "BB=="}},
        {"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": "inner"}]}},
        {"type": "search_result", "title": "S", "source": "https://s", "content": [{"type": "text", "text": "found"}]},
    ]);
    let want = json!([{"role": "user", "content": [
        {"type": "text", "text": "Look: "},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
        {"type": "image_url", "image_url": {"url": "https://x/y.png"}},
        {"type": "text", "text": "T\nbody"},
        {"type": "file", "file": {"file_data": "data:application/pdf;base64,BB==", "filename": "document.pdf"}},
        {"type": "text", "text": "inner"},
        {"type": "text", "text": "S\nhttps://s\nfound"},
    ]}]);
    assert_eq!(messages(json!([{"role": "user", "content": content}])), want);
}

#[test]
fn a_turn_with_thoughts_and_calls_and_their_results() {
    let list = json!([
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": [
            {"type": "thinking", "thinking": "Look it up.", "signature": "s"},
            {"type": "redacted_thinking", "data": "x"},
            {"type": "text", "text": "Wait"}, {"type": "text", "text": "."},
            {"type": "tool_use", "id": "t1", "name": "weather", "input": {"b": 1.50, "a": 2}},
            {"type": "tool_use", "id": "t2", "name": "weather", "input": {}}]},
        {"role": "user", "content": [
            {"type": "text", "text": "Here."},
            {"type": "tool_result", "tool_use_id": "t1", "content": "sunny"},
            {"type": "tool_result", "tool_use_id": "t2", "is_error": true, "content": [{"type": "text", "text": "no"},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA=="}}]}]},
        {"role": "assistant", "content": "So"},
    ]);
    let function = |id: &str, arguments: &str| json!({"type": "function", "id": id, "function": {"name": "weather", "arguments": arguments}});
    let want = json!([
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": "Wait.", "reasoning_content": "Look it up.",
            "tool_calls": [function("t1", "{\"b\":1.5,\"a\":2}"), function("t2", "{}")]},
        {"role": "tool", "content": "sunny", "tool_call_id": "t1"},
        {"role": "tool", "content": "no", "tool_call_id": "t2"},
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
            {"type": "text", "text": "Here."}]},
        {"role": "assistant", "content": "So"},
    ]);
    // serde_json's map sorts members and rounds numbers: look at the text for those.
    let told = messages(list.clone());
    let arguments: Value =
        serde_json::from_str(told[1]["tool_calls"][0]["function"]["arguments"].as_str().unwrap()).unwrap();
    assert_eq!(arguments, json!({"a": 2, "b": 1.5}));
    let mut told = told;
    told[1]["tool_calls"][0]["function"]["arguments"] = json!("{\"b\":1.5,\"a\":2}");
    assert_eq!(told, want);
    let only = json!([{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t"}]}]);
    assert_eq!(
        messages(only),
        json!([{"role": "tool", "content": "", "tool_call_id": "t"}])
    );
}

#[test]
fn members_go_under_the_names_of_chat_as_they_were_written() {
    let request = r#"{"model":"m","max_tokens":99,"messages":[{"role":"assistant","content":[{"type":"tool_use","id":"t",
        "name":"f","input":{"b":1.50,"a":[ 2 ]}}]},{"role":"user","content":"x"}],"temperature":0.10,"top_p":1.0,
        "top_k":5,"stop_sequences":["a","b"],"metadata":{"user_id":"u"},"stream":true,"service_tier":"auto",
        "min_p":0.050,"cache_control":{"type":"ephemeral"},"context_management":{"edits":[]}}"#;
    let checked = check_message(request.as_bytes()).unwrap();
    assert!(checked.form.is_stream());
    let body = String::from_utf8(checked.body.unwrap().to_vec()).unwrap();
    let want = concat!(
        r#"{"model":"m","messages":[{"role":"assistant","content":null,"tool_calls":[{"type":"function","id":"t","#,
        r#""function":{"name":"f","arguments":"{\"b\":1.50,\"a\":[ 2 ]}"}}]},{"role":"user","content":"x"}],"#,
        r#""max_tokens":99,"stream":true,"temperature":0.10,"top_p":1.0,"top_k":5,"stop":["a","b"],"user":"u","#,
        r#""min_p":0.050,"tokenbus_added":["user"]}"#
    );
    assert_eq!(body, want);
}

#[test]
fn tools_and_their_choice() {
    let tool = |name: &str| json!({"name": name, "description": "d", "input_schema": {"type": "object"}, "cache_control": null});
    let function = |name: &str| json!({"type": "function", "function": {"name": name, "description": "d", "parameters": {"type": "object"}}});
    let ask = |choice: Value| body(json!({"tools": [tool("a"), tool("b")], "tool_choice": choice}));
    let all = json!([function("a"), function("b")]);
    assert_eq!(ask(Value::Null), json!({ "tools": all }));
    assert_eq!(
        ask(json!({"type": "auto"})),
        json!({"tools": all, "tool_choice": "auto"})
    );
    assert_eq!(
        ask(json!({"type": "any", "disable_parallel_tool_use": true})),
        json!({"tools": all, "tool_choice": "required", "parallel_tool_calls": false})
    );
    assert_eq!(
        ask(json!({"type": "tool", "name": "b"}))["tool_choice"],
        json!({"type": "function", "function": {"name": "b"}})
    );
    assert_eq!(ask(json!({"type": "none"}))["tool_choice"], "none");
    assert_eq!(body(json!({"tools": [], "tool_choice": {"type": "auto"}})), json!({}));
    let strict = json!({"type": "custom", "name": "s", "input_schema": {}, "strict": true});
    assert_eq!(body(json!({"tools": [strict]}))["tools"][0]["function"]["strict"], true);
}

#[test]
fn thinking_is_told_to_the_template() {
    let kwargs = |thinking: Value| body(json!({ "thinking": thinking }));
    assert_eq!(
        kwargs(json!({"type": "enabled", "budget_tokens": 2048})),
        json!({"chat_template_kwargs": {"enable_thinking": true}, "thinking_budget_tokens": 2048, "tokenbus_added": ["chat_template_kwargs.enable_thinking", "thinking_budget_tokens"]})
    );
    assert_eq!(
        kwargs(json!({"type": "adaptive"})),
        json!({"chat_template_kwargs": {"enable_thinking": true}, "tokenbus_added": ["chat_template_kwargs.enable_thinking"]})
    );
    assert_eq!(
        kwargs(json!({"type": "disabled"})),
        json!({"chat_template_kwargs": {"enable_thinking": false}, "tokenbus_added": ["chat_template_kwargs.enable_thinking"]})
    );
    let own =
        body(json!({"thinking": {"type": "adaptive"}, "chat_template_kwargs": {"enable_thinking": false, "x": 1}}));
    assert_eq!(own, json!({"chat_template_kwargs": {"enable_thinking": false, "x": 1}}));
    assert_eq!(body(json!({})), json!({}));
}

#[test]
fn a_begun_answer_is_not_thought_about() {
    let begun = |mut change: Value| {
        change["messages"] = json!([{"role": "user", "content": "hi"}, {"role": "assistant", "content": "The"}]);
        let mut body = body(change);
        body.as_object_mut().unwrap().remove("messages");
        body.as_object_mut().unwrap().remove("tokenbus_added");
        body
    };
    let off = json!({"chat_template_kwargs": {"enable_thinking": false}});
    assert_eq!(begun(json!({})), off);
    assert_eq!(begun(json!({"thinking": {"type": "disabled"}})), off);
    let on = json!({"chat_template_kwargs": {"enable_thinking": true}});
    assert_eq!(begun(json!({"thinking": {"type": "adaptive"}})), on);
    let own = json!({"chat_template_kwargs": {"x": 1}});
    assert_eq!(begun(own.clone()), own);
}

#[test]
fn how_the_answer_is_to_be() {
    let schema = json!({"type": "object"});
    let format = json!({"type": "json_schema", "schema": schema});
    let want = json!({"type": "json_schema", "json_schema": {"name": "output", "schema": schema, "strict": true}});
    let config = json!({"output_config": {"effort": "max", "format": format}});
    assert_eq!(
        body(config),
        json!({"reasoning_effort": "high", "response_format": want, "tokenbus_added": ["reasoning_effort"]})
    );
    assert_eq!(
        body(json!({ "output_format": format })),
        json!({ "response_format": want })
    );
    assert_eq!(
        body(json!({"output_config": {"effort": "low"}})),
        json!({"reasoning_effort": "low", "tokenbus_added": ["reasoning_effort"]})
    );
}

#[test]
fn what_only_anthropics_servers_have_is_refused_by_its_name() {
    let user = |block: Value| json!({"messages": [{"role": "user", "content": [block]}]});
    for (members, param) in [
        (json!({"mcp_servers": [{"type": "url"}]}), "mcp_servers"),
        (json!({"container": "c"}), "container"),
        (json!({"n": 2}), "n"),
        (json!({"functions": []}), "functions"),
        (
            user(json!({"type": "image", "source": {"type": "file", "file_id": "f"}})),
            "messages[0].content[0].source.type",
        ),
        (
            user(json!({"type": "document", "source": {"type": "url", "url": "u"}})),
            "messages[0].content[0].source.type",
        ),
        (user(json!({"type": "server_tool_use"})), "messages[0].content[0].type"),
    ] {
        let (told, code, message) = refused(&with(members));
        assert_eq!((told.as_str(), code), (param, "unsupported_value"), "{message}");
    }
}

#[test]
fn what_is_wrong_is_said_with_its_path() {
    let user = |content: Value| json!({"messages": [{"role": "user", "content": content}]});
    let assistant = |block: Value| json!({"messages": [{"role": "assistant", "content": [block]}]});
    for (members, param) in [
        (json!({"model": null}), "model"),
        (json!({"max_tokens": 0}), "max_tokens"),
        (json!({"messages": null}), "messages"),
        (json!({"messages": []}), "messages"),
        (
            json!({"messages": [{"role": "robot", "content": "x"}]}),
            "messages[0].role",
        ),
        (json!({"messages": [{"role": "user"}]}), "messages[0].content"),
        (user(json!(7)), "messages[0].content"),
        (user(json!([7])), "messages[0].content[0]"),
        (user(json!([{"type": "text"}])), "messages[0].content[0].text"),
        (user(json!([{"type": "image"}])), "messages[0].content[0].source"),
        (
            user(json!([{"type": "tool_result"}])),
            "messages[0].content[0].tool_use_id",
        ),
        (
            assistant(json!({"type": "tool_use", "id": "t", "name": "f", "input": "{}"})),
            "messages[0].content[0].input",
        ),
        (
            json!({"system": [{"type": "image", "source": {"type": "url", "url": "u"}}]}),
            "system",
        ),
        (json!({"system": 7}), "system"),
        (json!({"temperature": "hot"}), "temperature"),
        (json!({"stop_sequences": "x"}), "stop_sequences"),
        (json!({"stream": 1}), "stream"),
        (json!({"tools": [{"name": "f"}]}), "tools[0].input_schema"),
        (json!({"tools": [{"input_schema": {}}]}), "tools[0].name"),
        (
            json!({"tools": [{"name": "f", "input_schema": {}}], "tool_choice": {"type": "tool", "name": "g"}}),
            "tool_choice.name",
        ),
        (json!({"tool_choice": {"type": "maybe"}}), "tool_choice.type"),
        (json!({"thinking": {"type": "enabled"}}), "thinking.budget_tokens"),
        (json!({"thinking": {"type": "deeply"}}), "thinking.type"),
        (
            json!({"output_config": {"format": {"type": "xml"}}}),
            "output_config.format.type",
        ),
        (
            json!({"output_config": {"format": {"type": "json_schema"}}}),
            "output_config.format.schema",
        ),
        (json!({"metadata": {"user_id": 7}}), "metadata.user_id"),
    ] {
        let (told, _, message) = refused(&with(members.clone()));
        assert_eq!(told, param, "{members}: {message}");
    }
}

/// A request with everything that is looked at.
const FULL: &str = r#"{"model":"m","max_tokens":9,"system":[{"type":"text","text":"s"}],"messages":[{"role":"user","content":
[{"type":"text","text":"x"},{"type":"image","source":{"type":"base64","media_type":"a/b","data":"AA=="}}]},{"role":
"assistant","content":[{"type":"thinking","thinking":"t","signature":"s"},{"type":"tool_use","id":"t","name":"f","input":
{"a":1}}]},{"role":"user","content":[{"type":"tool_result","tool_use_id":"t","content":[{"type":"text","text":"o"}]}]}],
"tools":[{"name":"f","input_schema":{"type":"object"}}],"tool_choice":{"type":"tool","name":"f"},"thinking":{"type":
"enabled","budget_tokens":1024},"stop_sequences":["x"],"temperature":1,"output_config":{"effort":"low"}}"#;

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
        if let Ok(checked) = check_message(&body) {
            prop_assert!(crate::chat::check_chat(&checked.body.unwrap()).is_ok());
        }
    }
}

#[test]
fn without_a_bound_the_engine_has_its_own() {
    for rest in ["", r#","max_tokens":null"#] {
        let request = format!(r#"{{"model":"m","messages":[{{"role":"user","content":"hi"}}]{rest}}}"#);
        let checked = check_message(request.as_bytes()).unwrap();
        let body: Value = serde_json::from_slice(checked.body.as_ref().unwrap()).unwrap();
        assert_eq!(body.get("max_tokens"), None);
    }
}
