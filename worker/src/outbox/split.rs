//! Splits the members of a delta that no frame holds: engines that give tool calls whole send some of more than a
//! mebibyte. Pure.

use serde_json::{Map, Value, json};
use tokenbus_protocol::{Delta, DeltaExtra, RawJson};

/// Bytes of text in one piece. JSON may write each as six.
const PIECE: usize = 64 << 10;

/// `delta` in several: long texts of its members go on in the next ones, as a stream of them would. `None` if it has no
/// members that can be split.
pub(super) fn pieces(delta: &Delta<'_>) -> Option<Vec<Delta<'static>>> {
    let members = delta.extra.as_deref()?.delta.as_ref()?;
    let mut first: Map<String, Value> = serde_json::from_str(members.get()).ok()?;
    let mut rest = Vec::new();
    for (name, value) in &mut first {
        match value {
            Value::String(text) => rest.extend(cut(text).into_iter().map(|piece| json!({ name: piece }))),
            Value::Array(calls) if name == "tool_calls" => {
                for call in calls {
                    let index = call.get("index").cloned();
                    let Some(Value::String(text)) = call.pointer_mut("/function/arguments") else {
                        continue;
                    };
                    let pieces = cut(text);
                    if pieces.is_empty() {
                        continue;
                    }
                    let index = index?;
                    let call = |piece| json!({"tool_calls": [{"index": index, "function": {"arguments": piece}}]});
                    rest.extend(pieces.into_iter().map(call));
                }
            }
            _ => {}
        }
    }
    if rest.is_empty() {
        return None;
    }
    let mut all = vec![delta.clone().into_owned()];
    let head = all.first_mut()?;
    head.extra.get_or_insert_default().delta = Some(RawJson::from_serialize(&first).ok()?);
    let finish_reason = head.finish_reason.take();
    for members in rest {
        let extra = DeltaExtra {
            delta: Some(RawJson::from_serialize(&members).ok()?),
            ..DeltaExtra::default()
        };
        all.push(Delta {
            choice: delta.choice,
            extra: Some(Box::new(extra)),
            ..Delta::default()
        });
    }
    all.last_mut()?.finish_reason = finish_reason;
    Some(all)
}

/// Shortens `text` to one piece, and returns the other ones.
fn cut(text: &mut String) -> Vec<String> {
    let mut pieces = Vec::new();
    let mut rest = text.as_str();
    while rest.len() > PIECE {
        let (piece, tail) = rest.split_at(rest.floor_char_boundary(PIECE));
        pieces.push(piece.to_owned());
        rest = tail;
    }
    if pieces.is_empty() {
        return pieces;
    }
    pieces.push(rest.to_owned());
    *text = pieces.remove(0);
    pieces
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_go_on_in_the_next_deltas_and_the_end_comes_last() {
        let (arguments, thought) = ("é".repeat(100_000), "r".repeat(PIECE + 1));
        let call = json!({"index": 3, "id": "c", "function": {"name": "f", "arguments": arguments}});
        let members = json!({"tool_calls": [call], "reasoning": thought, "other": [1]});
        let delta = Delta {
            tokens: 7,
            finish_reason: Some("tool_calls".to_owned()),
            extra: Some(Box::new(DeltaExtra {
                delta: Some(RawJson::from_serialize(&members).unwrap()),
                ..DeltaExtra::default()
            })),
            ..Delta::default()
        };
        let all = pieces(&delta).unwrap();
        let (mut joined, mut thoughts) = (String::new(), String::new());
        for piece in &all {
            let members = piece.extra.as_ref().unwrap().delta.as_ref().unwrap();
            assert!(members.get().len() < 3 * PIECE);
            let members: Value = members.parse().unwrap();
            if let Some(text) = members.pointer("/tool_calls/0/function/arguments") {
                assert_eq!(members.pointer("/tool_calls/0/index"), Some(&json!(3)));
                joined.push_str(text.as_str().unwrap());
            }
            thoughts.push_str(members.get("reasoning").and_then(Value::as_str).unwrap_or_default());
        }
        assert_eq!((joined, thoughts), (arguments, thought));
        assert_eq!(all.iter().map(|piece| piece.tokens).sum::<u32>(), 7);
        let ends: Vec<bool> = all.iter().map(|piece| piece.finish_reason.is_some()).collect();
        assert_eq!(ends.iter().position(|end| *end), Some(all.len() - 1));
        assert_eq!(pieces(&Delta::default()), None);
    }
}
