//! Members of a request that tokenbus added: the gateway names those that its translations made, and
//! kinds of servers that are not known to take one do not get it. Pure.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::value::RawValue;
use tokenbus_protocol::{ADDED_MEMBERS, RawJsonError, RawObject};

use super::members::parsed;
use crate::engine::openai::target::ServerKind;

/// Names under which engines tell a message's reasoning.
const REASONING: [&str; 2] = ["reasoning_content", "reasoning"];
/// How a refusal of them in the conversation is remembered.
pub(crate) const HISTORY: &str = "messages.reasoning";

/// Takes the gateway's list out of `object`, and those members that the server does not get. Returns the
/// paths of those that stay.
pub(crate) fn settle(
    object: &mut RawObject,
    kind: ServerKind,
    without: &BTreeSet<String>,
) -> Result<Vec<String>, RawJsonError> {
    let Some(listed) = object.remove(ADDED_MEMBERS) else {
        return Ok(Vec::new());
    };
    let listed: Vec<String> = serde_json::from_str(listed.get()).unwrap_or_default();
    let mut stay = Vec::new();
    for path in listed {
        if takes(kind, &path) && !without.contains(&path) {
            stay.push(path);
        } else {
            remove(object, &path)?;
        }
    }
    Ok(stay)
}

/// Whether a server of this kind is known to take the member, or may be tried.
fn takes(kind: ServerKind, path: &str) -> bool {
    match path.split('.').next().unwrap_or(path) {
        "chat_template_kwargs" => matches!(kind, ServerKind::Vllm | ServerKind::Sglang | ServerKind::LlamaServer),
        "cache_salt" => matches!(kind, ServerKind::Vllm | ServerKind::Sglang),
        "thinking_budget_tokens" => kind == ServerKind::LlamaServer,
        _ => true,
    }
}

fn remove(object: &mut RawObject, path: &str) -> Result<(), RawJsonError> {
    let Some((outer, inner)) = path.split_once('.') else {
        object.remove(path);
        return Ok(());
    };
    let Some(Ok(mut members)) = object.get(outer).map(|raw| RawObject::parse(raw.get().as_bytes())) else {
        return Ok(());
    };
    members.remove(inner);
    if members.is_empty() {
        object.remove(outer);
        return Ok(());
    }
    object.set(outer, &members)
}

/// Gives earlier reasoning in the conversation the name that this kind of server reads; one that is not
/// known gets what the client wrote. Returns whether there is any that can be left out.
pub(crate) fn history(
    object: &mut RawObject,
    kind: ServerKind,
    without: &BTreeSet<String>,
) -> Result<bool, RawJsonError> {
    let Some(messages) = object.get("messages") else {
        return Ok(false);
    };
    if !messages.get().contains("\"reasoning") {
        return Ok(false);
    }
    let Ok(messages) = serde_json::from_str::<Vec<Box<RawValue>>>(messages.get()) else {
        return Ok(false);
    };
    let leave_out = without.contains(HISTORY);
    let (mut any, mut written) = (false, Vec::with_capacity(messages.len()));
    for raw in messages {
        let Ok(mut message) = RawObject::parse(raw.get().as_bytes()) else {
            written.push(raw);
            continue;
        };
        let Some(text) = reasoning(&message) else {
            written.push(raw);
            continue;
        };
        any = true;
        for name in REASONING {
            if leave_out {
                message.remove(name);
            } else if kind != ServerKind::Unknown && message.get(name).is_none_or(|raw| raw.get() == "null") {
                message.set(name, &text)?;
            }
        }
        written.push(serde_json::value::to_raw_value(&message)?);
    }
    if any && (leave_out || kind != ServerKind::Unknown) {
        object.set("messages", &written)?;
    }
    Ok(any && !leave_out)
}

fn reasoning(message: &RawObject) -> Option<String> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Told {
        Text(String),
    }
    let told = |name: &&str| parsed::<Told>(message, name).map(|Told::Text(text)| text);
    REASONING.iter().find_map(told).filter(|text| !text.is_empty())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn settled(kind: ServerKind, json: &str, without: &[&str]) -> (String, Vec<String>) {
        let mut object = RawObject::parse(json.as_bytes()).unwrap();
        let without = without.iter().map(|path| (*path).to_owned()).collect();
        let stay = settle(&mut object, kind, &without).unwrap();
        (object.to_json().unwrap().get().to_owned(), stay)
    }

    #[test]
    fn added_members_go_to_kinds_that_take_them_and_not_where_they_were_refused() {
        let body = concat!(
            r#"{"chat_template_kwargs":{"enable_thinking":true},"thinking_budget_tokens":7,"reasoning_effort":"high","#,
            r#""tokenbus_added":["chat_template_kwargs.enable_thinking","thinking_budget_tokens","reasoning_effort"]}"#
        );
        let (sent, stay) = settled(ServerKind::LlamaServer, body, &[]);
        assert_eq!(
            sent,
            r#"{"chat_template_kwargs":{"enable_thinking":true},"thinking_budget_tokens":7,"reasoning_effort":"high"}"#
        );
        assert_eq!(stay.len(), 3);
        let (sent, _) = settled(ServerKind::Vllm, body, &["reasoning_effort"]);
        assert_eq!(sent, r#"{"chat_template_kwargs":{"enable_thinking":true}}"#);
        let (sent, stay) = settled(ServerKind::Unknown, body, &[]);
        assert_eq!(
            (sent.as_str(), stay),
            (r#"{"reasoning_effort":"high"}"#, vec!["reasoning_effort".to_owned()])
        );
    }

    #[test]
    fn what_the_client_wrote_beside_it_stays() {
        let (sent, _) = settled(
            ServerKind::Unknown,
            r#"{"chat_template_kwargs":{"a":1,"enable_thinking":true},"tokenbus_added":["chat_template_kwargs.enable_thinking"]}"#,
            &[],
        );
        assert_eq!(sent, r#"{"chat_template_kwargs":{"a":1}}"#);
        let own = r#"{"chat_template_kwargs":{"enable_thinking":true},"thinking_budget_tokens":7}"#;
        assert_eq!(settled(ServerKind::Unknown, own, &[]), (own.to_owned(), Vec::new()));
    }

    #[test]
    fn earlier_reasoning_has_both_names_for_servers_that_are_known() {
        let told = |kind, json: &str, without: &[&str]| {
            let mut object = RawObject::parse(json.as_bytes()).unwrap();
            let without = without.iter().map(|path| (*path).to_owned()).collect();
            let any = history(&mut object, kind, &without).unwrap();
            (object.to_json().unwrap().get().to_owned(), any)
        };
        for (name, other) in [("reasoning", "reasoning_content"), ("reasoning_content", "reasoning")] {
            let body =
                format!(r#"{{"messages":[{{"role":"assistant","content":"a","{name}":"b"}},{{"role":"user"}}]}}"#);
            let both = format!(
                r#"{{"messages":[{{"role":"assistant","content":"a","{name}":"b","{other}":"b"}},{{"role":"user"}}]}}"#
            );
            assert_eq!(told(ServerKind::Vllm, &body, &[]), (both, true));
            assert_eq!(told(ServerKind::Unknown, &body, &[]), (body.clone(), true));
            let none = r#"{"messages":[{"role":"assistant","content":"a"},{"role":"user"}]}"#;
            assert_eq!(told(ServerKind::Unknown, &body, &[HISTORY]), (none.to_owned(), false));
        }
        let plain = r#"{"messages":[ {"role":"user","content":"reasoning"}]}"#;
        assert_eq!(told(ServerKind::Vllm, plain, &[]), (plain.to_owned(), false));
    }
}
