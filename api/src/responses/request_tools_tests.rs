//! Tools, the choice among them, and the calls of a history.

use super::*;

#[test]
fn tools_and_their_choice() {
    let f = |name: &str| json!({"type": "function", "name": name, "parameters": {"type": "object"}, "strict": true});
    let custom = json!({"type": "custom", "name": "sh", "description": "d",
        "format": {"type": "grammar", "syntax": "lark", "definition": "x"}});
    let function = |name: &str| json!({"type": "function", "function": {"name": name, "parameters": {"type": "object"}, "strict": true}});
    let ask = |choice: Value| chat(&with(json!({"tools": [f("a"), f("b"), custom], "tool_choice": choice}))).1;
    // Engines know functions only.
    let text = json!({"type": "object", "properties": {"input": {"type": "string",
        "description": "The whole input, as plain text."}}, "required": ["input"], "additionalProperties": false});
    let all = json!([function("a"), function("b"), {"type": "function", "function": {"name": "sh",
        "description": "d\n\n'input' follows this lark grammar:\nx", "parameters": text}}]);
    assert_eq!(ask(json!("required")), json!({"tools": all, "tool_choice": "required"}));
    assert_eq!(ask(Value::Null), json!({"tools": all}));
    assert_eq!(
        ask(json!({"type": "function", "name": "b"})),
        json!({"tools": all, "tool_choice": {"type": "function", "function": {"name": "b"}}})
    );
    assert_eq!(
        ask(json!({"type": "custom", "name": "sh"}))["tool_choice"],
        json!({"type": "function", "function": {"name": "sh"}})
    );
    let allowed = json!({"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "b"}]});
    assert_eq!(
        ask(allowed),
        json!({"tools": [function("b")], "tool_choice": "required"})
    );
    // Without tools there is nothing to choose.
    assert_eq!(
        chat(&with(
            json!({"tools": [], "tool_choice": "auto", "parallel_tool_calls": false})
        ))
        .1,
        json!({})
    );
    let request = with(json!({"tools": [f("a")], "parallel_tool_calls": false}));
    assert_eq!(chat(&request).1["parallel_tool_calls"], false);
    assert!(
        translate(&request, &KnownResponses::new())
            .unwrap()
            .checked
            .not_resumable
            .is_some()
    );
}

const HOSTED: [&str; 6] = [
    "web_search",
    "file_search",
    "code_interpreter",
    "mcp",
    "image_generation",
    "computer_use_preview",
];

/// The names of the offered tools and those of the ignored ones.
fn offered(request: &Value) -> (Vec<String>, Vec<String>) {
    let checked = translate(request, &KnownResponses::new()).unwrap().checked;
    let body: Value = serde_json::from_slice(&checked.body.unwrap()).unwrap();
    let tools = body["tools"].as_array().cloned().unwrap_or_default();
    let names = tools
        .iter()
        .map(|tool| tool["function"]["name"].as_str().unwrap().to_owned());
    (names.collect(), checked.ignored)
}

#[test]
fn tools_that_nobody_here_can_run_are_left_out() {
    let f = json!({"type": "function", "name": "f"});
    let mut tools: Vec<Value> = HOSTED.iter().map(|kind| json!({"type": kind})).collect();
    tools.push(json!({"type": "web_search"}));
    tools.push(f.clone());
    let (names, ignored) = offered(&with(json!({"tools": tools, "tool_choice": "auto"})));
    assert_eq!(
        (names, ignored),
        (vec!["f".to_owned()], HOSTED.map(str::to_owned).to_vec())
    );
    for kind in HOSTED {
        // What is demanded is refused, and so is a request that has nothing else.
        let (param, code, message) = refused(&with(json!({"tools": [{"type": kind}]})));
        assert_eq!((param.as_str(), code), ("tools[0].type", "unsupported_value"));
        assert!(message.contains(kind), "{message}");
        let (param, ..) = refused(&with(
            json!({"tools": [f, {"type": kind}], "tool_choice": {"type": kind}}),
        ));
        assert_eq!(param, "tool_choice.type");
        let only = json!({"type": "allowed_tools", "mode": "required", "tools": [{"type": kind}]});
        let (param, ..) = refused(&with(json!({"tools": [f, {"type": kind}], "tool_choice": only})));
        assert_eq!(param, "tool_choice.tools[0].type");
    }
}

#[test]
fn tools_of_a_namespace_are_functions_with_names_of_their_own() {
    let f = |name: &str| json!({"type": "function", "name": name, "parameters": {"type": "object"}});
    let namespace =
        |name: &str, tools: Value| json!({"type": "namespace", "name": name, "description": "About.", "tools": tools});
    let tools = json!([
        f("a"),
        f("mcp__y__f"),
        namespace("mcp__x", json!([f("f"), f("g"), {"type": "custom", "name": "h"}])),
        namespace("mcp__y", json!([f("f")])),
        namespace(&"n".repeat(70), json!([f("f")]))
    ]);
    let request = |choice: Value| with(json!({"tools": tools, "tool_choice": choice}));
    let (names, ignored) = offered(&request(json!("auto")));
    assert_eq!(
        names[..6],
        ["a", "mcp__y__f", "mcp__x__f", "mcp__x__g", "mcp__x__h", "mcp__y__f_2"]
    );
    assert!(names[6].len() <= 64, "{names:?}");
    assert!(ignored.is_empty());
    let body = chat(&request(json!("auto"))).1;
    assert_eq!(
        body["tools"][2]["function"]["description"],
        "This tool is one of 'mcp__x': About."
    );
    let choice = |choice: Value| chat(&request(choice)).1["tool_choice"]["function"]["name"].clone();
    assert_eq!(
        choice(json!({"type": "function", "namespace": "mcp__y", "name": "f"})),
        "mcp__y__f_2"
    );
    assert_eq!(choice(json!({"type": "custom", "name": "h"})), "mcp__x__h");
    let allowed = json!({"type": "allowed_tools", "mode": "auto", "tools": [{"type": "namespace", "name": "mcp__x"}]});
    assert_eq!(offered(&request(allowed)).0, ["mcp__x__f", "mcp__x__g", "mcp__x__h"]);
    // Calls in a history have the same names, also those of tools that are offered no more.
    let call = |namespace: &str| json!({"type": "function_call", "call_id": "c", "namespace": namespace, "name": "f", "arguments": "{}"});
    let mut request = request(Value::Null);
    request["input"] = json!([call("mcp__y"), call("gone")]);
    let calls = chat(&request).0[0]["tool_calls"].clone();
    assert_eq!(calls[0]["function"]["name"], "mcp__y__f_2");
    assert_eq!(calls[1]["function"]["name"], "gone__f");
}

#[test]
fn histories_with_tools_of_openais_servers_are_told_as_far_as_a_chat_can() {
    let input = json!([
        {"role": "user", "content": "u"},
        {"type": "web_search_call", "id": "ws", "status": "completed"},
        {"type": "local_shell_call", "call_id": "c", "action": {"type": "exec", "command": ["ls"]}},
        {"type": "local_shell_call_output", "call_id": "c", "output": "a b"},
        {"type": "mcp_call", "id": "m", "name": "ask", "arguments": "{}", "output": "yes", "server_label": "s"},
        {"type": "tool_search_call", "call_id": null, "execution": "server", "arguments": {}},
    ]);
    let messages = messages(input);
    let roles: Vec<&str> = messages
        .as_array()
        .unwrap()
        .iter()
        .map(|m| m["role"].as_str().unwrap())
        .collect();
    assert_eq!(roles, ["user", "assistant", "tool", "assistant", "tool"]);
    let function = &messages[1]["tool_calls"][0]["function"];
    assert_eq!(function["name"], "local_shell");
    let arguments: Value = serde_json::from_str(function["arguments"].as_str().unwrap()).unwrap();
    assert_eq!(arguments, json!({"type": "exec", "command": ["ls"]}));
    assert_eq!(
        (&messages[2]["content"], &messages[4]["content"]),
        (&json!("a b"), &json!("yes"))
    );
}
