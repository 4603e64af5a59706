//! A response that is kept, so that it can be asked for and its conversation be gone on with.

use std::collections::HashMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokenbus_protocol::RawObject;

use super::ID_PREFIX;
use crate::Identity;

/// The type of an item that stands for another.
pub(super) const REFERENCE: &str = "item_reference";

/// Responses that were looked up, by their ids.
pub type Known = HashMap<String, Kept>;

/// A response and the items that it answered, those of the conversation before it included: so it
/// can be gone on from when the responses before it are no longer there.
#[derive(Debug, Serialize, Deserialize)]
pub struct Kept {
    response: Box<RawValue>,
    items: Vec<Box<RawValue>>,
}

/// Why bytes are no kept response.
#[derive(Debug, thiserror::Error)]
#[error("no kept response: {0}")]
pub struct KeptError(#[from] serde_json::Error);

/// Which of the items are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The oldest first.
    pub ascending: bool,
    /// At most so many.
    pub limit: usize,
    /// Those behind the item with this id.
    pub after: Option<String>,
}

impl Kept {
    /// A finished response, JSON, that answered `items` as `identity`.
    ///
    /// # Errors
    /// [`KeptError`] when `response` is no JSON.
    pub fn new(response: &[u8], items: Vec<Box<RawValue>>, identity: &Identity) -> Result<Self, KeptError> {
        let suffix = identity.id.strip_prefix(ID_PREFIX).unwrap_or_default();
        let items = items.into_iter().enumerate();
        Ok(Self {
            response: serde_json::from_slice(response)?,
            items: items.map(|(n, raw)| whole(raw, suffix, n)).collect(),
        })
    }

    /// Reads what [`Kept::encode`] wrote.
    ///
    /// # Errors
    /// [`KeptError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, KeptError> {
        Ok(serde_json::from_slice(bytes)?)
    }

    /// It as bytes.
    ///
    /// # Errors
    /// [`KeptError`]; not seen for what was made of JSON.
    pub fn encode(&self) -> Result<Bytes, KeptError> {
        Ok(serde_json::to_vec(self)?.into())
    }

    /// How large it is, near enough.
    pub fn bytes(&self) -> usize {
        let items = self.items.iter().map(|item| item.get().len());
        self.response.get().len() + items.sum::<usize>()
    }

    /// The response object, JSON.
    pub fn response(&self) -> &str {
        self.response.get()
    }

    /// All items up to the end of the response, which is where the next begins.
    pub(super) fn conversation(&self) -> Vec<Box<RawValue>> {
        self.items.iter().cloned().chain(self.output()).collect()
    }

    /// The response whose item has this id.
    pub(super) fn response_of(item: &str) -> Option<String> {
        let (_, rest) = item.split_once('_')?;
        let suffix = rest.get(..SUFFIX)?;
        let hex = suffix.bytes().all(|byte| byte.is_ascii_hexdigit());
        hex.then(|| format!("{ID_PREFIX}{suffix}"))
    }

    /// The item with this id.
    pub(super) fn item(&self, id: &str) -> Option<Box<RawValue>> {
        let is = |raw: &RawValue| id_of(raw).as_deref() == Some(id);
        self.output()
            .into_iter()
            .find(|raw| is(raw))
            .or_else(|| self.items.iter().find(|raw| is(raw)).cloned())
    }

    fn output(&self) -> Vec<Box<RawValue>> {
        #[derive(Deserialize)]
        struct Response {
            output: Vec<Box<RawValue>>,
        }
        let response = serde_json::from_str::<Response>(self.response.get());
        response.map_or_else(|_| Vec::new(), |response| response.output)
    }

    /// A page of the items that were answered, as a list object, JSON.
    pub fn page(&self, page: &Page) -> String {
        let mut items: Vec<&RawValue> = self.items.iter().map(AsRef::as_ref).collect();
        if !page.ascending {
            items.reverse();
        }
        if let Some(after) = &page.after {
            let at = items
                .iter()
                .position(|raw| id_of(raw).as_deref() == Some(after.as_str()));
            items = items.split_off(at.map_or(items.len(), |at| at + 1));
        }
        let more = items.len() > page.limit;
        items.truncate(page.limit);
        let id = |raw: Option<&&RawValue>| raw.and_then(|raw| id_of(raw)).unwrap_or_default();
        let (first, last) = (id(items.first()), id(items.last()));
        let data: Vec<&str> = items.iter().map(|raw| raw.get()).collect();
        format!(
            r#"{{"object":"list","data":[{}],"first_id":{},"last_id":{},"has_more":{more}}}"#,
            data.join(","),
            quoted(&first),
            quoted(&last),
        )
    }
}

/// Characters of a response's id behind its prefix: a UUID's.
const SUFFIX: usize = 32;

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[derive(Deserialize)]
struct Head {
    #[serde(default)]
    id: Option<String>,
    #[serde(default, rename = "type")]
    kind: Option<String>,
    #[serde(default)]
    role: Option<serde::de::IgnoredAny>,
}

fn id_of(raw: &RawValue) -> Option<String> {
    serde_json::from_str::<Head>(raw.get()).ok()?.id
}

/// The id of the item for which `raw` stands, if it is a reference. Its type may be left out.
pub(super) fn reference(raw: &RawValue) -> Option<String> {
    let head: Head = serde_json::from_str(raw.get()).ok()?;
    match head.kind.as_deref() {
        Some(REFERENCE) => head.id,
        None if head.role.is_none() => head.id,
        _ => None,
    }
}

/// An item with what the API's types demand of items that are told: an id, a type, a status, a list
/// as content.
fn whole(raw: Box<RawValue>, suffix: &str, n: usize) -> Box<RawValue> {
    completed(&raw, suffix, n).unwrap_or(raw)
}

fn completed(raw: &RawValue, suffix: &str, n: usize) -> Option<Box<RawValue>> {
    let mut item = RawObject::parse(raw.get().as_bytes()).ok()?;
    let head: Head = serde_json::from_str(raw.get()).ok()?;
    let kind = head.kind.unwrap_or_else(|| "message".to_owned());
    let absent = |item: &RawObject, name: &str| item.get(name).is_none_or(|raw| raw.get() == "null");
    if absent(&item, "type") {
        item.set("type", &kind).ok()?;
    }
    if absent(&item, "id") {
        let prefix = match kind.as_str() {
            "message" => "msg",
            "reasoning" => "rs",
            "function_call" => "fc",
            "function_call_output" => "fco",
            "custom_tool_call" => "ctc",
            _ => "item",
        };
        item.set("id", &format!("{prefix}_{suffix}i{n:04x}")).ok()?;
    }
    if absent(&item, "status") {
        item.set("status", "completed").ok()?;
    }
    if let Some(text) = item.get("content").filter(|raw| raw.get().starts_with('"')) {
        let role: Option<String> = item.get("role").and_then(|raw| serde_json::from_str(raw.get()).ok());
        let part = if role.as_deref() == Some("assistant") {
            format!(r#"[{{"type":"output_text","text":{},"annotations":[]}}]"#, text.get())
        } else {
            format!(r#"[{{"type":"input_text","text":{}}}]"#, text.get())
        };
        let part = RawValue::from_string(part).ok()?;
        item.set("content", &*part).ok()?;
    }
    RawValue::from_string(item.to_json().ok()?.get().to_owned()).ok()
}
