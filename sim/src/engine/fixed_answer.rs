//! Answers of the simulated engine that are not counted tokens: tool calls, and JSON that fits a schema. Pure.
//!
//! The engine calls an offered tool while the last message is the user's. It answers with text once it has a tool's
//! result, so that an agent's loop ends.

use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokenbus_protocol::RawJson;

use super::prompt_words::PromptWords;
use super::schema;
use super::script::ScriptedCall;

/// The output of one step.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Piece {
    /// Text.
    Text(String),
    /// Members of the choice's `delta`.
    Members(RawJson),
    /// The place where the gateway puts the model's name.
    Mark,
}

/// A whole answer, the same for each choice.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct FixedAnswer {
    pub(super) pieces: Vec<Piece>,
    /// `None` for an answer of one piece, such as an embedding.
    pub(super) finish_reason: Option<&'static str>,
}

/// A tool as a request offers it.
#[derive(Debug, Deserialize)]
pub(super) struct Tool {
    function: Option<Function>,
}

#[derive(Debug, Deserialize)]
struct Function {
    name: String,
    #[serde(default)]
    parameters: Value,
}

/// Characters of a document in each step.
const PIECE: usize = 8;

/// The tool call that answers the request; `None` where text answers it.
pub(super) fn call(
    tools: &[Tool],
    choice: Option<&Value>,
    last_role: Option<&str>,
    prompted: &PromptWords,
) -> Option<ScriptedCall> {
    let mut functions = tools.iter().filter_map(|tool| tool.function.as_ref());
    let named = choice.and_then(|choice| choice.pointer("/function/name")?.as_str());
    let function = match choice.and_then(Value::as_str) {
        Some("none") => None,
        Some("required") => functions.next(),
        _ if named.is_some() => functions.find(|function| Some(function.name.as_str()) == named),
        _ if last_role == Some("user") => functions.next(),
        _ => None,
    }?;
    Some(ScriptedCall {
        name: function.name.clone(),
        arguments: schema::instance(&function.parameters, &mut prompted.clone()),
    })
}

/// Tool calls as an answer: the head of each call, then its arguments in pieces, all numbered.
pub(super) fn calls(calls: &[ScriptedCall]) -> FixedAnswer {
    let mut pieces = Vec::new();
    for (index, call) in calls.iter().enumerate() {
        let function = json!({"name": call.name, "arguments": ""});
        pieces.extend(tool_call(
            &json!({"index": index, "id": format!("call_{index}"), "type": "function", "function": function}),
        ));
        let arguments = match &call.arguments {
            Value::Null => "{}".to_owned(),
            arguments => arguments.to_string(),
        };
        for piece in cut(&arguments) {
            pieces.extend(tool_call(&json!({"index": index, "function": {"arguments": piece}})));
        }
    }
    FixedAnswer {
        pieces,
        finish_reason: Some("tool_calls"),
    }
}

fn tool_call(call: &Value) -> Option<Piece> {
    RawJson::from_serialize(&json!({ "tool_calls": [call] }))
        .ok()
        .map(Piece::Members)
}

/// A JSON document that fits the request's `response_format`. Without a schema the texts that the prompt quotes name
/// its members.
pub(super) fn formatted(format: Option<&Value>, prompted: &PromptWords) -> Option<FixedAnswer> {
    let format = format?;
    let document = match format.get("type")?.as_str()? {
        "json_object" => {
            let members: Map<String, Value> = prompted.texts().map(|name| (name.to_owned(), json!("t0"))).collect();
            if members.is_empty() {
                json!({"t": 0})
            } else {
                members.into()
            }
        }
        "json_schema" => schema::instance(format.pointer("/json_schema/schema")?, &mut prompted.clone()),
        _ => return None,
    };
    Some(FixedAnswer {
        pieces: cut(&document.to_string()).into_iter().map(Piece::Text).collect(),
        finish_reason: Some("stop"),
    })
}

fn cut(text: &str) -> Vec<String> {
    let characters: Vec<char> = text.chars().collect();
    characters.chunks(PIECE).map(|piece| piece.iter().collect()).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;

    fn none() -> PromptWords {
        PromptWords::default()
    }

    fn tools() -> Vec<Tool> {
        let parameters = json!({"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]});
        let tool = |name: &str| json!({"type": "function", "function": {"name": name, "parameters": parameters}});
        serde_json::from_value(json!([tool("f"), tool("g"), {"type": "web_search"}])).unwrap()
    }

    #[test]
    fn a_tool_is_called_when_it_is_demanded_or_the_user_spoke_last() {
        let name =
            |choice: Option<Value>, role| call(&tools(), choice.as_ref(), Some(role), &none()).map(|call| call.name);
        assert_eq!(name(None, "user").as_deref(), Some("f"));
        assert_eq!(name(Some(json!("auto")), "tool"), None, "it has a result and answers");
        assert_eq!(name(Some(json!("none")), "user"), None);
        assert_eq!(name(Some(json!("required")), "tool").as_deref(), Some("f"));
        let named = json!({"type": "function", "function": {"name": "g"}});
        assert_eq!(name(Some(named), "tool").as_deref(), Some("g"));
        assert!(call(&[], None, Some("user"), &none()).is_none());
        let arguments = |prompt| {
            call(&tools(), None, Some("user"), &PromptWords::read(prompt))
                .unwrap()
                .arguments
        };
        assert_eq!((arguments("hi"), arguments("f(3)")), (json!({"a": 0}), json!({"a": 3})));
    }

    #[test]
    fn calls_come_in_pieces_that_join_to_whole_ones() {
        let said = calls(&[
            ScriptedCall {
                name: "f".to_owned(),
                arguments: json!({"city": "Paris, France"}),
            },
            ScriptedCall {
                name: "g".to_owned(),
                arguments: Value::Null,
            },
        ]);
        let mut arguments = [String::new(), String::new()];
        let mut names = Vec::new();
        for piece in &said.pieces {
            let Piece::Members(members) = piece else {
                panic!("{piece:?}")
            };
            let value: Value = members.parse().unwrap();
            let call = value.pointer("/tool_calls/0").unwrap();
            let index = usize::try_from(call.get("index").unwrap().as_u64().unwrap()).unwrap();
            let function = call.get("function").unwrap();
            names.extend(function.get("name").and_then(Value::as_str).map(str::to_owned));
            arguments
                .get_mut(index)
                .unwrap()
                .push_str(function.get("arguments").unwrap().as_str().unwrap());
        }
        assert_eq!(names, ["f", "g"]);
        assert_eq!(arguments, [r#"{"city":"Paris, France"}"#, "{}"]);
        assert!(said.pieces.len() > 5, "streamed");
        assert_eq!(said.finish_reason, Some("tool_calls"));
    }

    #[test]
    fn a_response_format_gets_a_document() {
        let format = json!({"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "array", "items": {"type": "boolean"}}}});
        let text = |said: FixedAnswer| -> String {
            let texts = said.pieces.into_iter().map(|piece| match piece {
                Piece::Text(text) => text,
                other => panic!("{other:?}"),
            });
            texts.collect()
        };
        assert_eq!(text(formatted(Some(&format), &none()).unwrap()), "[true]");
        assert_eq!(
            text(formatted(Some(&json!({"type": "json_object"})), &none()).unwrap()),
            r#"{"t":0}"#
        );
        let named = formatted(
            Some(&json!({"type": "json_object"})),
            &PromptWords::read("with 'a' and 'b'"),
        );
        assert_eq!(text(named.unwrap()), r#"{"a":"t0","b":"t0"}"#);
        assert_eq!(formatted(Some(&json!({"type": "text"})), &none()), None);
        assert_eq!(formatted(None, &none()), None);
    }
}
