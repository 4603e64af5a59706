//! Completes the items of a request, so that a client can read them again.

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use tokenbus_protocol::RawObject;

use super::ids::ItemHead;

/// The item with the members that the API's types require: an id, a type, a status, a list as content. `suffix` is that
/// of the response, `n` the item's number.
pub(super) fn completed(raw: Box<RawValue>, suffix: &str, n: usize) -> Box<RawValue> {
    try_complete(&raw, suffix, n).unwrap_or(raw)
}

fn try_complete(raw: &RawValue, suffix: &str, n: usize) -> Option<Box<RawValue>> {
    let mut item = RawObject::parse(raw.get().as_bytes()).ok()?;
    let kind = ItemHead::read(raw)?.kind.unwrap_or_else(|| "message".to_owned());
    let absent = |item: &RawObject, name: &str| item.get(name).is_none_or(|raw| raw.get() == "null");
    if absent(&item, "type") {
        item.set("type", &kind).ok()?;
    }
    if absent(&item, "id") {
        let prefix = id_prefix(&kind);
        item.set("id", &format!("{prefix}_{suffix}i{n:04x}")).ok()?;
    }
    if absent(&item, "status") {
        item.set("status", "completed").ok()?;
    }
    if let Some(text) = item.get("content").filter(|raw| raw.get().starts_with('"')) {
        let role: Option<String> = item.get("role").and_then(|raw| serde_json::from_str(raw.get()).ok());
        let part = match role.as_deref() {
            Some("assistant") => Part::OutputText { text, annotations: [] },
            _ => Part::InputText { text },
        };
        let content = to_raw_value(&[part]).ok()?;
        item.set("content", &*content).ok()?;
    }
    to_raw_value(&item).ok()
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Part<'a> {
    InputText { text: &'a RawValue },
    OutputText { text: &'a RawValue, annotations: [(); 0] },
}

fn id_prefix(kind: &str) -> &'static str {
    match kind {
        "message" => "msg",
        "reasoning" => "rs",
        "function_call" => "fc",
        "function_call_output" => "fco",
        "custom_tool_call" => "ctc",
        _ => "item",
    }
}
