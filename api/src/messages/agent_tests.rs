//! What agents send beyond the documented conversation: later system messages, deferred tools, hosted tools.

use serde_json::{Value, json};

use super::*;

/// The chat request for `members`, and the tools that were left out.
fn chat(members: Value) -> (Value, Vec<String>) {
    let mut request = json!({"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]});
    request
        .as_object_mut()
        .unwrap()
        .extend(members.as_object().unwrap().clone());
    let checked = check_message(request.to_string().as_bytes()).unwrap();
    (serde_json::from_slice(&checked.body.unwrap()).unwrap(), checked.ignored)
}

fn refused(members: Value) -> (String, String) {
    let mut request = json!({"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]});
    request
        .as_object_mut()
        .unwrap()
        .extend(members.as_object().unwrap().clone());
    match check_message(request.to_string().as_bytes()) {
        Err(RequestError::Field { param, message, .. }) => (param.unwrap(), message),
        other => panic!("{other:?}"),
    }
}

fn own(name: &str) -> Value {
    json!({"name": name, "input_schema": {"type": "object"}})
}

fn deferred(name: &str) -> Value {
    json!({"name": name, "input_schema": {"type": "object"}, "defer_loading": true})
}

fn offered(members: Value) -> Vec<String> {
    let (chat, _) = chat(members);
    let tools = chat["tools"].as_array().cloned().unwrap_or_default();
    tools
        .iter()
        .map(|tool| tool["function"]["name"].as_str().unwrap().to_owned())
        .collect()
}

/// A conversation in which a tool was called and gave `content`.
fn with_result(content: Value) -> Value {
    json!([{"role": "user", "content": "hi"},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "find", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": content}]}])
}

#[test]
fn a_billing_line_never_reaches_an_engine() {
    let line = "x-anthropic-billing-header: cc_version=9.9.9.abc; cch=a1b2c;";
    let kind = "You are kind.";
    for system in [
        json!([{"type": "text", "text": line}, {"type": "text", "text": kind}]),
        json!([{"type": "text", "text": format!("{line}\n")}, {"type": "text", "text": kind}]),
        json!([{"type": "text", "text": format!("{line}\n\n{kind}"), "cache_control": {"type": "ephemeral"}}]),
        json!(format!("{line}\n{kind}")),
        json!(format!("{line}\r\n{kind}")),
    ] {
        let (chat, _) = chat(json!({ "system": system }));
        assert_eq!(
            chat["messages"][0],
            json!({"role": "system", "content": kind}),
            "{system}"
        );
    }
    let told = format!("About it:\n{line}");
    assert_eq!(chat(json!({ "system": told })).0["messages"][0]["content"], told);
    assert_eq!(chat(json!({ "system": line })).0["messages"][0]["role"], "user");
}

#[test]
fn hosted_tools_are_left_out_and_named() {
    let hosted = json!([own("a"), {"type": "web_search_20250305", "name": "web_search", "max_uses": 8},
        {"type": "mcp_toolset", "mcp_server_name": "x"}]);
    let (chat, ignored) = chat(json!({ "tools": hosted }));
    assert_eq!(chat["tools"].as_array().unwrap().len(), 1);
    assert_eq!(ignored, ["web_search", "mcp_toolset"]);
    let search = json!([{"type": "web_search_20250305", "name": "web_search"}]);
    assert!(offered(json!({"tools": search, "tool_choice": {"type": "auto"}})).is_empty());
    for (choice, param) in [
        (json!({"type": "tool", "name": "web_search"}), "tool_choice.name"),
        (json!({"type": "any"}), "tool_choice.type"),
    ] {
        let (told, message) = refused(json!({"tools": search, "tool_choice": choice}));
        assert_eq!(told, param);
        assert!(message.contains("'web_search'"), "{message}");
    }
}

#[test]
fn a_deferred_tool_is_offered_once_it_is_referred_to() {
    let tools = json!([own("find"), deferred("b"), deferred("c")]);
    assert_eq!(offered(json!({ "tools": tools })), ["find"]);
    let found = with_result(json!([{"type": "tool_reference", "tool_name": "b"}]));
    assert_eq!(offered(json!({"tools": tools, "messages": found})), ["find", "b"]);
    let (told, _) = chat(json!({"tools": tools, "messages": found}));
    assert_eq!(told["messages"][2]["content"], "The tool b is available now.");
    let forced = json!({"tools": tools, "tool_choice": {"type": "tool", "name": "c"}});
    assert_eq!(offered(forced), ["find", "c"]);
}

#[test]
fn deferred_tools_that_nobody_could_find_are_offered() {
    assert_eq!(offered(json!({"tools": [deferred("a"), deferred("b")]})), ["a", "b"]);
    let search = json!({"type": "tool_search_tool_regex_20251119", "name": "tool_search_tool_regex"});
    assert_eq!(offered(json!({"tools": [search, own("a"), deferred("b")]})), ["a", "b"]);
}

#[test]
fn the_system_adds_and_removes_tools() {
    let tools = json!([own("a"), deferred("b")]);
    let reference = |kind: &str, name: &str| json!({"type": kind, "tool": {"type": "tool_reference", "name": name}});
    let changes = json!([{"role": "user", "content": "hi"}, {"role": "system", "content": [
        {"type": "text", "text": "note"}, reference("tool_removal", "a"), reference("tool_addition", "b"),
        {"type": "tool_addition", "tool": {"type": "tool_definition", "definition": own("new")}},
        {"type": "tool_addition", "tool": {"type": "mcp_toolset_reference", "server_name": "x"}}]}]);
    let members = json!({"tools": tools, "messages": changes});
    assert_eq!(offered(members.clone()), ["b", "new"]);
    assert_eq!(
        chat(members).0["messages"],
        json!([{"role": "user", "content": "hi\n\n<system>\nnote\n</system>"}])
    );
    let alone =
        json!([{"role": "user", "content": "hi"}, {"role": "system", "content": [reference("tool_addition", "b")]}]);
    let (told, _) = chat(json!({"tools": tools, "messages": alone}));
    assert_eq!(told["messages"], json!([{"role": "user", "content": "hi"}]));
}

#[test]
fn unknown_blocks_keep_their_text() {
    for (block, text) in [
        (json!({"type": "brand_new", "text": "some text"}), "some text"),
        (json!({"type": "brand_new", "content": "some text"}), "some text"),
        (json!({"type": "brand_new", "x": 1}), r#"{"x":1}"#),
    ] {
        let (told, _) = chat(json!({"messages": with_result(json!([block]))}));
        assert_eq!(told["messages"][2]["content"], text);
    }
    let user = json!([{"role": "user", "content": [{"type": "brand_new", "text": "some text"}]}]);
    assert_eq!(
        chat(json!({ "messages": user })).0["messages"][0]["content"],
        "some text"
    );
    let (param, _) =
        refused(json!({"messages": [{"role": "user", "content": [{"type": "container_upload", "file_id": "f"}]}]}));
    assert_eq!(param, "messages[0].content[0].type");
}

#[test]
fn what_anthropics_servers_did_stays_in_the_conversation() {
    let history = json!([{"role": "user", "content": "hi"}, {"role": "assistant", "content": [
        {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {"query": "q"}},
        {"type": "web_search_tool_result", "tool_use_id": "s1", "content": [
            {"type": "web_search_result", "title": "T", "url": "u", "encrypted_content": "xxx"}]},
        {"type": "text", "text": "Found."}, {"type": "brand_new", "x": 1}]}]);
    let (told, _) = chat(json!({ "messages": history }));
    let messages = told["messages"].as_array().unwrap();
    let roles: Vec<&str> = messages
        .iter()
        .map(|message| message["role"].as_str().unwrap())
        .collect();
    assert_eq!(roles, ["user", "assistant", "tool", "assistant"]);
    let result: Value = serde_json::from_str(messages[2]["content"].as_str().unwrap()).unwrap();
    assert_eq!(result, json!({"type": "web_search_result", "title": "T", "url": "u"}));
    assert_eq!(messages[3]["content"], "Found.");
    let found = json!([{"role": "user", "content": "hi"}, {"role": "assistant", "content": [
        {"type": "server_tool_use", "id": "s1", "name": "tool_search_tool_regex", "input": {}},
        {"type": "tool_search_tool_result", "tool_use_id": "s1", "content": {"type": "tool_search_tool_search_result",
            "tool_references": [{"type": "tool_reference", "tool_name": "b"}]}}]}, {"role": "user", "content": "go"}]);
    let tools = json!([own("a"), deferred("b"), deferred("c")]);
    assert_eq!(offered(json!({"tools": tools, "messages": found})), ["a", "b"]);
}
