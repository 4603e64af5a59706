//! Whether the tool calls of a streamed answer are whole. The parsers that engines have for streamed calls are weaker than
//! those for answers in one piece: they lose or double arguments (vLLM #9693, #20028, #27641). A client that does not
//! stream gets the answer only once its calls are known to be JSON; else the engine is asked in one piece. Pure.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use tokenbus_protocol::Delta;

/// Bytes of an answer that are held for the check. A longer answer goes on unchecked.
const MAX_HELD: usize = 16 << 20;

/// An answer that is held until its calls are checked.
#[derive(Debug, Default)]
pub(crate) struct HeldAnswer {
    deltas: Vec<Delta<'static>>,
    calls: Vec<Call>,
    /// Choices that the token limit cut: their last call may be cut too, in whatever form it is asked for.
    limited: Vec<u32>,
    bytes: usize,
}

#[derive(Debug, Default)]
struct Call {
    choice: u32,
    index: Value,
    id: Value,
    arguments: String,
}

#[derive(Deserialize, Default)]
struct Members {
    #[serde(default)]
    tool_calls: Vec<Piece>,
}

#[derive(Deserialize)]
struct Piece {
    #[serde(default)]
    index: Value,
    #[serde(default)]
    id: Value,
    #[serde(default)]
    function: Function,
}

#[derive(Deserialize, Default)]
struct Function {
    #[serde(default)]
    name: Value,
    #[serde(default)]
    arguments: Value,
}

impl HeldAnswer {
    /// Holds a delta. Returns false once the answer is too long to be held.
    pub(crate) fn hold(&mut self, delta: Delta<'_>) -> bool {
        let extra = delta.extra.as_deref();
        self.bytes += delta.text.len() + extra.map_or(0, tokenbus_protocol::DeltaExtra::weight);
        if let Some(members) = extra.and_then(|extra| extra.delta.as_ref())
            && members.get().contains("\"tool_calls\"")
        {
            let members: Members = serde_json::from_str(members.get()).unwrap_or_default();
            for piece in members.tool_calls {
                self.add(delta.choice, piece);
            }
        }
        if delta.finish_reason.as_deref() == Some("length") {
            self.limited.push(delta.choice);
        }
        self.deltas.push(delta.into_owned());
        self.bytes <= MAX_HELD
    }

    /// Whether there is any output.
    pub(crate) fn has_begun(&self) -> bool {
        !self.deltas.is_empty()
    }

    /// Whether the arguments of every call are JSON, but for calls that the token limit may have cut.
    pub(crate) fn is_whole(&self) -> bool {
        self.calls
            .iter()
            .filter(|call| !self.limited.contains(&call.choice))
            .all(|call| call.arguments.trim().is_empty() || is_json(&call.arguments))
    }

    /// The deltas, to be sent on.
    pub(crate) fn release(&mut self) -> Vec<Delta<'static>> {
        std::mem::take(&mut self.deltas)
    }

    /// Adds a piece to its call: the newest one with its number. Another id begins another call if the piece names a
    /// function or the call is whole.
    fn add(&mut self, choice: u32, piece: Piece) {
        let same = |call: &&mut Call| call.choice == choice && (piece.index.is_null() || call.index == piece.index);
        let known = self.calls.iter_mut().rfind(same).filter(|call| {
            let other = !is_empty(&piece.id) && !is_empty(&call.id) && piece.id != call.id;
            !(other && (!is_empty(&piece.function.name) || is_json(&call.arguments)))
        });
        let text = match piece.function.arguments {
            Value::Null => String::new(),
            Value::String(text) => text,
            object => object.to_string(),
        };
        match known {
            Some(call) => call.arguments.push_str(&text),
            None => self.calls.push(Call {
                choice,
                index: piece.index,
                id: piece.id,
                arguments: text,
            }),
        }
    }
}

fn is_empty(value: &Value) -> bool {
    value.is_null() || value.as_str() == Some("")
}

fn is_json(text: &str) -> bool {
    serde_json::from_str::<IgnoredAny>(text).is_ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;
    use tokenbus_protocol::{DeltaExtra, RawJson};

    use super::*;

    fn is_whole(pieces: &[Value]) -> bool {
        let mut held = HeldAnswer::default();
        for piece in pieces {
            let members = RawJson::from_serialize(&json!({"tool_calls": [piece]})).unwrap();
            let extra = DeltaExtra {
                delta: Some(members),
                ..DeltaExtra::default()
            };
            assert!(held.hold(Delta {
                extra: Some(Box::new(extra)),
                ..Delta::default()
            }));
        }
        assert_eq!(held.release().len(), pieces.len());
        held.is_whole()
    }

    fn piece(index: Value, id: &str, name: &str, arguments: &str) -> Value {
        json!({"index": index, "id": id, "function": {"name": name, "arguments": arguments}})
    }

    #[test]
    fn doubled_and_cut_arguments_are_noticed() {
        let one = |arguments: &[&str]| {
            let pieces = arguments.iter().enumerate();
            let pieces: Vec<Value> = pieces
                .map(|(n, text)| piece(json!(0), if n == 0 { "c" } else { "" }, "", text))
                .collect();
            is_whole(&pieces)
        };
        assert!(one(&[r#"{"a":"#, "1}"]) && one(&[]) && one(&[""]) && one(&["{}"]));
        assert!(!one(&[r#"{"a":1}"#, r#"{"a":1}"#]) && !one(&[r#"{"a":"#]) && !one(&[r#""a":1}"#]));
    }

    #[test]
    fn a_call_that_the_token_limit_cuts_is_not_asked_for_again() {
        for (reason, whole) in [("length", true), ("tool_calls", false)] {
            let mut held = HeldAnswer::default();
            let members = json!({"tool_calls": [piece(json!(0), "c", "f", r#"{"a":"#)]});
            let extra = DeltaExtra {
                delta: Some(RawJson::from_serialize(&members).unwrap()),
                ..DeltaExtra::default()
            };
            held.hold(Delta {
                finish_reason: Some(reason.to_owned()),
                extra: Some(Box::new(extra)),
                ..Delta::default()
            });
            assert_eq!(held.is_whole(), whole, "{reason}");
        }
    }

    #[test]
    fn calls_of_one_number_or_of_none_are_told_apart() {
        for index in [json!(0), Value::Null] {
            let two = [
                piece(index.clone(), "a", "f", "{}"),
                piece(index.clone(), "b", "f", "{}"),
            ];
            assert!(is_whole(&two), "{index}");
        }
        let objects = json!({"index": 0, "id": "a", "function": {"name": "f", "arguments": {"a": 1}}});
        assert!(is_whole(&[objects]));
        let ids = [piece(json!(0), "a", "f", r#"{"a":"#), piece(json!(0), "b", "", "1}")];
        assert!(is_whole(&ids), "an id made up for each piece");
    }
}
